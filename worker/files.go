package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"bellhop"
)

// The kinds of files, as the tag "file" of a field says that names one.
const (
	// fileSecret has a key, a token or a password in the clear: nobody else may read it.
	fileSecret = "secret"
	// fileSecrets is a folder of such files.
	fileSecrets = "secrets"
	// fileHashes has hashes of tokens, of which a weak token can be guessed.
	fileHashes = "hashes"
	// filePublic may be read by anybody, but says whom to trust.
	filePublic = "public"
)

// namedFile is a file that a configuration names.
type namedFile struct {
	// field is the path of the field that names it, or what else does.
	field string
	path  string
	kind  string
}

// filesOf are the files that the fields of a configuration name, by the tag "file" of the fields.
func filesOf(field string, config any) []namedFile {
	var files []namedFile
	var walk func(field string, value reflect.Value)
	walk = func(field string, value reflect.Value) {
		switch value.Kind() {
		case reflect.Pointer:
			if !value.IsNil() {
				walk(field, value.Elem())
			}
		case reflect.Struct:
			for i := range value.NumField() {
				in := value.Type().Field(i)
				name, _, _ := strings.Cut(in.Tag.Get("json"), ",")
				if !in.IsExported() || name == "-" {
					continue
				}
				at := strings.TrimPrefix(field+"."+name, ".")
				if name == "" {
					at = field // embedded
				}
				if kind := in.Tag.Get("file"); kind != "" && value.Field(i).Kind() == reflect.String {
					if path := value.Field(i).String(); path != "" {
						files = append(files, namedFile{field: at, path: path, kind: kind})
					}
					continue
				}
				walk(at, value.Field(i))
			}
		case reflect.Slice:
			for i := range value.Len() {
				walk(fmt.Sprintf("%s[%d]", field, i), value.Index(i))
			}
		default:
		}
	}
	walk(field, reflect.ValueOf(config))
	return files
}

// checkFiles looks who else than this process may read or change files. What must not be is a fault, unless it is allowed;
// what should not be, or is allowed, is named.
func checkFiles(files []namedFile, allowed bool) (named []string, faults bellhop.Faults) {
	for _, file := range files {
		found := 0
		for _, path := range file.paths() {
			problem, refused := exposed(path, file.kind)
			if problem == "" {
				continue
			}
			if found++; found > maxNamed {
				continue
			}
			if refused && !allowed {
				faults.Add(file.field, "%s; or accept such files with allow_readable_files: true", problem)
			} else {
				named = append(named, file.field+": "+problem)
			}
		}
		if more := found - maxNamed; more > 0 && !allowed {
			faults.Add(file.field, "%d more files of the folder are like that", more)
		}
	}
	return named, faults
}

// literal takes the meaning from what a pattern of [filepath.Glob] would not take for itself.
var literal = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// maxSecrets is how many files of a folder are checked, and maxNamed how many of them are named.
const maxSecrets, maxNamed = 10_000, 20

// paths are the file itself, those of all tenants, or the files of a folder. The folders in it that nobody else may enter
// keep what is in them.
func (f namedFile) paths() []string {
	if strings.Contains(f.path, "{tenant}") {
		paths, _ := filepath.Glob(strings.ReplaceAll(literal.Replace(f.path), "{tenant}", "*")) //nolint:errcheck // the pattern is in order
		return paths
	}
	if f.kind != fileSecrets {
		return []string{f.path}
	}
	root, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil // what reads it says what is wrong
	}
	var paths []string
	_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error { //nolint:errcheck // what cannot be read is nobody's
		switch {
		case err != nil:
			return filepath.SkipDir
		case len(paths) == maxSecrets:
			return filepath.SkipAll
		case !entry.IsDir():
			paths = append(paths, path)
			return nil
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o011 == 0 {
			return filepath.SkipDir
		}
		return nil
	})
	return paths
}
