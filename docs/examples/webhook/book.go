package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"bellhop"
)

// Book is a bill by tenant, and the callbacks that are on it. An entry must be made once: one more is money.
type Book struct{ *sql.DB }

const schema = `
CREATE TABLE IF NOT EXISTS callbacks (id TEXT PRIMARY KEY, outcome BLOB NOT NULL, came INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE TABLE IF NOT EXISTS bill (
	tenant TEXT PRIMARY KEY, provisioned INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, other INTEGER NOT NULL DEFAULT 0
) STRICT;`

func openBook(ctx context.Context, path string) (*Book, error) {
	// A transaction that writes waits for its turn at its begin, where waiting is no conflict.
	options := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+path+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		_ = db.Close() //nolint:errcheck // it was not opened, in effect
		return nil, err
	}
	return &Book{db}, nil
}

// enter notes a callback and brings its effect about, both or neither. It says whether the callback was noted before:
// then it has no effect.
func (b *Book) enter(ctx context.Context, id string, outcome bellhop.Outcome, body []byte) (again bool, err error) {
	tx, err := b.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	// The unique key makes the decision, however many copies of a callback come at once.
	var came int
	if err := tx.QueryRowContext(ctx, `INSERT INTO callbacks (id, outcome) VALUES (?, ?)
		ON CONFLICT (id) DO UPDATE SET came = came + 1 RETURNING came`, id, body).Scan(&came); err != nil {
		return false, fmt.Errorf("note %s: %w", id, err)
	}
	if came == 1 {
		if err := charge(ctx, tx, outcome); err != nil {
			return false, fmt.Errorf("charge for %s: %w", id, err)
		}
	}
	return came > 1, tx.Commit()
}

// charge is the effect. Done twice it would be wrong, so it shares the callback's transaction.
func charge(ctx context.Context, tx *sql.Tx, outcome bellhop.Outcome) error {
	column := "other"
	switch outcome.Event { //nolint:exhaustive // the others are charged alike
	case bellhop.EventProvisioned:
		column = "provisioned"
	case bellhop.EventFailed:
		column = "failed"
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO bill (tenant, `+column+`) VALUES (?, 1)
		ON CONFLICT (tenant) DO UPDATE SET `+column+` = `+column+` + 1`, outcome.TenantID)
	return err
}

// line is what one tenant is charged for.
type line struct {
	Tenant      string `json:"tenant"`
	Provisioned int    `json:"provisioned"`
	Failed      int    `json:"failed"`
	Other       int    `json:"other"`
}

func (b *Book) print(ctx context.Context, out io.Writer) error {
	rows, err := b.QueryContext(ctx, `SELECT tenant, provisioned, failed, other FROM bill ORDER BY tenant`)
	if err != nil {
		return fmt.Errorf("read the bill: %w", err)
	}
	defer rows.Close() //nolint:errcheck // it was only read
	encoder := json.NewEncoder(out)
	for rows.Next() {
		var l line
		if err := rows.Scan(&l.Tenant, &l.Provisioned, &l.Failed, &l.Other); err != nil {
			return fmt.Errorf("read the bill: %w", err)
		}
		if err := encoder.Encode(l); err != nil {
			return err
		}
	}
	return rows.Err()
}
