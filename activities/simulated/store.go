package simulated

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"
	"modernc.org/sqlite" // and the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"bellhop"
)

const layout = 1

// An ask writes one row and two entries of indexes. What a watcher has yet to see is found by the primary key, who
// touched a resource last by operations_head, and what can be dropped by operations_forget: no table is ever scanned
// for it.
const schema = `
CREATE TABLE operations (
	change INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	verb TEXT NOT NULL, tenant TEXT NOT NULL, resource TEXT NOT NULL, requested_at INTEGER NOT NULL,
	replicas INTEGER NOT NULL, ports TEXT, beside TEXT,
	accepted_at INTEGER NOT NULL, done_at INTEGER, failed_at INTEGER, failure TEXT,
	superseded_at INTEGER, removed_at INTEGER, forget_at INTEGER,
	asks INTEGER NOT NULL DEFAULT 1, effects INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX operations_head ON operations (tenant, resource) WHERE superseded_at IS NULL;
CREATE INDEX operations_forget ON operations (forget_at) WHERE forget_at IS NOT NULL;
CREATE TABLE refusals (operation_id TEXT PRIMARY KEY, refused INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE strangers (
	tenant TEXT NOT NULL, resource TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;
`

// columns are what a record is scanned from, of operations o; a row that is not there (of an outer join) is empty.
const columns = `coalesce(o.id, ''), coalesce(o.verb, ''), coalesce(o.tenant, ''), coalesce(o.resource, ''),
	coalesce(o.requested_at, 0), coalesce(o.replicas, 0), coalesce(o.ports, ''), coalesce(o.beside, ''),
	coalesce(o.accepted_at, 0), coalesce(o.done_at, 0), coalesce(o.failed_at, 0), coalesce(o.superseded_at, 0),
	coalesce(o.removed_at, 0), coalesce(o.failure, ''), coalesce(o.change, 0)`

const (
	headQuery = `SELECT coalesce(s.owner, ''), ` + columns + ` FROM (SELECT ?1 AS tenant, ?2 AS resource) wanted
		LEFT JOIN strangers s ON s.tenant = wanted.tenant AND s.resource = wanted.resource
		LEFT JOIN operations o ON o.tenant = wanted.tenant AND o.resource = wanted.resource AND o.superseded_at IS NULL`
	findQuery  = `SELECT ` + columns + ` FROM json_each(?) wanted CROSS JOIN operations o ON o.id = wanted.value`
	sinceQuery = `SELECT ` + columns + ` FROM operations o WHERE o.change > ? ORDER BY o.change LIMIT ?`

	// An operation that is inserted a second time is a doubled effect: that must never be, and is counted to prove it.
	insertStatement = `INSERT INTO operations (id, verb, tenant, resource, requested_at, replicas, ports, beside,
			accepted_at, done_at, failed_at, failure, removed_at, forget_at)
		VALUES (?, ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, ''), ?, nullif(?, 0), nullif(?, 0), nullif(?, ''), nullif(?, 0),
			nullif(?, 0))
		ON CONFLICT (id) DO UPDATE SET effects = effects + 1`
	againStatement     = `UPDATE operations SET asks = asks + 1 WHERE id = ? RETURNING asks`
	supersedeStatement = `UPDATE operations SET superseded_at = ?, removed_at = nullif(?, 0), forget_at = ?,
		change = (SELECT max(change) + 1 FROM operations) WHERE id = ?`
	removeStatement = `UPDATE operations SET removed_at = nullif(?, 0) WHERE id = ?`
	refuseStatement = `INSERT INTO refusals VALUES (?, 1) ON CONFLICT DO UPDATE SET refused = refused + 1 RETURNING refused`
)

// store is the file: one connection that writes, and a few that read.
type store struct {
	reads *sql.DB
	// writes has a single connection, so that writers of one process queue up in order and leave when their context
	// ends. Those of other processes meet in SQLite's own lock.
	writes *sql.DB

	// On reads.
	head, find, since *sql.Stmt
	// On writes, within a transaction.
	headForWrite, findForWrite, insert, again, supersede, remove, refuse *sql.Stmt
}

// maxReaders bounds the connections that read, each of which has a cache of its own. A watcher holds one.
const maxReaders = 8

// dsn opens the file at path. In WAL mode readers and the writer do not wait for each other, and a killed process loses
// nothing that was committed, whatever synchronous says: that is about power failures, after which NORMAL may lose the
// last commits but never the file. A simulation can live with that, and it saves every call an fsync.
func dsn(path string) string {
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(MEMORY)",
		// A checkpoint costs two fsyncs: fewer, larger ones.
		"wal_autocheckpoint(4000)",
	}}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}).String()
}

