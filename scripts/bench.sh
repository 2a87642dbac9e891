#!/usr/bin/env bash
# Measures lockstep beside its peers, in one run: fio's nbd engine, unix sockets,
# the same kind of file for each.
#
#   scripts/bench.sh [--rounds N] [--duration SECONDS] [--size MIB] [--dir DIR]
#                    [--targets LIST] [--jobs LIST] [--json FILE]
#
# Targets: lockstep       serve and one replica over loopback TCP
#          lockstep-cluster  three nodes over loopback TCP, one of them a witness; the
#                         client is at the primary's node
#          lockstep-poll  the same with --poll 100us at both ends
#          nbdkit         nbdkit's file plugin, not mirrored: the floor
#          quorum         qemu-storage-daemon over a local file and a qemu-nbd
#                         export on loopback TCP, mirrored: the peer
# Jobs:    4k-randwrite-d1 4k-randwrite-d32 1m-write-d8 4k-randread-d1 4k-randread-d32
#
# Every round runs each job on every target in turn, so that what disturbs the
# machine disturbs all; the medians over the rounds are reported, with the spread
# of the IOPS (largest less smallest, over the median). --json FILE gets
# [{target, job, iops, mean_us, p99_us}], latencies as the client saw them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/daemons.sh
source "$root/scripts/daemons.sh"

rounds=3 duration_s=5 size_mib=256 json='' parent=${TMPDIR:-/var/tmp}
targets=(nbdkit quorum lockstep lockstep-cluster lockstep-poll)
jobs=(4k-randwrite-d1 4k-randwrite-d32 1m-write-d8 4k-randread-d1 4k-randread-d32)

# positive stops unless $2, given for the option $1, is a positive whole number.
positive() { [[ $2 =~ ^[1-9][0-9]*$ ]] || { say "$1 wants a positive whole number, not '$2'" >&2; exit 2; }; }

# known stops unless each of $3... is a word of the list $2, given for the option $1.
known() {
    local option=$1 word list=" $2 "
    for word in "${@:3}"; do
        [[ $list == *" $word "* ]] || { say "$option: '$word' is none of:$list" >&2; exit 2; }
    done
}

while [ $# -gt 0 ]; do
    teach "$@"
    [ $# -gt 1 ] || { usage >&2 && exit 2; }
    case $1 in
    --rounds) positive "$1" "$2"; rounds=$2 ;;
    --duration) positive "$1" "${2%s}"; duration_s=${2%s} ;;
    --size) positive "$1" "$2"; size_mib=$2 ;;
    --dir) parent=$2 ;;
    --json) json=$2 ;;
    --targets) IFS=', ' read -ra chosen <<<"$2"; known "$1" "${targets[*]}" "${chosen[@]}"; targets=("${chosen[@]}") ;;
    --jobs) IFS=', ' read -ra chosen <<<"$2"; known "$1" "${jobs[*]}" "${chosen[@]}"; jobs=("${chosen[@]}") ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift 2
done

"$root/scripts/setup.sh" bench
"$root/scripts/build.sh"
# shellcheck source=scripts/bench/targets.sh
source "$root/scripts/bench/targets.sh"

scratch "$parent"
results=$dir/results

# measure runs one job on one target and appends a line of JSON to the results.
measure() {
    local target=$1 job=$2 bs rw depth
    IFS=- read -r bs rw depth <<<"$job"
    start fio fio --name="$job" --ioengine=nbd --uri="$(uri "$target")" --rw="$rw" --bs="$bs" --iodepth="${depth#d}" \
        --size="${size_mib}m" --time_based --ramp_time=1s --runtime="${duration_s}s" --randrepeat=0 \
        --norandommap --lat_percentiles=1 --output-format=json --output="$dir/fio.json"
    wait "${pids[-1]}" || die "fio $job on $target failed: $(tail -3 "$dir/fio.log"); $target says: $(tail -3 "$dir/$target.log")"
    unset 'pids[-1]'
    jq -c --arg target "$target" --arg job "$job" '.jobs[0]
        | (if ."job options".rw | test("read") then .read else .write end)
        | {$target, $job, iops, mean_us: (.lat_ns.mean / 1000), p99_us: (.lat_ns.percentile["99.000000"] / 1000)}' \
        "$dir/fio.json" >>"$results"
}

say "preparing $size_mib MiB for each copy in $dir"
dd if=/dev/urandom of="$dir/seed" bs=1M count="$size_mib" status=none
for target in "${targets[@]}"; do
    "start_${target/-/_}"
    await "$target"
done
sync -f "$dir" # or the first runs share the disk with the write-back of the copies
for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    for job in "${jobs[@]}"; do
        for target in "${targets[@]}"; do measure "$target" "$job"; done
    done
    targets=("${targets[@]:1}" "${targets[0]}") # nobody is always the first
done

jq -s -f "$root/scripts/bench/medians.jq" "$results" >"$dir/medians.json"
[ -z "$json" ] || jq 'map({target, job, iops, mean_us, p99_us})' "$dir/medians.json" >"$json"
for table in measured judged; do
    echo
    jq -r --arg table "$table" -f "$root/scripts/bench/table.jq" "$dir/medians.json" | column -t -s $'\t'
done
echo
printf '%s\n' "$(uname -sr), $(nproc) CPUs, $(df --output=fstype "$dir" | tail -1); $(fio --version); $(nbdkit --version);" \
    "$(qemu-nbd --version | head -1); $("$root/bin/lockstep" version | head -1);" \
    "volumes of $size_mib MiB; medians of $rounds round(s), $duration_s s a job"
