package simulated

import (
	"context"
	"database/sql"
	"time"
)

// How long the file remembers. What ended is told to watchers that start within the hour after; later the backstop has
// found it anyway. A generation outlives the longest operation, a week, so that none that is older comes back to life.
const (
	remembersEnded   = time.Hour
	remembersDeleted = 8 * 24 * time.Hour
	// forgetEvery is after how many changes it is looked for what can be dropped, a power of two.
	forgetEvery = 512
)

// forget drops what nobody needs any more. It is looked for now and then, in the transaction of whoever comes by, so
// that nothing has to run in the background.
func (s *store) forget(ctx context.Context, tx *sql.Tx, change, now int64) error {
	if change%forgetEvery > 1 { // changes come in twos
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM operations WHERE ended_at < ?`, now-int64(remembersEnded)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM resources WHERE deleted_at < ?`, now-int64(remembersDeleted))
	return err
}