func openStore(ctx context.Context, path string) (*store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	s := &store{}
	if s.writes, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, err
	}
	if s.reads, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, errors.Join(err, s.writes.Close())
	}
	s.writes.SetMaxOpenConns(1)
	s.reads.SetMaxOpenConns(maxReaders)
	s.reads.SetMaxIdleConns(maxReaders)
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) close() error { return errors.Join(s.reads.Close(), s.writes.Close()) }

// beginWithin bounds how long workers that make the file together get in each other's way.
const beginWithin = 10 * time.Second

// begin opens the file for writing. Where several do so at once, while there is none, SQLite has one of them put it into
// WAL mode and tells the others that it is busy, without the wait that busy_timeout asks for.
func (s *store) begin(ctx context.Context) error {
	open := func() (struct{}, error) {
		err := s.writes.PingContext(ctx)
		if busy, ok := errors.AsType[*sqlite.Error](err); err != nil && (!ok || busy.Code()&0xff != sqlite3.SQLITE_BUSY) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}
	pauses := backoff.NewConstantBackOff(20 * time.Millisecond)
	_, err := backoff.Retry(ctx, open, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(beginWithin))
	return err
}

// migrate makes the tables, if no other worker did.
func (s *store) migrate(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		switch version {
		case 0:
			_, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", layout))
			return err
		case layout:
			return nil
		default:
			return fmt.Errorf("it has layout %d, and this bellhop knows layout %d only: use another file", version, layout)
		}
	})
}

func (s *store) prepare(ctx context.Context) error {
	for _, statement := range []struct {
		into **sql.Stmt
		db   *sql.DB
		text string
	}{
		{&s.head, s.reads, headQuery},
		{&s.find, s.reads, findQuery},
		{&s.since, s.reads, sinceQuery},
		{&s.headForWrite, s.writes, headQuery},
		{&s.findForWrite, s.writes, findQuery},
		{&s.insert, s.writes, insertStatement},
		{&s.again, s.writes, againStatement},
		{&s.supersede, s.writes, supersedeStatement},
		{&s.remove, s.writes, removeStatement},
		{&s.refuse, s.writes, refuseStatement},
	} {
		prepared, err := statement.db.PrepareContext(ctx, statement.text)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", statement.text, err)
		}
		*statement.into = prepared
	}
	return nil
}

// write runs do in one transaction that holds SQLite's write lock from its beginning, so that what do reads is still
// true when it writes. It waits for the lock until ctx ends; then nothing has happened. What do does is short and goes
// on without ctx: to watch out for its end would cost as much as the statements.
func (s *store) write(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := s.writes.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(context.WithoutCancel(ctx), tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// head is who touched a resource last: nobody, somebody else, or an operation of ours.
type head struct {
	// owner is who it belongs to when it is not bellhop.
	owner string
	// record is the operation's. It is empty when nobody ever touched it, or a deletion so long ago that it is forgotten.
	record
}

func (h *head) scan(row *sql.Row) error { return h.record.scan(row, &h.owner) }

// newerThan says whether an operation touched the resource that is newer than op.
func (h *head) newerThan(op bellhop.Operation) bool {
	return h.id != "" && generationOf(h.requestedAt, h.id).After(op.Generation())
}

// records reads all rows of a query of records.
func records(ctx context.Context, query *sql.Stmt, args ...any) (_ []record, err error) {
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all []record
	for rows.Next() {
		var r record
		if err := r.scan(rows); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// recordOf reads one operation with findQuery; an unknown one is empty.
func recordOf(ctx context.Context, find *sql.Stmt, id string) (record, error) {
	wanted, err := json.Marshal([]string{id})
	if err != nil {
		return record{}, err
	}
	found, err := records(ctx, find, string(wanted))
	if err != nil || len(found) == 0 {
		return record{}, err
	}
	return found[0], nil
}

// scan reads columns, after more that come first.
func (r *record) scan(row interface{ Scan(into ...any) error }, more ...any) error {
	var ports, beside, failure string
	err := row.Scan(append(more, &r.id, &r.verb, &r.tenant, &r.resource, &r.requestedAt, &r.replicas, &ports, &beside,
		&r.acceptedAt, &r.doneAt, &r.failedAt, &r.supersededAt, &r.removedAt, &failure, &r.change)...)
	if err != nil {
		return err
	}
	for _, column := range []struct {
		text string
		into any
	}{{ports, &r.ports}, {beside, &r.beside}, {failure, &r.failure}} {
		if column.text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(column.text), column.into); err != nil {
			return fmt.Errorf("read operation %s: %w", r.id, err)
		}
	}
	return nil
}
