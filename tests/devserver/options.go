package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/primitives"
)

const (
	defaultPort = 7233
	// uiPortOffset is the distance that Temporal's own development server keeps
	// between its port and its UI's, so that bookmarks stay right.
	uiPortOffset = 1000
	maxPort      = 65535
)

// errHelp says that help was asked for.
var errHelp = errors.New("help")

// usageError is wrong usage: its faults, one a line.
type usageError struct{ faults []error }

func (e *usageError) Error() string { return errors.Join(e.faults...).Error() }

// options is what the command line says.
type options struct {
	port             int    // of the frontend; 0: a free port
	uiPort           int    // of the web UI; 0: a free port
	headless         bool   // no web UI
	db               string // path of the database file; empty: in memory
	namespaces       []string
	searchAttributes searchAttributes // in every namespace; bellhop's own included
	logLevel         string
	stopWithParent   bool

	rawSearchAttributes []string
}

func (o *options) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.IntVar(&o.port, "port", defaultPort, "`port` for workers and clients; 0 picks a free one")
	fs.IntVar(&o.uiPort, "ui-port", 0, fmt.Sprintf("`port` of the web UI; 0 picks a free one (default --port + %d)", uiPortOffset))
	fs.BoolVar(&o.headless, "headless", false, "run without the web UI")
	fs.StringVar(&o.db, "db", "", "keep everything in this SQLite `file` (default: in memory, gone at the end)")
	fs.StringArrayVar(&o.namespaces, "namespace", []string{"default"}, "`name` of a namespace that shall exist; repeatable")
	fs.StringArrayVar(&o.rawSearchAttributes, "search-attribute", nil,
		"search attribute that shall exist in every namespace, as `Name=Type`, beside bellhop's own; repeatable")
	fs.StringVar(&o.logLevel, "log-level", "error", "log to stderr from this `level` on: "+strings.Join(logLevels, ", "))
	fs.BoolVar(&o.stopWithParent, "stop-with-parent", false, "stop when the process that started this one ends")
	fs.BoolP("help", "h", false, "show this help")
}

// parseOptions reads the command line. The error is errHelp or a *usageError
// with every fault in it.
func parseOptions(args []string) (options, error) {
	var faults []error
	for {
		var o options
		fs := pflag.NewFlagSet("bellhop-devserver", pflag.ContinueOnError)
		o.register(fs)
		err := fs.Parse(args)
		if help, _ := fs.GetBool("help"); help {
			return options{}, errHelp
		}
		if err != nil {
			// pflag stops at the first fault; without the culprit it finds the next.
			faults = append(faults, err)
			rest, ok := withoutCulprit(args, err)
			if ok {
				args = rest
				continue
			}
			return options{}, &usageError{faults}
		}
		for _, arg := range fs.Args() {
			faults = append(faults, fmt.Errorf("unexpected argument %q", arg))
		}
		faults = append(faults, o.complete(fs)...)
		if len(faults) > 0 {
			return options{}, &usageError{faults}
		}
		return o, nil
	}
}

// withoutCulprit removes the argument that pflag stumbled over.
func withoutCulprit(args []string, err error) (rest []string, ok bool) {
	var (
		name     string
		operands int // arguments after the flag that belong to it
		unknown  *pflag.NotExistError
		missing  *pflag.ValueRequiredError
		invalid  *pflag.InvalidValueError
		syntax   *pflag.InvalidSyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		name = unknown.GetSpecifiedName()
	case errors.As(err, &missing):
		name = missing.GetSpecifiedName()
	case errors.As(err, &invalid):
		name, operands = invalid.GetFlag().Name, 1
	case errors.As(err, &syntax):
		i := slices.Index(args, syntax.GetSpecifiedFlag())
		if i < 0 {
			return nil, false
		}
		return slices.Delete(slices.Clone(args), i, i+1), true
	}
	for i, arg := range args {
		switch {
		case arg == "--"+name:
			end := min(i+1+operands, len(args))
			return slices.Delete(slices.Clone(args), i, end), true
		case strings.HasPrefix(arg, "--"+name+"="),
			unknown != nil && unknown.GetSpecifiedShortnames() != "" && strings.HasPrefix(arg, "-") && strings.HasSuffix(arg, unknown.GetSpecifiedShortnames()):
			return slices.Delete(slices.Clone(args), i, i+1), true
		}
	}
	return nil, false
}

// complete checks every value and fills in what follows from the others.
func (o *options) complete(fs *pflag.FlagSet) (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	portOK := o.port >= 0 && o.port <= maxPort
	if !portOK {
		fault("--port %d: not a port (0 to %d)", o.port, maxPort)
	}
	switch {
	case o.headless && fs.Changed("ui-port"):
		fault("--ui-port contradicts --headless")
	case o.headless:
	case !fs.Changed("ui-port") && o.port > 0:
		o.uiPort = o.port + uiPortOffset
		if portOK && o.uiPort > maxPort {
			fault("--port %d leaves no room for the UI on port %d: add --ui-port or --headless", o.port, o.uiPort)
		}
	case o.uiPort < 0 || o.uiPort > maxPort:
		fault("--ui-port %d: not a port (0 to %d)", o.uiPort, maxPort)
	case o.uiPort != 0 && o.uiPort == o.port:
		fault("--ui-port %d is the same as --port", o.uiPort)
	}

	if fs.Changed("db") {
		path, err := databasePath(o.db)
		if err != nil {
			fault("--db %q: %w", o.db, err)
		}
		o.db = path
	}

	for i, ns := range o.namespaces {
		switch {
		case ns == "" || strings.TrimSpace(ns) != ns:
			fault("--namespace %q: a name without spaces around it, please", ns)
		case ns == primitives.SystemLocalNamespace:
			fault("--namespace %s: belongs to the server", ns)
		case slices.Contains(o.namespaces[:i], ns):
			fault("--namespace %s: given twice", ns)
		}
	}

	var saFaults []error
	o.searchAttributes, saFaults = parseSearchAttributes(o.rawSearchAttributes)
	faults = append(faults, saFaults...)

	if !slices.Contains(logLevels, o.logLevel) {
		fault("--log-level %q: not one of %s", o.logLevel, strings.Join(logLevels, ", "))
	}
	return faults
}

// databasePath makes the path absolute, so that it means the same wherever it
// is used, and finds faults that SQLite would report as "unable to open".
func databasePath(path string) (string, error) {
	if path == "" {
		return "", errors.New("a path, please")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", errors.New("not a file")
	}
	switch info, err := os.Stat(filepath.Dir(path)); {
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a folder", filepath.Dir(path))
	}
	return path, nil
}

// parseSearchAttributes reads Name=Type pairs and adds bellhop's own.
func parseSearchAttributes(raw []string) (searchAttributes, []error) {
	var faults []error
	all := bellhopSearchAttributes()
	for _, pair := range raw {
		name, typeName, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			faults = append(faults, fmt.Errorf("--search-attribute %q: not Name=Type", pair))
			continue
		}
		t, err := enumspb.IndexedValueTypeFromString(typeName)
		if err != nil || t == enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED {
			faults = append(faults, fmt.Errorf("--search-attribute %q: type %q is not one of %s", pair, typeName, strings.Join(searchAttributeTypes(), ", ")))
			continue
		}
		if err := all.add(name, t); err != nil {
			faults = append(faults, fmt.Errorf("--search-attribute %q: %w", pair, err))
		}
	}
	return all, faults
}
