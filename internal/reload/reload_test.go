package reload_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop/internal/reload"
)

// number parses a file as a test wants it: it is broken unless it begins with "=", and its errors show nothing of it.
func number(made *int) func([]byte) (string, error) {
	return func(content []byte) (string, error) {
		*made++
		value, ok := strings.CutPrefix(string(content), "=")
		if !ok {
			return "", errors.New("has no value")
		}
		return value, nil
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// old makes a file one that has not been changed for long, as it is most of the time.
func old(t *testing.T, path string) {
	t.Helper()
	long := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, long, long))
}

// logged collects the log.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	return &log
}

func TestValue_SeesEveryKindOfChange(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	logged(t)
	for name, change := range map[string]func(t *testing.T, path string){
		"in place": func(t *testing.T, path string) { t.Helper(); write(t, path, "=two") },
		"renamed": func(t *testing.T, path string) {
			t.Helper()
			write(t, path+".new", "=two")
			require.NoError(t, os.Rename(path+".new", path))
		},
		"of the same size and time": func(t *testing.T, path string) {
			t.Helper()
			info, err := os.Stat(path)
			require.NoError(t, err)
			write(t, path+".new", "=two")
			require.NoError(t, os.Chtimes(path+".new", info.ModTime(), info.ModTime()))
			require.NoError(t, os.Rename(path+".new", path))
		},
		"gone and made again": func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			write(t, path, "=two")
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "value")
			write(t, path, "=one")
			old(t, path)
			made := 0
			value, err := reload.File(path, number(&made))
			require.NoError(t, err)
			require.Equal(t, "one", value.Get())
			change(t, path)
			require.Equal(t, "two", value.Get())
		})
	}
}

// A Kubernetes secret's files are links to links to files, and one of the links in the middle is replaced.
func TestValue_KubernetesSecret(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	logged(t)
	volume := t.TempDir()
	mount := func(version, key, certificate string) {
		folder := filepath.Join(volume, version)
		require.NoError(t, os.Mkdir(folder, 0o700))
		write(t, filepath.Join(folder, "key"), key)
		write(t, filepath.Join(folder, "certificate"), certificate)
		require.NoError(t, os.Symlink(version, filepath.Join(volume, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	}
	mount("..one", "key one", "certificate one")
	for _, name := range []string{"key", "certificate"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(volume, name)))
	}
	value, err := reload.New(func(contents [][]byte) (string, error) {
		return fmt.Sprintf("%s, %s", contents[0], contents[1]), nil
	}, filepath.Join(volume, "key"), filepath.Join(volume, "certificate"))
	require.NoError(t, err)
	require.Equal(t, "key one, certificate one", value.Get())
	mount("..two", "key two", "certificate two")
	require.NoError(t, os.RemoveAll(filepath.Join(volume, "..one")))
	require.Equal(t, "key two, certificate two", value.Get())
}

// A second change right after the first may leave the file's size and time as they were.
func TestValue_TwoChangesAtOnce(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	logged(t)
	path := filepath.Join(t.TempDir(), "value")
	at := time.Now()
	set := func(text string) {
		write(t, path, text)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	set("=0")
	made := 0
	value, err := reload.File(path, number(&made))
	require.NoError(t, err)
	for i := range 10 {
		set(fmt.Sprintf("=%d", i))
		require.Equal(t, fmt.Sprint(i), value.Get())
		require.Equal(t, fmt.Sprint(i), value.Get())
	}
	require.Equal(t, 10, made, "what has not changed is not made again")
}

func TestValue_BrokenFileKeepsTheOldValue(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	log := logged(t)
	path := filepath.Join(t.TempDir(), "value")
	write(t, path, "=one")
	made := 0
	value, err := reload.File(path, number(&made))
	require.NoError(t, err)
	require.Zero(t, reload.Broken())
	for _, broken := range []func() error{
		func() error { return os.WriteFile(path, []byte("hunter2"), 0o600) },
		func() error { return os.WriteFile(path, nil, 0o600) },
		func() error { return nil }, // it is gone
		func() error { return os.Mkdir(path, 0o700) },
	} {
		log.Reset()
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, broken())
		for range 5 {
			require.Equal(t, "one", value.Get())
		}
		require.LessOrEqual(t, strings.Count(log.String(), "level=ERROR"), 1, "it is said once")
		require.Equal(t, int64(1), reload.Broken())
		require.NotContains(t, log.String(), "hunter2")
	}
	require.Contains(t, log.String(), path)
	require.NoError(t, os.Remove(path))
	write(t, path, "=two")
	require.Equal(t, "two", value.Get())
	require.Zero(t, reload.Broken())
	require.Contains(t, log.String(), "level=INFO")
}

// The value from before a mistake comes back with the file, and counts as used.
func TestValue_MistakeIsTakenBack(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	logged(t)
	path := filepath.Join(t.TempDir(), "value")
	write(t, path, "=one")
	made := 0
	value, err := reload.File(path, number(&made))
	require.NoError(t, err)
	write(t, path, "mistake")
	require.Equal(t, "one", value.Get())
	write(t, path, "=one")
	require.Equal(t, "one", value.Get())
	require.Zero(t, reload.Broken())
}

func TestNew_NeedsTheFiles(t *testing.T) {
	t.Parallel()
	made := 0
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := reload.File(missing, number(&made))
	require.ErrorContains(t, err, missing)
	_, err = reload.File(t.TempDir(), number(&made))
	require.ErrorContains(t, err, "is not a regular file")
	path := filepath.Join(t.TempDir(), "value")
	write(t, path, "nothing")
	_, err = reload.File(path, number(&made))
	require.ErrorContains(t, err, "has no value")
	require.NoError(t, os.Truncate(path, 5<<20))
	_, err = reload.File(path, number(&made))
	require.ErrorContains(t, err, "is larger than")
}

func TestValue_ManyAtOnce(t *testing.T) { //nolint:paralleltest // it collects the log of the process
	logged(t)
	path := filepath.Join(t.TempDir(), "value")
	write(t, path, "=0")
	made := 0
	value, err := reload.File(path, number(&made))
	require.NoError(t, err)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for last := ""; last != "99"; last = value.Get() {
			}
		})
	}
	for i := range 100 {
		write(t, path+".new", fmt.Sprintf("=%d", i))
		require.NoError(t, os.Rename(path+".new", path))
	}
	readers.Wait()
}

func BenchmarkValue(b *testing.B) {
	path := filepath.Join(b.TempDir(), "value")
	require.NoError(b, os.WriteFile(path, []byte("=one"), 0o600))
	long := time.Now().Add(-time.Hour)
	require.NoError(b, os.Chtimes(path, long, long))
	made := 0
	value, err := reload.File(path, number(&made))
	require.NoError(b, err)
	for b.Loop() {
		value.Get()
	}
}
