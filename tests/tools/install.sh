#!/bin/sh
# Installs tools and peers into .tools/, each once per version.
#
#   install.sh NAME…   installs what is missing of temporal, restate-server, stepfunctions, ministack, webhook-libraries,
#                      kubernetes, golangci-lint, workflowcheck, docker-compose; says nothing of what is there
#   install.sh --list  prints names and versions
#
# A program is kept as .tools/NAME-VERSION-GO, GO being the toolchain that built it (an analyser built with an older
# Go cannot read a newer one's packages), and .tools/bin/NAME points at it. It is built in a directory of its own and
# renamed into place, so an interrupted or a concurrent installation leaves nothing half done.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/.tools

# The CLI's newer releases have replace directives, which go install refuses. Its server is 1.29.
temporal=v1.5.1
golangci=v2.15.0
workflowcheck=v0.6.0
restate=1.7.12
# What a webhook receiver in Node needs, of which the lock file in tests/webhook has the versions.
webhooks=$(cksum <"$root/tests/webhook/package-lock.json" | cut -d ' ' -f 1)
# LocalStack's Step Functions engine, with the versions and hashes of all that it needs. Its fork localemu has the same
# engine and needs twice the space.
stepfunctions=$(sed -n 's|^localstack-core.*==\([0-9.]*\).*$|\1|p' "$root/tests/tools/stepfunctions/requirements.txt")
stepfunctions=$stepfunctions-$(cksum <"$root/tests/tools/stepfunctions/requirements.txt" | cut -d ' ' -f 1)
# An emulator of AWS, of which Amazon ECS is used; what it does and does not is said in tests/peers/ministack.go. Of the
# other one, localemu, ECS is moto's: it takes what we send, and knows that a subnet does not exist, but its deployments have
# no rollout state, its tasks have a number for cpu, where the SDK for Go reads text only (1.3.2), and it needs eight times the
# space.
ministack=$(sed -n 's|^ministack==\([0-9.]*\).*$|\1|p' "$root/tests/tools/ministack/requirements.txt")
ministack=$ministack-$(cksum <"$root/tests/tools/ministack/requirements.txt" | cut -d ' ' -f 1)
# Has exclude directives, which go install refuses too: its version is the one in tests/tools/compose/go.mod.
compose=$(sed -n 's|^.*github.com/docker/compose/v5 \(v[^ ]*\).*$|\1|p' "$root/tests/tools/compose/go.mod")
# The programs of a Kubernetes cluster without machines, whose versions are in tests/tools/kubernetes/go.mod: that of
# Kubernetes for people to read, and the sum of them all.
kubernetes=$(sed -n 's|^.*k8s.io/kubernetes \(v[^ ]*\).*$|\1|p' "$root/tests/tools/kubernetes/go.mod")
kubernetes=$kubernetes-$(cksum <"$root/tests/tools/kubernetes/go.mod" | cut -d ' ' -f 1)

version() {
	case $1 in
	temporal) echo "$temporal" ;;
	restate-server) echo "$restate" ;;
	webhook-libraries) echo "$webhooks" ;;
	stepfunctions) echo "$stepfunctions" ;;
	ministack) echo "$ministack" ;;
	golangci-lint) echo "$golangci" ;;
	workflowcheck) echo "$workflowcheck" ;;
	docker-compose) echo "$compose" ;;
	kubernetes) echo "$kubernetes" ;;
	*)
		echo "install.sh: unknown tool $1" >&2
		return 2
		;;
	esac
}

# python312 names a Python that is new enough for LocalStack and the like, whichever way it was installed.
python312() {
	for python in python3 python3.13 python3.12 \
		"$(pyenv root 2>/dev/null)"/versions/3.13.*/bin/python "$(pyenv root 2>/dev/null)"/versions/3.12.*/bin/python; do
		if "$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null; then
			echo "$python"
			return
		fi
	done
	echo "Python 3.12 or 3.13 is needed, with venv" >&2
	return 1
}

# build NAME VERSION DIR builds NAME into DIR.
build() {
	case $1 in
	temporal) GOBIN=$3 go install "github.com/temporalio/cli/cmd/temporal@$2" ;;
	restate-server)
		# The program itself, out of the package for this platform: its wrapper in Node passes no SIGKILL on.
		cd "$3" && npm pack --silent "@restatedev/restate-server-$(node -p 'process.platform + "-" + process.arch')@$2" &&
			tar -xzf ./*.tgz && mv package/bin/restate-server .
		;;
	webhook-libraries)
		mkdir "$3/$1" && cp "$root/tests/webhook/package.json" "$root/tests/webhook/package-lock.json" "$3/$1" &&
			cd "$3/$1" && npm ci --ignore-scripts --no-audit --no-fund
		;;
	stepfunctions | ministack)
		# A virtual environment that is used through its own bin/python, so that it may be moved.
		python=$(python312) && "$python" -m venv "$3/$1" &&
			"$3/$1/bin/python" -m pip install --quiet --require-hashes --only-binary :all: \
				-r "$root/tests/tools/$1/requirements.txt"
		;;
	golangci-lint) GOBIN=$3 go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$2" ;;
	workflowcheck) GOBIN=$3 go install "go.temporal.io/sdk/contrib/tools/workflowcheck@$2" ;;
	docker-compose)
		cd "$root/tests/tools/compose" && go build -ldflags "-X github.com/docker/compose/v5/internal.Version=$2" \
			-o "$3/docker-compose" github.com/docker/compose/v5/cmd
		;;
	kubernetes)
		# What a release says of itself, else it calls itself v0.0.0-master.
		release=${2%-*}
		minor=${release#v1.}
		mkdir "$3/$1" && cd "$root/tests/tools/kubernetes" && go build \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$release -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" \
			-o "$3/$1/" tool && mv "$3/$1/server" "$3/$1/etcd"
		;;
	esac
}

# patience says of what takes minutes that it does.
patience() {
	case $1 in
	kubernetes) echo ', which takes ten minutes unless the compiler has it cached' ;;
	esac
}

install() {
	name=$1
	version=$(version "$name")
	kept=$name-$version-$(go env GOVERSION)
	if [ ! -x "$tools/$kept" ]; then
		printf 'installing %s %s%s ... ' "$name" "$version" "$(patience "$name")"
		began=$(date +%s)
		temp=$(mktemp -d "$tools/tmp.XXXXXX")
		# With the environment of the Makefile, so that both share what the compiler has cached.
		if ! (build "$name" "$version" "$temp") >"$temp/log" 2>&1; then
			echo "cannot be built:"
			tail -n 20 "$temp/log"
			rm -rf "$temp"
			temp=
			failed=yes # what else was asked for is installed all the same
			return
		fi
		mv -f "$temp/$name" "$tools/$kept"
		rm -rf "$temp"
		temp=
		echo "$(($(date +%s) - began)) s"
	fi
	if [ "$(readlink "$tools/bin/$name" 2>/dev/null)" != "../$kept" ]; then
		ln -s "../$kept" "$tools/bin/$name.$$"
		mv -f "$tools/bin/$name.$$" "$tools/bin/$name"
	fi
}

if [ "${1:-}" = --list ]; then
	for name in temporal restate-server stepfunctions ministack webhook-libraries golangci-lint workflowcheck docker-compose kubernetes; do
		echo "$name $(version "$name")"
	done
	exit
fi

temp=
trap '[ -z "$temp" ] || rm -rf "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$tools/bin"
export CGO_ENABLED="${CGO_ENABLED:-0}"
failed=
for name; do
	install "$name"
done
[ -z "$failed" ]
