#!/bin/sh
# Judges docker-compose.yml without an engine and without images: compose.sh COMPOSE, the docker compose to use.
set -eu

compose=$1
fault() { echo "docker-compose.yml: $1"; exit 1; }

# A warning is a fault: compose warns of variables without a value, for one.
said=$("$compose" -f docker-compose.yml config -q 2>&1) || fault "$said"
[ -z "$said" ] || fault "$said"

services=$("$compose" -f docker-compose.yml config --services | sort | tr '\n' ' ')
want="bellhop-worker postgresql temporal temporal-namespace temporal-schema temporal-ui "
[ "$services" = "$want" ] || fault "services are $services, want $want"

config=$("$compose" -f docker-compose.yml config)
published=$(echo "$config" | grep -c 'published:')
loopback=$(echo "$config" | grep -c 'host_ip: 127.0.0.1')
[ "$published" = "$loopback" ] || fault "$published ports are published, only $loopback of them on 127.0.0.1"

untagged=$("$compose" -f docker-compose.yml config --images | grep -Ev ':[^:/]*[0-9][^:/]*$|^bellhop-worker(:dev)?$' || true)
[ -z "$untagged" ] || fault "not pinned: $untagged"
