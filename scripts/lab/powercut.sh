#!/usr/bin/env bash
# Cuts the power at every flush: all that a disk was given is logged (dm-log-writes), the
# log is replayed up to each flush, FUA write and mark, and there the store is opened. All that was
# acknowledged and flushed before must be there (see mirror/store/powercut).
#
#   scripts/vm.sh run --build ./mirror/store/powercut/cmd/powercut -- scripts/lab/powercut.sh [--ops 120] [--cuts 16]
#
# First a store alone; then the same with syncs that do nothing, which must be found
# wrong; then both copies of an attached volume. --cuts is how many places of each log
# are looked at, evenly; 0 is all. The last line is JSON. Exit status: 0 all is well, 1 not.
set -euo pipefail
# shellcheck source=scripts/lab/disks.sh
source "$(dirname "$0")/disks.sh"

ops=120
cuts=16
while [ $# -gt 0 ]; do
    case $1 in
    --ops) ops=${2:?} ;;
    --cuts) cuts=${2:?} ;;
    *) die "unknown argument '$1': --ops N, --cuts N" ;;
    esac
    shift 2
done
volume_bytes=$((4 << 20))

# new_logged makes the device $1 of $2 MiB, all of whose writes are logged to $1.log,
# with a file system that is mounted on $3.
new_logged() {
    local log
    new_disk "$1" "$2"
    truncate -s 1G "$lab/$1.writes" # sparse
    log=$(losetup -f --show "$lab/$1.writes")
    printf '%s\n' "$log" >"$lab/$1.logloop"
    become "$1" "0 $(blockdev --getsz "$(loop_of "$1")") log-writes $(loop_of "$1") $log"
    make_fs "$1"
    mount "$(device_of "$1")" "$3"
}

# end_logged unmounts it and has the log complete.
end_logged() {
    umount "$2"
    remove_disk "$1"
    losetup -d "$(cat "$lab/$1.logloop")"
}

# check replays the log of $1, with $2... more of powercut check; what that ends with is
# in $found.
check() {
    local name=$1 status=0
    shift
    found=$(powercut check -log "$lab/$name.writes" -disk-size "$(stat -c %s "$lab/$name.img")" \
        -size "$volume_bytes" -ops "$ops" -cuts "$cuts" "$@" 2>"$lab/check.log") || status=$?
    printf '%s: %s\n' "$name" "$found"
    return "$status"
}

# write_store writes to a store alone on the logged device $1, with $2... more of
# powercut write.
write_store() {
    local name=$1
    shift
    new_logged "$name" 48 "$lab/mnt"
    powercut write -store "$lab/mnt/vol" -size "$volume_bytes" -ops "$ops" -dm "$name" "$@"
    end_logged "$name" "$lab/mnt"
}

try_cluster() {
    local name
    for name in a b; do new_logged "disk-$name" 160 "$lab/$name"; done
    start_cluster "$volume_bytes"
    attach
    powercut write -device "$device" -size "$volume_bytes" -ops "$ops" -dm disk-a,disk-b
    detach
    for name in a b w; do stop_node "$name"; done
    for name in a b; do
        end_logged "disk-$name" "$lab/$name"
        check "disk-$name" -store "volumes/$volume-*/data" || die "site $name: $(cat "$lab/check.log")"
        results+=("site_${name}_cuts" "$(jq .cuts <<<"$found")" "site_${name}_places" "$(jq .places <<<"$found")")
    done
}

new_lab
modprobe -a dm-log-writes loop
results=(ops "$ops")

say "a store, $ops operations"
write_store store
check store -store vol -intents || die "a store that syncs: $(cat "$lab/check.log"): $found"
results+=(store_cuts "$(jq .cuts <<<"$found")" store_places "$(jq .places <<<"$found")")

say "a store whose syncs do nothing"
write_store unsynced -unsynced
! check unsynced -store vol -intents || die "a store without syncs was found to be right: the check is worth nothing"
lost=$(jq .bad_cuts <<<"$found" || true)
[ "${lost:-0}" -gt 0 ] || die "a store without syncs was not found wrong, it failed: $(cat "$lab/check.log")"
results+=(unsynced_bad_cuts "$lost" unsynced_cuts "$(jq .cuts <<<"$found")")

say "both copies of an attached volume"
try_cluster
verdict ok "${results[@]}" lost 0
