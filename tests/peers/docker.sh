#!/bin/sh
# A Docker engine for the tests: the one that answers, else one of our own.
#
#   docker.sh start      makes sure that an engine answers; prints "export DOCKER_HOST=…" for eval, the rest on stderr
#   docker.sh stop       ends the engine that start began, with all it kept; leaves any other alone
#   docker.sh status     prints what start would, if an engine answers; begins none
#
# Exit codes: 0 done, 1 something went wrong, 2 wrong usage, 3 there is no engine and none can be had here.
#
# An engine of our own is Debian's docker.io run by hand as root, with everything it keeps under .tools/docker. It is
# told to leave the machine's firewall alone (--iptables=false --ip-masq=false --ip-forward=false): the tests reach
# published ports over loopback, which docker-proxy serves without any rule, and some kernels have no iptables at all.
# The storage driver is left to dockerd, which takes overlay2 where the file system can and vfs elsewhere.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.tools/docker
socket=$dir/docker.sock

say() { echo "docker.sh: $*" >&2; }
die() { say "$1"; exit "${2:-1}"; }

# answers HOST: whether an engine answers there.
answers() {
	case $1 in
	unix://*)
		[ -S "${1#unix://}" ] || return 1
		if command -v curl >/dev/null; then
			curl -fsS -m 5 --unix-socket "${1#unix://}" http://docker/_ping >/dev/null 2>&1
			return
		fi
		;;
	esac
	command -v docker >/dev/null && timeout 5 docker -H "$1" version >/dev/null 2>&1
}

# find prints the host of the engine that answers. One that was named must be the one.
find() {
	if [ -n "${DOCKER_HOST:-}" ]; then
		answers "$DOCKER_HOST" && echo "$DOCKER_HOST" && return
		[ "$DOCKER_HOST" = "unix://$socket" ] || say "nothing answers at DOCKER_HOST=$DOCKER_HOST"
		return 1
	fi
	for host in "unix://$socket" unix:///var/run/docker.sock \
		"$(docker context inspect -f '{{.Endpoints.docker.Host}}' 2>/dev/null || true)"; do
		[ -n "$host" ] && answers "$host" && echo "$host" && return
	done
	return 1
}

# pid prints the process id of the engine that we began, if it still is that: ids are used again.
pid() {
	p=$(cat "$dir/docker.pid" 2>/dev/null) && tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF -- "$dir/data" &&
		echo "$p"
}

install() {
	command -v dockerd >/dev/null && return
	how="get one: https://docs.docker.com/engine/install/, or set DOCKER_HOST"
	[ "$(id -u)" = 0 ] || die "no Docker engine answers, and only root can start one; $how" 3
	[ -f /etc/debian_version ] && command -v apt-get >/dev/null || die "no Docker engine answers; $how" 3
	say "installing docker.io"
	# Installing must not start the service: the machine may have no systemd, and ours is started below.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io; } \
		>"$dir/apt.log" 2>&1 || { tail -n 5 "$dir/apt.log" >&2; die "cannot install docker.io; $how" 3; }
}

begin() {
	install
	[ "$(id -u)" = 0 ] || die "no Docker engine answers, and only root can start one; start the service or set DOCKER_HOST" 3
	# The kernel takes no longer path for a socket, and dockerd makes longer ones than this below --exec-root.
	[ ${#dir} -le 60 ] || die "$dir is too long a path for an engine's sockets; set DOCKER_HOST" 3
	[ -e /sys/class/net/docker0 ] || touch "$dir/made-bridge"
	# A session of its own, so that Ctrl-C on the tests does not end the engine under them.
	setsid dockerd --host "unix://$socket" --data-root "$dir/data" --exec-root "$dir/run" --pidfile "$dir/docker.pid" \
		--iptables=false --ip6tables=false --ip-masq=false --ip-forward=false \
		>"$dir/dockerd.log" 2>&1 </dev/null &
	started=$!
	tries=0
	until answers "unix://$socket"; do
		kill -0 $started 2>/dev/null || { tail -n 5 "$dir/dockerd.log" >&2; die "dockerd did not start; see $dir/dockerd.log"; }
		[ $((tries += 1)) -le 150 ] || { kill $started; die "dockerd did not answer in 30 s; see $dir/dockerd.log"; }
		sleep 0.2
	done
	say "started $(dockerd --version | cut -d, -f1), log in .tools/docker/dockerd.log"
}

start() {
	if host=$(find); then
		say "an engine answers at $host"
	else
		mkdir -p "$dir"
		# Two that start at once get one engine.
		if command -v flock >/dev/null; then
			exec 9>"$dir.lock"
			flock 9
		fi
		host=$(find 2>/dev/null) || { begin 9>&-; host=unix://$socket; }
		exec 9>&-
	fi
	echo "export DOCKER_HOST=$host"
}

stop() {
	p=$(pid) || { say "no engine of ours runs"; p=; }
	if [ -n "$p" ]; then
		kill "$p"
		tries=0
		while kill -0 "$p" 2>/dev/null; do
			[ $((tries += 1)) -le 300 ] || die "dockerd ($p) did not end in 60 s; see $dir/dockerd.log"
			sleep 0.2
		done
		say "ended dockerd"
	fi
	[ -d "$dir" ] || return 0
	[ "$(id -u)" = 0 ] || return 0
	# What a killed engine left mounted, the deepest first.
	awk -v dir="$dir/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
		umount "$mount" || umount -l "$mount"
	done
	if [ -e "$dir/made-bridge" ] && command -v ip >/dev/null; then
		ip link delete docker0 2>/dev/null || true
	fi
	grep -qF " $dir/" /proc/self/mountinfo && die "mounts are left under $dir"
	rm -rf "$dir"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status)
	host=$(find) || die "no engine answers" 3
	echo "export DOCKER_HOST=$host"
	;;
*) die "usage: docker.sh start | stop | status" 2 ;;
esac
