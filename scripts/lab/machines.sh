#!/usr/bin/env bash
# Boots the Vagrantfile's three machines as VMs on one emulated network, provisions them
# by the same script, and uses what comes of it: the volume is in sync and attached at
# site-a, a file system on it takes writes, and goes on when site-b's node is killed.
#
#   scripts/lab/machines.sh             in some two minutes, where CPUs are emulated
#
# It runs on the host; the machines' parts are `machines.sh a CLUSTER` and so on. The last
# line is JSON. Exit status: 0 all is well, 1 not.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"
teach "$@"

volume=vol
size=320MiB
limit=9m # of each machine
cluster=a=10.77.0.1:7801,b=10.77.0.2:7801,w=10.77.0.3:7801

ask() { lockstep "$@" --admin /var/lib/lockstep; }

# within runs $2... every second until it succeeds, at most for $1 seconds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt "$until" ] || return 1
        sleep 1
    done
}

provision() {
    # An emulated CPU may be slower than a lease and a heartbeat are long. A node that is
    # killed stays so until it is wanted back.
    mkdir -p /etc/systemd/system/lockstep-node.service.d
    cat >/etc/systemd/system/lockstep-node.service.d/lab.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/local/bin/lockstep node --data /var/lib/lockstep --config /etc/lockstep/node.json --heartbeat 1s
Restart=no
END
    "$root/scripts/lab/machine.sh" "$1" "$2" "$volume" "$size" --lease 3s
}

# What one machine wants of another it says by the name of a volume: they have nothing
# else in common. The others ask a's node, which lives all the time.
wanted() { lockstep volume show "$1" --node 10.77.0.1:7801; }

want() { ask volume create "$1" --size 1MiB --on a >/dev/null || wanted "$1" >/dev/null; }

# others runs b or w, until a has finished.
others() {
    provision "$1" "$2"
    if [ "$1" = b ]; then
        within 400 wanted kill-b || die "site-a asked for nothing in 400 s"
        systemctl kill --signal=KILL lockstep-node
        say "site-b's node is killed"
        within 120 wanted start-b || die "site-a did not go on in 120 s"
        systemctl reset-failed lockstep-node
        systemctl start lockstep-node
        say "site-b's node is back"
    fi
    within 480 wanted finished || die "site-a did not finish in 480 s"
}

site_a() {
    local device=/dev/nbd0 mnt=/mnt
    provision a "$1"
    [ -b "$device" ] || die "there is no $device"
    [ "$(blockdev --getsize64 "$device")" = $((320 << 20)) ] || die "$device has $(blockdev --getsize64 "$device") bytes"
    ask status "$volume" || die "the volume is not in sync"
    mkfs.ext4 -q "$device"
    mount "$device" "$mnt"
    dd if=/dev/urandom of="$mnt/before" bs=64k count=64 conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    sha256sum "$mnt/before" >/tmp/before.sum
    say "site-a writes; site-b's node is to be killed"
    want kill-b
    within 120 degraded || die "site-b's node was not missed"
    dd if=/dev/urandom of="$mnt/after" bs=64k count=64 conv=fsync 2>/dev/null || die "no write without site-b"
    want start-b
    within 120 ask status "$volume" || die "site-b is not in sync again: $(ask status "$volume" 2>&1)"
    ask verify "$volume" || die "the copies differ"
    umount "$mnt"
    fsck.ext4 -fn "$device" >/dev/null 2>&1 || die "fsck found something"
    mount "$device" "$mnt"
    sha256sum --quiet -c /tmp/before.sum || die "what was written before is not there"
    umount "$mnt"
    systemctl stop "lockstep-attach@$volume"
    "$root/scripts/provision.sh" attach "$volume" --device "$device" # it may be repeated
    want finished
    # They ask this machine's node for that, so it stays until they are off.
    within 240 alone || die "the others do not end"
}

# alone tells that neither of the others answers.
alone() { ! ping -q -c 3 -W 3 10.77.0.2 && ! ping -q -c 3 -W 3 10.77.0.3; }

degraded() { ! ask status "$volume"; }

# boot runs one machine, with its output in $work.
boot() {
    LOCKSTEP_VM_BOOT=180 "$root/scripts/vm.sh" run --systemd --memory 768M --cpus 1 --network "machines-$$" --address "$2/24" \
        --timeout "$limit" --out "$work/$1" -- scripts/lab/machines.sh "$1" "$cluster" >"$work/$1.log" 2>&1 &
}

all() {
    local name status=0
    "$root/scripts/vm.sh" image >/dev/null
    "$root/scripts/build.sh" # so that the three don't at the same time
    work=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-machines.XXXXXX")
    trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    boot w 10.77.0.3
    boot b 10.77.0.2
    boot a 10.77.0.1
    for _ in a b w; do wait -n || status=1; [ "$status" = 0 ] || break; done
    for name in w b a; do sed "s/^/$name: /" "$work/$name.log"; done
    [ "$status" = 0 ] || die "a machine failed, see above"
    printf '{"verdict": "ok", "seconds": %d, "machines": 3}\n' "$SECONDS"
}

case ${1:-} in
a) site_a "$2" ;;
b | w) others "$1" "$2" ;;
'') all ;;
*) die "unknown argument '$1'; it takes none" ;;
esac
