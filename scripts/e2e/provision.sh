#!/usr/bin/env bash
# scripts/provision.sh as far as it goes without a machine of its own: in a mount
# namespace, with directories that stand for the machine's. Needs root.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"

provision=$root/scripts/provision.sh
cluster=a=10.0.0.1:7801,b=10.0.0.2:7801,w=10.0.0.3:7801

# exits fails unless $2... ends with the status $1.
exits() {
    local want=$1 status=0
    shift
    "$@" >"$dir/said" 2>&1 || status=$?
    [ "$status" = "$want" ] || die "$* ended with $status, not $want: $(cat "$dir/said")"
}

inside() {
    dir=$(mktemp -d)
    mount -t tmpfs tmpfs "$dir" # goes with the namespace
    local part
    for part in etc bin run; do mkdir "$dir/$part"; done
    mkdir -p "$dir/etc/systemd/system" "$dir/run/systemd"
    mount --bind "$dir/etc/systemd/system" /etc/systemd/system
    mount --bind "$dir/etc" /etc/lockstep
    mount -t tmpfs tmpfs /etc/modules-load.d
    mount --bind "$dir/bin" /usr/local/bin
    mount -t tmpfs tmpfs /run/systemd # so that no service manager is found

    exits 0 "$provision" install
    cmp "$root/bin/lockstep" /usr/local/bin/lockstep
    exits 0 "$provision" configure --name a --cluster "$cluster"
    grep -q '"listen": "10.0.0.1:7801"' /etc/lockstep/node.json || die "node.json: $(cat /etc/lockstep/node.json)"
    grep -qx 'NODES=unix:/run/lockstep/nbd.sock,tcp:10.0.0.2:10809' /etc/lockstep/attach.env ||
        die "attach.env: $(cat /etc/lockstep/attach.env)"
    exits 0 "$provision" configure --name w --cluster "$cluster" --witness
    grep -qx 'NODES=tcp:10.0.0.1:10809,tcp:10.0.0.2:10809' /etc/lockstep/attach.env || die "attach.env of the witness"
    exits 2 "$provision" configure --name x --cluster "$cluster"
    exits 2 "$provision" configure --name a --cluster a=1,b
    exits 2 "$provision" frobnicate
    exits 1 "$provision" install --binary /nowhere/lockstep

    # What cannot be written whole is left as it was.
    mount -t tmpfs -o size=64k tmpfs /usr/local/bin
    echo old >/usr/local/bin/lockstep
    exits 1 "$provision" install
    [ "$(cat /usr/local/bin/lockstep)" = old ] || die "a full disk took the old lockstep away"
    [ "$(ls /usr/local/bin)" = lockstep ] || die "something is left on the full disk: $(ls /usr/local/bin)"
}

if [ "${1:-}" = inside ]; then
    inside
    exit
fi
[ "$(id -u)" = 0 ] || die "it mounts: run it as root"
"$root/scripts/build.sh"
# The places to mount on, where there are none.
trap 'rmdir --ignore-fail-on-non-empty /etc/lockstep /etc/modules-load.d' EXIT
mkdir -p /etc/lockstep /etc/modules-load.d
unshare --mount --propagation private "$0" inside
