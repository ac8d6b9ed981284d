// Package reload keeps values that are made of files up to date, so that keys, tokens and certificates can be rotated
// without a restart.
package reload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Value is a value that is made of one or more files, and made again when one of them changes.
type Value[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)

	mu      sync.Mutex
	value   T
	stamps  []stamp
	sum     [sha256.Size]byte
	readAt  time.Time
	trouble string
}

// stamp tells one state of a file from another without reading it.
type stamp struct {
	info os.FileInfo
	err  string
}

// settled is how old the last change of a file must be for its stamp to be trusted: a file system may give the same time
// to two changes within this time.
const settled = 2 * time.Second

// maxBytes is more than a bundle of certificates takes.
const maxBytes = 4 << 20

var broken atomic.Int64

// Broken is how many values of this process were made of files that have changed since and cannot be used as they are.
func Broken() int64 { return broken.Load() }

// New reads the files and makes the value, which parse does from their contents in the order of paths. The errors of
// parse are logged and must not show what is in the files.
func New[T any](parse func(contents [][]byte) (T, error), paths ...string) (*Value[T], error) {
	v := &Value[T]{paths: paths, parse: parse}
	v.stamps = v.look()
	contents, err := v.read()
	if err != nil {
		return nil, err
	}
	v.value, err = parse(contents)
	return v, err
}

// File is a [Value] of one file.
func File[T any](path string, parse func(content []byte) (T, error)) (*Value[T], error) {
	return New(func(contents [][]byte) (T, error) { return parse(contents[0]) }, path)
}

// Get returns the value as the files are now. If they have changed and cannot be used, it returns the value from before,
// and logs this once: a mistake in a file must not stop what works.
func (v *Value[T]) Get() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	// The stamps are taken before the files are read: a change in between is seen the next time. Trouble may pass without
	// a change: with a pair of files of which one was read before the other was there.
	now := v.look()
	if v.trouble == "" && !v.recent() && slices.EqualFunc(now, v.stamps, same) {
		return v.value
	}
	v.stamps = now
	before := v.sum
	contents, err := v.read()
	if err == nil && v.sum == before && v.trouble == "" {
		return v.value
	}
	var value T
	if err == nil {
		value, err = v.parse(contents)
	}
	if err != nil {
		v.keep(err)
		return v.value
	}
	if v.trouble != "" {
		v.trouble = ""
		broken.Add(-1)
	}
	v.value = value
	slog.Info("changed files are used from now on", "files", v.paths)
	return v.value
}

// keep notes that the files cannot be used.
func (v *Value[T]) keep(err error) {
	if v.trouble == "" {
		broken.Add(1)
	}
	if v.trouble != err.Error() {
		slog.Error("files have changed and cannot be used; what was in them before stays in use", "files", v.paths, "error", err)
	}
	v.trouble = err.Error()
}

// look takes the stamps of the files. It follows symbolic links, which is how Kubernetes changes the files of a secret.
func (v *Value[T]) look() []stamp {
	stamps := make([]stamp, len(v.paths))
	for i, path := range v.paths {
		var err error
		if stamps[i].info, err = os.Stat(path); err != nil {
			stamps[i].err = err.Error()
		}
	}
	return stamps
}

func same(a, b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil && a.err == b.err
	}
	return os.SameFile(a.info, b.info) && a.info.ModTime().Equal(b.info.ModTime()) && a.info.Size() == b.info.Size()
}

// recent says whether a file was changed so shortly before it was read that a further change may not show.
func (v *Value[T]) recent() bool {
	return slices.ContainsFunc(v.stamps, func(s stamp) bool {
		return s.info != nil && s.info.ModTime().After(v.readAt.Add(-settled))
	})
}

func (v *Value[T]) read() ([][]byte, error) {
	v.readAt = time.Now()
	contents := make([][]byte, len(v.paths))
	sum := sha256.New()
	for i, path := range v.paths {
		var err error
		if contents[i], err = Read(path); err != nil {
			return nil, err
		}
		fmt.Fprintf(sum, "%d\n", len(contents[i]))
		sum.Write(contents[i])
	}
	v.sum = [sha256.Size]byte(sum.Sum(nil))
	return contents, nil
}

// Read reads a file as a [Value] does. It does not block: a file that is not regular, such as a pipe, is not opened.
func Read(path string) (text []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err = io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err == nil && len(text) > maxBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxBytes)
	}
	return text, err
}
