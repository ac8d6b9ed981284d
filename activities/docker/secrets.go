package docker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bellhop"
)

// SecretsConfig says what the secrets of operations may refer to. A worker reads nothing for a tenant that its operator
// did not put there for tenants.
type SecretsConfig struct {
	// Dir is a folder of the worker with a folder for each tenant: "file:NAME" is what the file NAME in the tenant's own
	// holds, without the newline at its end. A symbolic link out of the tenant's folder is not followed. It is read when
	// containers are created, so a secret that was rotated is in the next operation's. Default: none, no file is read.
	Dir string `json:"dir" file:"secrets"`
	// EnvPrefix is what the names of those variables of the worker begin with that "env:NAME" may name. They are for every
	// tenant; what is one tenant's own belongs into dir. Default: none, no variable is read.
	EnvPrefix string `json:"env_prefix"`
}

// Forms of a reference.
const (
	fileReference = "file:"
	envReference  = "env:"
)

var (
	secretFile = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	secretEnv  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	envPrefix  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*_$`)
)

// maxSecretBytes is how large a secret may be: the kernel takes no longer variable than 128 KiB.
const maxSecretBytes = 64 << 10

// owned are what the names of variables begin with by which the worker itself has its credentials.
var owned = []string{"AWS_", "AZURE_", "DOCKER_", "GOOGLE_", "KUBE_", "KUBERNETES_", "OTEL_", "TEMPORAL_"}

func (c SecretsConfig) check(faults *bellhop.Faults) {
	if c.Dir != "" && !filepath.IsAbs(c.Dir) {
		faults.Add("secrets.dir", "must be an absolute path")
	}
	switch {
	case c.EnvPrefix == "":
	case !envPrefix.MatchString(c.EnvPrefix):
		faults.Add("secrets.env_prefix", `must be letters, digits and '_', with '_' at its end, such as "TENANTS_"`)
	case slices.ContainsFunc(owned, func(own string) bool {
		upper := strings.ToUpper(c.EnvPrefix)
		return strings.HasPrefix(upper, own) || strings.HasPrefix(own, upper)
	}):
		faults.Add("secrets.env_prefix", "must not be %q: the worker's own credentials may begin with it", c.EnvPrefix)
	}
}

// checkSecrets says which references are none. What is no reference may be a secret itself, and is not repeated.
func checkSecrets(spec bellhop.Spec, faults *bellhop.Faults) {
	for _, variable := range slices.Sorted(maps.Keys(spec.Secrets)) {
		reference := spec.Secrets[variable]
		if reference == "" {
			continue // said already
		}
		file, isFile := strings.CutPrefix(reference, fileReference)
		env, isEnv := strings.CutPrefix(reference, envReference)
		if isFile && secretFile.MatchString(file) || isEnv && secretEnv.MatchString(env) {
			continue
		}
		faults.Add("spec.secrets."+variable, `must be "file:NAME", a file of the tenant's at the worker, or "env:NAME", a variable `+
			"of the worker; it is looked up when containers are created")
	}
}

// permits says which references this worker does not look up, whatever is there.
func (c SecretsConfig) permits(spec bellhop.Spec, faults *bellhop.Faults) {
	for _, variable := range slices.Sorted(maps.Keys(spec.Secrets)) {
		path, reference := "spec.secrets."+variable, spec.Secrets[variable]
		if strings.HasPrefix(reference, fileReference) && c.Dir == "" {
			faults.AddHere(path, "files are not looked up here; the operator sets secrets.dir in the provider's entry")
		}
		if name, ok := strings.CutPrefix(reference, envReference); ok {
			switch {
			case c.EnvPrefix == "":
				faults.AddHere(path, "variables are not looked up here; the operator sets secrets.env_prefix in the provider's entry")
			case !strings.HasPrefix(name, c.EnvPrefix) || name == c.EnvPrefix:
				faults.AddHere(path, "may only name a variable that begins with %s", c.EnvPrefix)
			}
		}
	}
}

// environment is that of an operation's containers: what the spec says, and what its secrets refer to at this moment. A
// secret that is missing ends the operation: the failure names the reference.
func (c SecretsConfig) environment(op bellhop.Operation) ([]string, error) {
	var faults bellhop.Faults
	env := maps.Clone(op.Spec.Env)
	for _, variable := range slices.Sorted(maps.Keys(op.Spec.Secrets)) {
		value, err := c.value(op.TenantID, op.Spec.Secrets[variable])
		switch {
		case errors.Is(err, errUnreadable):
			return nil, fmt.Errorf("look up spec.secrets.%s: %w", variable, err) // perhaps it passes
		case err != nil:
			faults.Add("spec.secrets."+variable, "%s", err)
		case env == nil:
			env = map[string]string{variable: value}
		default:
			env[variable] = value
		}
	}
	if len(faults) > 0 {
		return nil, bellhop.Fail(bellhop.CodeInvalidSpec, "%s", faults)
	}
	return envList(env), nil
}

// errUnreadable says that a file is there and cannot be read, for a reason that is not the operation's.
var errUnreadable = errors.New("cannot be read")

func (c SecretsConfig) value(tenant, reference string) (string, error) {
	var value string
	if name, ok := strings.CutPrefix(reference, envReference); ok {
		var there bool
		if value, there = os.LookupEnv(name); !there {
			return "", fmt.Errorf("there is no %s at the worker", reference)
		}
	} else {
		var err error
		if value, err = c.read(tenant, strings.TrimPrefix(reference, fileReference)); err != nil {
			var path *fs.PathError
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return "", fmt.Errorf("there is no %s for tenant %s at the worker", reference, tenant)
			case errors.Is(err, fs.ErrPermission):
				return "", fmt.Errorf("the worker may not read %s of tenant %s", reference, tenant)
			case errors.As(err, &path): // without the path: it is the operator's business
				return "", fmt.Errorf("%s of tenant %s %w: %w", reference, tenant, errUnreadable, path.Err)
			}
			return "", fmt.Errorf("%s of tenant %s %w", reference, tenant, err)
		}
	}
	switch {
	case value == "":
		return "", fmt.Errorf("%s is empty", reference)
	case strings.ContainsRune(value, 0):
		return "", fmt.Errorf("%s holds a NUL, which no variable can", reference)
	case len(value) > maxSecretBytes:
		return "", fmt.Errorf("%s is larger than %d KiB", reference, maxSecretBytes>>10)
	}
	return value, nil
}

// read reads a file of a tenant. Neither the tenant's name nor the file's leads out of the folder, and no link in it does.
func (c SecretsConfig) read(tenant, name string) (string, error) {
	dir, err := os.OpenRoot(c.Dir)
	if err != nil {
		return "", err
	}
	defer dir.Close() //nolint:errcheck // it was only read
	own, err := dir.OpenRoot(tenant)
	if err != nil {
		return "", err
	}
	defer own.Close() //nolint:errcheck // it was only read
	info, err := own.Stat(name)
	if err != nil {
		return "", escaped(err)
	}
	if !info.Mode().IsRegular() { // to open a pipe would wait for who writes to it
		return "", errors.New("is no file")
	}
	file, err := own.Open(name)
	if err != nil {
		return "", escaped(err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, maxSecretBytes+2))
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), err
}

// escaped tells a link that leads out of the tenant's folder from a file that cannot be read at the moment. The os package
// has no name for it.
func escaped(err error) error {
	if strings.Contains(err.Error(), "path escapes from parent") {
		return errors.New("is a link out of the tenant's folder")
	}
	return err
}
