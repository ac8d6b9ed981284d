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

	"bellhop"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const schemaVersion = 1

// What a watcher has yet to see is found by change, what can be dropped by ended_at and deleted_at: no table is ever
// scanned for either.
const schema = `
CREATE TABLE resources (
	tenant TEXT NOT NULL, resource TEXT NOT NULL,
	requested_at INTEGER NOT NULL, operation_id TEXT NOT NULL,
	owner TEXT, deleted_at INTEGER,
	PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;
CREATE INDEX resources_deleted ON resources (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE TABLE operations (
	id TEXT NOT NULL PRIMARY KEY,
	verb TEXT NOT NULL, tenant TEXT NOT NULL, resource TEXT NOT NULL, requested_at INTEGER NOT NULL,
	replicas INTEGER NOT NULL, ports TEXT NOT NULL, beside TEXT NOT NULL,
	accepted_at INTEGER NOT NULL, done_at INTEGER, failed_at INTEGER, failure TEXT,
	superseded_at INTEGER, removed_at INTEGER, ended_at INTEGER,
	asks INTEGER NOT NULL, effects INTEGER NOT NULL, change INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX operations_change ON operations (change);
CREATE INDEX operations_ended ON operations (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE refusals (operation_id TEXT NOT NULL PRIMARY KEY, refused INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sequence (change INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
`

// columns are what a record is scanned from, of operations o; a row that is not there (of an outer join) is empty.
const columns = `coalesce(o.id, ''), coalesce(o.verb, ''), coalesce(o.tenant, ''), coalesce(o.resource, ''),
	coalesce(o.requested_at, 0), coalesce(o.replicas, 0), coalesce(o.ports, ''), coalesce(o.beside, ''),
	coalesce(o.accepted_at, 0), coalesce(o.done_at, 0), coalesce(o.failed_at, 0), coalesce(o.superseded_at, 0),
	coalesce(o.removed_at, 0), coalesce(o.failure, ''), coalesce(o.change, 0)`

// store is the file: one connection that writes, and a few that read.
type store struct {
	reads *sql.DB
	// writes has a single connection, so that writers of one process queue up in order and leave when their context
	// ends. Those of other processes meet in SQLite's own lock.
	writes *sql.DB

	// On reads.
	head, find, since *sql.Stmt
	// On writes, within a transaction.
	headForWrite, findForWrite, insert, askedAgain, supersede, remove, advance, refuse, take *sql.Stmt
}

// maxReaders bounds the connections that read, each of which has a cache of its own. A watcher holds one.
const maxReaders = 8

// dsn opens the file at path. In WAL mode readers and the writer do not wait for each other, and a killed process loses
// nothing that was committed, whatever synchronous says: that is about power failures, after which NORMAL may lose the
// last commits but never the file. A simulation can live with that, and it saves every call an fsync.
func dsn(path string, more ...string) string {
	query := url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(MEMORY)",
		// A checkpoint costs two fsyncs: fewer, larger ones.
		"wal_autocheckpoint(4000)",
	}, more...)}
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
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) close() error { return errors.Join(s.reads.Close(), s.writes.Close()) }

// migrate makes the tables, if no other worker did.
func (s *store) migrate(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		switch version {
		case 0:
			_, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", schemaVersion))
			return err
		case schemaVersion:
			return nil
		default:
			return fmt.Errorf("has layout %d, and this bellhop knows layout %d only: use another file", version, schemaVersion)
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
		{&s.since, s.reads, `SELECT ` + columns + ` FROM operations o WHERE o.change > ? ORDER BY o.change LIMIT ?`},
		{&s.headForWrite, s.writes, headQuery},
		{&s.findForWrite, s.writes, findQuery},
		{&s.insert, s.writes, `INSERT INTO operations (id, verb, tenant, resource, requested_at, replicas, ports, beside,
				accepted_at, done_at, failed_at, failure, removed_at, ended_at, asks, effects, change)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), nullif(?, 0), nullif(?, ''), nullif(?, 0), nullif(?, 0), 1, 1, ?)
			ON CONFLICT (id) DO UPDATE SET asks = asks + 1, effects = effects + 1, change = excluded.change`},
		{&s.askedAgain, s.writes, `UPDATE operations SET asks = asks + 1 WHERE id = ? RETURNING asks`},
		{&s.supersede, s.writes, `UPDATE operations SET superseded_at = ?1, ended_at = ?1, removed_at = nullif(?2, 0), change = ?3
			WHERE id = ?4`},
		{&s.remove, s.writes, `UPDATE operations SET removed_at = nullif(?, 0) WHERE id = ?`},
		{&s.advance, s.writes, `UPDATE sequence SET change = change + 2 RETURNING change`},
		{&s.refuse, s.writes, `INSERT INTO refusals VALUES (?, 1) ON CONFLICT DO UPDATE SET refused = refused + 1 RETURNING refused`},
		{&s.take, s.writes, `INSERT INTO resources (tenant, resource, requested_at, operation_id, deleted_at)
			VALUES (?, ?, ?, ?, nullif(?, 0))
			ON CONFLICT DO UPDATE SET requested_at = excluded.requested_at, operation_id = excluded.operation_id,
				deleted_at = excluded.deleted_at`},
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

const headQuery = `SELECT r.requested_at, r.operation_id, coalesce(r.owner, ''), ` + columns + `
	FROM resources r LEFT JOIN operations o ON o.id = r.operation_id WHERE r.tenant = ? AND r.resource = ?`

// findQuery finds the operations whose ids are in a list in JSON.
const findQuery = `SELECT ` + columns + ` FROM json_each(?) wanted CROSS JOIN operations o ON o.id = wanted.value`

// head is who touched a resource last: nobody, somebody else, or an operation of ours.
type head struct {
	owner       string
	requestedAt int64
	operationID string
	// record is that operation's. It is empty when nobody ever did, and when a deletion was long enough ago to be
	// forgotten.
	record record
}

func (h *head) scan(row *sql.Row) error {
	err := h.record.scan(row, &h.requestedAt, &h.operationID, &h.owner)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// newerThan says whether an operation touched the resource that is newer than op.
func (h *head) newerThan(op bellhop.Operation) bool {
	return h.operationID != "" && generationOf(h.requestedAt, h.operationID).After(op.Generation())
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
