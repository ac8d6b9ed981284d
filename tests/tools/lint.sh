#!/bin/sh
# The checks of `make lint`: lint.sh MODULES TIDY SCRIPTS, each a list of paths. All of them run, whatever the first
# ones find; the exit code tells whether any found something.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
bin=$root/.tools/bin
failed=

# check NAME CMD… runs a check; NAME and its seconds are the line that it leaves.
check() {
	name=$1
	shift
	began=$(date +%s)
	if "$@"; then verdict=ok; else
		verdict=FAILED
		failed="$failed
  $name"
	fi
	printf '%-34s %s (%s s)\n' "$name" "$verdict" "$(($(date +%s) - began))"
}

within() { (cd "$1" && shift && "$@"); }

# tidy says what the diff of go.mod is; go.sum's is long and tells nobody anything.
tidy() {
	said=$(go mod tidy -diff 2>&1) && return
	echo "$said" | sed -n '/^go: downloading/d; /^diff current.go.sum/q; p'
	echo "run go mod tidy in $(pwd)"
	return 1
}

formatted() {
	found=$(git ls-files -co --exclude-standard '*.go' | while read -r file; do [ ! -f "$file" ] || echo "$file"; done |
		xargs gofmt -l -s)
	[ -z "$found" ] || echo "$found"
	[ -z "$found" ]
}

# has_go DIR: go vet and workflowcheck treat a pattern without packages as a fault.
has_go() { [ -n "$(cd "$1" && go list ./... 2>/dev/null | head -n 1)" ]; }

for dir in $2; do
	check "tidy ${dir%/}" within "$dir" tidy
done
check gofmt formatted
for dir in $1; do
	check "vet $dir" within "$dir" go vet ./...
	check "golangci-lint $dir" within "$dir" "$bin/golangci-lint" run --config "$root/.golangci.yml" ./...
done
if has_go workflows; then
	check "workflowcheck ./workflows/..." "$bin/workflowcheck" -config tests/tools/workflowcheck.yaml ./workflows/... ./bridge/temporal/receive/...
fi
[ ! -f docker-compose.yml ] || check docker-compose.yml sh tests/tools/compose.sh "$bin/docker-compose"
if command -v shellcheck >/dev/null; then
	# Infos are matters of taste, and differ from one release to the next.
	# shellcheck disable=SC2086 # a list of paths
	check shellcheck shellcheck --severity=warning $3
else
	echo "shellcheck is not installed: the shell scripts go unchecked"
fi

[ -z "$failed" ] || {
	echo "failed:$failed"
	exit 1
}
