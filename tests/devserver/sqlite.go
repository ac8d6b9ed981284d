package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/resolver"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

// retention is how long a closed workflow can still be looked at: long enough
// for whoever comes back after a weekend, short enough that a forgotten
// server's database does not grow for ever.
const retention = 7 * 24 * time.Hour

// sqliteConfig describes the database at path, or one in memory if path is
// empty. Several databases in memory can live in one process.
func sqliteConfig(path string) *config.SQL {
	c := &config.SQL{
		PluginName: sqlite.PluginName,
		// More connections were slower: SQLite has one writer, and they wait for it.
		MaxConns:     1,
		MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"cache_size": "-65536", // 64 MiB; the default of 2 MiB rereads the history table
			"temp_store": "2",      // sort in memory
		},
	}
	if path == "" {
		c.DatabaseName = "bellhop-" + rand.Text()
		c.ConnectAttributes["mode"] = "memory"
		// The server opens its database many times; shared means the same one.
		c.ConnectAttributes["cache"] = "shared"
		return c
	}
	// The name ends up in a URI, where ?, # and % have a meaning.
	c.DatabaseName = (&url.URL{Path: path}).EscapedPath()
	c.ConnectAttributes["mode"] = "rwc"
	// A write-ahead log doubles the throughput and survives kill -9 with
	// synchronous=normal; only a power cut may lose the last few transactions.
	c.ConnectAttributes["journal_mode"] = "wal"
	c.ConnectAttributes["synchronous"] = "normal"
	// Two servers on one database would both think they own its workflows.
	c.ConnectAttributes["locking_mode"] = "exclusive"
	// Waits for a predecessor that is about to end.
	c.ConnectAttributes["busy_timeout"] = "3000"
	return c
}

// prepareDatabase makes sure that the schema and the namespaces exist. Search
// attributes come later, through the server: see ensureSearchAttributes.
func prepareDatabase(c *config.SQL, namespaces []string) error {
	// A database in memory gets its schema when it is opened.
	if !inMemory(c) {
		if err := ensureSchema(c); err != nil {
			return err
		}
	}
	configs := make([]*sqliteschema.NamespaceConfig, 0, len(namespaces))
	for _, name := range namespaces {
		ns, err := sqliteschema.NewNamespaceConfig(clusterName, name, false, nil)
		if err != nil {
			return fmt.Errorf("describe namespace %s: %w", name, err)
		}
		ns.Detail.Config.Retention = durationpb.New(retention)
		configs = append(configs, ns)
	}
	// Leaves namespaces of an earlier run as they are.
	if err := sqliteschema.CreateNamespaces(c, configs...); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	return nil
}

// ensureSchema creates the tables in a file that has none. All or nothing: a
// kill in the middle leaves an empty file, not half a schema that no later
// start could use.
func ensureSchema(c *config.SQL) (err error) {
	db, err := openDatabase(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	// One connection, so these statements share one transaction.
	if err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Exec("ROLLBACK"))
		}
	}()
	tables, err := db.ListTables(c.DatabaseName)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	switch {
	case len(tables) == 0:
		if err := sqliteschema.SetupSchemaOnDB(db); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	case !slices.Contains(tables, "executions_visibility"):
		return errors.New("the database belongs to another program")
	}
	return db.Exec("COMMIT")
}

// finishDatabase folds the write-ahead log into the file, so that after a clean
// stop the file alone is everything and can be copied.
func finishDatabase(c *config.SQL) error {
	if inMemory(c) {
		return nil
	}
	db, err := openDatabase(c)
	if err != nil {
		return err
	}
	if err := db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return errors.Join(fmt.Errorf("finish database: %w", err), db.Close())
	}
	return db.Close()
}

// openDatabase returns the connection that all parts of the server share.
func openDatabase(c *config.SQL) (sqlplugin.AdminDB, error) {
	db, err := sql.NewSQLAdminDB(sqlplugin.DbKindUnknown, c, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

func inMemory(c *config.SQL) bool { return c.ConnectAttributes["mode"] == "memory" }
