#!/usr/bin/env bash
# Makes this machine one of a lab: what the Vagrantfile's machines run, and those of
# scripts/lab/machines.sh. It may be repeated.
#
#   machine.sh NAME CLUSTER VOLUME SIZE [FLAG...]
#
# NAME is a, b or w (the witness), CLUSTER as scripts/provision.sh has it. The machine of
# a is made last: it makes the volume, with these flags of lockstep volume create, and
# has it as /dev/nbd0. The tree is where this script is, or else in /vagrant, with
# bin/lockstep built.
set -euo pipefail

tree=$(cd "$(dirname "$0")/../.." && pwd)
[ -x "$tree/scripts/provision.sh" ] || tree=/vagrant # vagrant runs a copy
provision=$tree/scripts/provision.sh
# shellcheck source=scripts/lib.sh
source "$tree/scripts/lib.sh"
teach "$@"

[ $# -ge 4 ] || die "usage: machine.sh NAME CLUSTER VOLUME SIZE [FLAG...]"
name=$1 cluster=$2 volume=$3 size=$4
shift 4

exists() { lockstep volume show "$volume" --admin /var/lib/lockstep >/dev/null 2>&1; }

role=()
[ "$name" != w ] || role=(--witness)
"$provision" packages
"$provision" install
"$provision" configure --name "$name" --cluster "$cluster" "${role[@]}"
if [ "$name" != a ]; then
    "$provision" node --no-wait
    exit
fi
"$provision" node
# It waits until both copies are in sync. What was not decided in time may be decided later.
exists || lockstep volume create "$volume" --size "$size" --on a,b --admin /var/lib/lockstep "$@" || exists
"$provision" attach "$volume" --device /dev/nbd0
lockstep status "$volume" --admin /var/lib/lockstep
