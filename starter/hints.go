package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"bellhop"
)

var (
	secretive = regexp.MustCompile(`(?i)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SIGNING_?KEY|ENCRYPTION_?KEY)`)
	// elsewhere ends the name of a variable that says where a secret is, and holds none.
	elsewhere = regexp.MustCompile(`(?i)_(FILE|PATH|DIR|URL|URI|ARN|NAME|ID|TTL|EXPIRY|TYPE|HEADER)$`)
)

// hint says which values of an operation are probably secrets in the wrong place. It is no fault: whoever wrote it may know
// better.
func (a *app) hint(op bellhop.Operation) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(op.Spec.Env)) {
		if secretive.MatchString(name) && !elsewhere.MatchString(name) && op.Spec.Env[name] != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(a.stderr, "%s spec.env holds what look like secrets by their names: %s. Values are kept in Temporal's history; "+
		"name a reference in spec.secrets instead, and nobody but the container has the value\n",
		a.err.paint(yellow, "hint:"), clean(strings.Join(names, ", ")))
}
