#!/usr/bin/env bash
# 20 cuts of the link between primary and replica in mid-load, from 50 ms to a
# second. The load sees no error, and the copies are the same at the end.
#
# The replica runs in a network namespace of its own, which nothing but these
# processes holds: the kernel removes it with the last of them.
set -euo pipefail
if [ -z "${IN_NAMESPACE:-}" ]; then
    private=(unshare --net)
    [ "$(id -u)" = 0 ] || private+=(--map-root-user)
    "${private[@]}" true || { echo "link-cut: skipped: this kernel gives this user no network namespace"; exit 0; }
    exec env IN_NAMESPACE=1 "${private[@]}" "$0"
fi
# shellcheck source=scripts/e2e/pair.sh
source "$(dirname "$0")/pair.sh"

start holder unshare --net sleep infinity
far=${pids[-1]}
until [ "$(readlink "/proc/$far/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link set lo up
ip link add wire type veth peer name wire netns "$far"
ip address add 192.0.2.1/24 dev wire
ip link set wire up
nsenter --net="/proc/$far/ns/net" sh -c 'ip address add 192.0.2.2/24 dev wire && ip link set wire up'

replica_addr=192.0.2.2:7000
in_site_b=(nsenter --net="/proc/$far/ns/net")
start_replica
start_serve
start_load 30 # twice as long as the cuts are, as a busy machine needs longer for them
for cut in {1..20}; do
    must_be_loaded
    ip link set wire down
    sleep "$(awk "BEGIN { print 0.05 * $cut }")"
    ip link set wire up
    sleep 0.2
done
finish_load
must_be_identical
