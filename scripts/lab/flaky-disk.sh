#!/usr/bin/env bash
# A disk goes bad under one copy of an attached volume that is being written and
# checked (dm-flakey): the client must see no error, and once the disk is mended
# the copies must be identical.
#
#   scripts/vm.sh run -- scripts/lab/flaky-disk.sh [--seconds 10]
#
# In turn the replica's disk fails every write, the primary's disk fails every write, and
# the replica's disk takes writes and forgets them, which only `lockstep verify` can
# find. Each lasts --seconds. The last line is JSON. Exit status: 0 all is well, 1 not.
set -euo pipefail
# shellcheck source=scripts/lab/disks.sh
source "$(dirname "$0")/disks.sh"

hold=10
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) hold=${2:?} && shift 2 ;;
    *) die "unknown argument '$1': --seconds N" ;;
    esac
done

# load writes the device and reads it back, pass after pass, until "done" is there.
load() {
    local pass=0
    while [ ! -e "$lab/done" ]; do
        pass=$((pass + 1))
        timeout 180 fio --output="$lab/fio.log" --name=load --filename="$device" --verify=crc32c --verify_fatal=1 \
            --verify_state_save=0 --size=8m --bs=16k --rate=2m --rw=randwrite --ioengine=libaio --iodepth=4 --direct=1 \
            --fsync=16 --randseed="$pass" || return 1
        echo "$pass" >"$lab/passes"
    done
}

must_be_loaded() {
    kill -0 "$loading" 2>/dev/null || die "the client saw it: $(tail -n 20 "$lab/fio.log")"
}

flakey() {
    printf '0 %s flakey %s 0 0 3600 1 %s\n' "$(blockdev --getsz "$(loop_of "$1")")" "$(loop_of "$1")" "$2"
}

# write_goes_on returns when the device took a durable write.
write_goes_on() {
    timeout 60 dd if=/dev/zero of="$device" bs=4k count=1 seek=4096 oflag=direct,dsync conv=notrunc 2>/dev/null ||
        die "no write was acknowledged for 60 s"
}

# remake gives the node $1 a mended disk that has what is left on the old one, and a new
# copy of the volume.
remake() {
    [ -z "${node[$1]}" ] || kill_node "$1"
    umount "$lab/$1"
    become "disk-$1" "$(linear "disk-$1")"
    e2fsck -fy "$(device_of "disk-$1")" >"$lab/fsck.log" 2>&1 || [ $? -le 2 ] || die "fsck of $1's disk: $(cat "$lab/fsck.log")"
    mount "$(device_of "disk-$1")" "$lab/$1"
    start_node "$1"
    # It may be that nothing broke but the link to it: then there is nothing to replace.
    within 15 lockstep status "$volume" ||
        within 30 lockstep volume replica replace "$volume" "$1" --by "$1" ||
        die "the copy of $1 cannot be replaced: $(lockstep volume replica replace "$volume" "$1" --by "$1" 2>&1)"
    await_in_sync 180
}

# fails has the disk of the node $1 fail all writes.
fails() {
    local begun=$SECONDS
    become "disk-$1" "$(flakey "disk-$1" error_writes)"
    write_goes_on
    while [ $((SECONDS - begun)) -lt "$hold" ]; do sleep 1; must_be_loaded; done
    write_goes_on
    ! lockstep status "$volume" >/dev/null || die "the disk of $1 fails, and its copy still counts as in sync"
    remake "$1"
    must_be_loaded
}

# forgets has the disk of the node $1, which is not the primary's, forget all writes.
forgets() {
    local status=0 begun=$SECONDS
    # Whatever the disk does not have yet is written before, so that nothing but data is lost.
    sync
    become "disk-$1" "$(flakey "disk-$1" drop_writes)"
    while [ $((SECONDS - begun)) -lt "$hold" ]; do sleep 1; must_be_loaded; done
    sync
    become "disk-$1" "$(linear "disk-$1")"
    echo 3 >/proc/sys/vm/drop_caches
    lockstep verify "$volume" >"$lab/verify.txt" 2>&1 || status=$?
    [ "$status" = 4 ] || die "verify ended with $status after a disk forgot writes: $(cat "$lab/verify.txt")"
    lockstep verify "$volume" --repair >"$lab/verify.txt" 2>&1 || [ $? = 4 ] || die "repair: $(cat "$lab/verify.txt")"
    lockstep verify "$volume" >"$lab/verify.txt" 2>&1 || die "verify after repair: $(cat "$lab/verify.txt")"
    must_be_loaded
}

new_lab
modprobe -a dm-flakey loop
for name in a b; do
    new_disk "disk-$name" 192
    make_fs "disk-$name"
    mount "$(device_of "disk-$name")" "$lab/$name"
done
dmesg -C
start_cluster 32MiB
attach
background load
loading=$started
within 60 test -s "$lab/passes" || die "the load did not begin: $(cat "$lab/fio.log")"

say "the replica's disk fails all writes"
fails "$(other "$(primary)")"
say "the primary's disk fails all writes"
fails "$(primary)"
say "the replica's disk forgets all writes"
forgets "$(other "$(primary)")"

touch "$lab/done"
wait "$loading" || die "the load failed: $(tail -n 20 "$lab/fio.log")"
others=()
detach
must_be_identical
errors=$(kernel_errors "${device#/dev/}" | grep -F "${device#/dev/}" || true)
[ -z "$errors" ] || die "the kernel saw errors on $device: $errors"
verdict ok client_errors 0 passes "$(cat "$lab/passes")" faults 3
