#!/bin/sh
# Runs every fuzz target for a time each: fuzz.sh 60s. The input with which one fails is left in its testdata/fuzz.
set -eu
time=$1 rc=0
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		echo "== $target in $file"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" || rc=1
	done
done
exit $rc
