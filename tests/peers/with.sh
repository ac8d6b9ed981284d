#!/bin/sh
# Runs a command with the tests' peers at hand: with.sh CMD…
#
# The temporal CLI and restate-server are on PATH, a Step Functions engine, an emulator of ECS and the programs of a
# Kubernetes cluster are installed, and DOCKER_HOST names a Docker engine, which ends with the command if it began with it.
# A peer that cannot be had is one line here and a skip in the tests that need it; where CI=true it is an error.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)

# missing WHAT HOW
missing() {
	if [ "${CI:-}" = true ]; then
		echo "with.sh: CI needs $1: $2" >&2
		exit 1
	fi
	echo "no $1, its tests are skipped; $2"
}

sh "$root/tests/tools/install.sh" temporal ||
	missing "temporal CLI" "for more see: sh tests/tools/install.sh temporal"
sh "$root/tests/tools/install.sh" restate-server ||
	missing "Restate server" "it needs Node.js; for more see: sh tests/tools/install.sh restate-server"
sh "$root/tests/tools/install.sh" webhook-libraries ||
	missing "webhook libraries" "they need Node.js; for more see: sh tests/tools/install.sh webhook-libraries"
sh "$root/tests/tools/install.sh" stepfunctions ||
	missing "Step Functions engine" "it needs Python 3.12 or 3.13; for more see: sh tests/tools/install.sh stepfunctions"
sh "$root/tests/tools/install.sh" ministack ||
	missing "ECS emulator" "it needs Python 3.12 or 3.13; for more see: sh tests/tools/install.sh ministack"
sh "$root/tests/tools/install.sh" kubernetes ||
	missing "Kubernetes cluster" "for more see: sh tests/tools/install.sh kubernetes"
PATH=$root/.tools/bin:$root/bin:$PATH
export PATH

began=
end() {
	[ -z "$began" ] || sh "$root/tests/peers/docker.sh" stop
	began=
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! sh "$root/tests/peers/docker.sh" status >/dev/null 2>&1; then
	began=yes
fi
if engine=$(sh "$root/tests/peers/docker.sh" start); then
	eval "$engine"
else
	began=
	missing "Docker engine" "for more see: sh tests/peers/docker.sh start"
fi

"$@"
