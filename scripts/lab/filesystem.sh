#!/usr/bin/env bash
# Breaks a cluster over and over under a mounted file system that is being written and
# checked: what is on it must see pauses, and nothing else. Then the file system is
# checked, and the two copies are compared byte for byte.
#
#   scripts/vm.sh run --timeout 30m -- scripts/lab/filesystem.sh [--failovers 20] [--fs ext4|xfs|both]
#
# In turn the primary's node is killed (kill -9), the node that the device talks to is
# killed, the primary's node is stopped for a while (SIGSTOP), and the volume is
# handed over. The pause is the longest time that a small durable write took from then on.
# The last line is JSON. Exit status: 0 all is well, 1 not.
set -euo pipefail
# shellcheck source=scripts/lab/cluster.sh
source "$(dirname "$0")/cluster.sh"

failovers=20
systems=(ext4 xfs)
while [ $# -gt 0 ]; do
    case $1 in
    --failovers) failovers=${2:?} && shift ;;
    --fs) case ${2:?} in ext4 | xfs) systems=("$2") ;; both) ;; *) die "--fs is ext4, xfs or both" ;; esac && shift ;;
    *) die "unknown argument '$1': --failovers N, --fs ext4|xfs|both" ;;
    esac
    shift
done

# load writes and reads back, pass after pass, until the file "done" is there: through the
# page cache, past it, and with every write durable.
load() {
    local pass=0
    while [ ! -e "$lab/done" ]; do
        pass=$((pass + 1))
        timeout 180 fio --output="$lab/fio.log" --directory="$lab/mnt" --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
            --size=3m --bsrange=4k-64k --rate=512k --rw=randwrite --fallocate=none --group_reporting --randseed="$pass" \
            --name=buffered --ioengine=psync --fsync=32 --numjobs=2 \
            --name=direct --ioengine=libaio --iodepth=8 --direct=1 \
            --name=durable --ioengine=psync --sync=dsync --size=1m --rate=256k || return 1
        echo "$pass" >"$lab/passes"
    done
}

# probe writes 4 KiB durably some 20 times a second, and notes when and how long each took.
probe() {
    exec fio --output="$lab/probe.out" --name=probe --filename="$lab/mnt/probe" --size=1m --rw=randwrite --bs=4k \
        --ioengine=psync --sync=dsync --rate_iops=20 --time_based --runtime=1h --fallocate=none \
        --write_lat_log="$lab/probe" --log_unix_epoch=1
}

# break_it does the $1-th failure, and says in $kind which it was.
break_it() {
    local at
    at=$(primary)
    case $(($1 % 4)) in
    0) kind="primary killed" && kill_node "$at" ;;
    1) at=$(serving) && kind="serving node killed" && kill_node "$at" ;;
    2) kind="primary stopped" && kill -STOP "${node[$at]}" ;;
    3) kind="handover" && lockstep handover "$volume" --to "$(other "$at")" >/dev/null ;;
    esac
    broken=$at
}

mend() {
    kill -CONT "${node[$broken]:-0}" 2>/dev/null || true
    [ -n "${node[$broken]}" ] || start_node "$broken"
}

must_be_loaded() {
    kill -0 "$loading" 2>/dev/null || die "the load failed: $(tail -n 20 "$lab/fio.log"; kernel_errors "${device#/dev/}")"
    kill -0 "$probing" 2>/dev/null || die "the probe failed: $(tail -n 5 "$lab/probe.out")"
}

# writes_go_on returns when the file system took a durable write.
writes_go_on() {
    timeout 60 dd if=/dev/zero of="$lab/mnt/alive" bs=4k count=1 oflag=dsync conv=notrunc 2>/dev/null ||
        die "$kind: no write was acknowledged for 60 s"
}

round() {
    must_be_loaded
    await_in_sync 180 # a copy that a slow machine left behind cannot take over
    printf '%s %s\n' "$(date +%s%3N)" "$1" >>"$lab/times"
    break_it "$1"
    writes_go_on
    sleep 1
    mend
    await_in_sync 180
    kinds+=("$kind")
    must_be_loaded
    say "$((${#kinds[@]})): $kind; in sync again at $SECONDS s"
}

# pauses prints, for each round, the longest that a write took which ended in it, in
# milliseconds.
pauses() {
    awk -F'[ ,]+' 'NR == FNR { begin[NR] = $1; n = NR; next }
        { while (at < n && $1 >= begin[at + 1]) at++; ms = $2 / 1e6; if (at && ms > longest[at]) longest[at] = ms }
        END { for (i = 1; i <= n; i++) printf "%.0f\n", longest[i] }' "$lab/times" "$lab"/probe_lat*.log
}

check_system() {
    case $1 in
    ext4) fsck.ext4 -fn "$device" >"$lab/fsck.log" 2>&1 || die "fsck found: $(cat "$lab/fsck.log")" ;;
    xfs) xfs_repair -n "$device" >"$lab/fsck.log" 2>&1 || die "xfs_repair found: $(cat "$lab/fsck.log")" ;;
    esac
}

make_system() {
    case $1 in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0 "$device" ;;
    xfs) mkfs.xfs -q -f "$device" ;;
    esac
    mount "$device" "$lab/mnt"
}

# run_system breaks the cluster under the file system $1.
run_system() {
    local i status=0 errors paused
    say "$1, $failovers failovers"
    rm -f "$lab"/{times,done,passes} "$lab"/probe*
    dmesg -C
    kinds=()
    start_cluster 320MiB
    attach
    make_system "$1"
    background load
    loading=$started
    background probe
    probing=$started
    within 60 test -s "$lab/mnt/probe" || die "the probe did not begin"
    for ((i = 0; i < failovers; i++)); do round "$i"; done
    touch "$lab/done"
    wait "$loading" || status=$?
    [ "$status" = 0 ] || die "the load failed: $(tail -n 20 "$lab/fio.log")"
    kill -INT "$probing"
    wait "$probing" || true # it says that it was interrupted
    others=()
    umount "$lab/mnt"
    check_system "$1"
    detach
    must_be_identical
    mapfile -t paused < <(pauses)
    for ((i = 0; i < failovers; i++)); do say "$1: ${kinds[i]}: ${paused[i]} ms"; done
    errors=$(kernel_errors "${device#/dev/}")
    [ -z "$errors" ] || die "the kernel saw errors on $device: $errors"
    rm -rf "$lab"/{a,b,w}/*
    results+=("$1"_failovers "$failovers" "$1"_io_errors 0 "$1"_passes "$(cat "$lab/passes")"
        "$1"_pause_max_ms "$(printf '%s\n' "${paused[@]}" | sort -n | tail -1)"
        "$1"_pause_median_ms "$(printf '%s\n' "${paused[@]}" | sort -n | sed -n "$(((failovers + 1) / 2))p")")
}

results=()
new_lab
for system in "${systems[@]}"; do run_system "$system"; done
verdict ok "${results[@]}"
