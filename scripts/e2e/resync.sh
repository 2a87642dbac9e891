#!/usr/bin/env bash
# A replica is away for 10 s under load and comes back, while writes go on: it must
# be sent what was written meanwhile and nothing else, and end up the same. Prints
# what resync moved, how fast, and what writes felt before, during and after.
set -euo pipefail
# shellcheck source=scripts/e2e/pair.sh
source "$(dirname "$0")/pair.sh"

size_mib=1024
rate=${RATE_IOPS:-2000}
admin=$dir/admin.sock

serve_degradable() {
    start serve "$root/bin/lockstep" serve --store="$dir/primary.img" --size="${size_mib}MiB" --admin="$admin" \
        --nbd="unix:$(socket serve)" --export=vol --replica="$replica_addr" --timeout=1s \
        --on-replica-loss=continue --loss-timeout=1s
    serve=${pids[-1]}
    await serve
    in_sync || die "the replica is not in sync: $(tail -5 "$dir/serve.log")"
}

status() { "$root/bin/lockstep" status --admin="$admin" --json; }

# in_sync waits until the replica is.
in_sync() {
    for _ in {1..600}; do
        if status >"$dir/status.json"; then return; fi
        sleep 0.1
    done
    return 1
}

# phase writes 4 KiB blocks at a steady rate for $2 seconds and prints what they felt.
phase() {
    fio --name=phase --thread --ioengine=nbd --uri="$(uri serve)" --rw=randwrite --bs=4k --iodepth=8 --size=900m \
        --rate_iops="$rate" --time_based --runtime="$2" --randseed="$RANDOM" --output="$dir/$1.json" --output-format=json >"$dir/fio.log" 2>&1
    # fio says on the same stream that it is connected
    sed -n '/^{/,$p' "$dir/$1.json" | jq -r --arg phase "$1" '.jobs[0].write
        | [$phase, (.iops | round), (.clat_ns.percentile["50.000000"] / 1000 | round), (.clat_ns.percentile["99.000000"] / 1000 | round), .total_ios] | @tsv'
}

start_replica
serve_degradable
printf 'phase\tiops\tp50_us\tp99_us\twrites\n'
phase before 10
crash "$replica"
phase away 10 >"$dir/away"
cat "$dir/away"
before=$(status | jq '.replicas[0].copied_bytes' || true)
dirty=$(status | jq '.replicas[0].missed_bytes' || true)
start_replica
(phase during 20) &
during=$!
began=$(date +%s.%N)
# What is written until the primary has found it is missed, too.
replica_says "primary connected"
late=$(awk "BEGIN { print ($(date +%s.%N) - $began) * $rate * 4096 }")
awk "BEGIN { exit !($late < 10 * $rate * 4096) }" || die "the replica was found only after 10 s: $(tail -5 "$dir/serve.log")"
in_sync || die "it never came back: $(tail -5 "$dir/serve.log")"
took=$(awk "BEGIN { print $(date +%s.%N) - $began }")
after=$(jq '.replicas[0].copied_bytes' "$dir/status.json")
wait "$during"
phase after 10
awk -v moved="$((after - before))" -v dirty="$dirty" -v late="$late" -v took="$took" -v compared="$(jq '.replicas[0].compared_bytes' "$dir/status.json")" 'BEGIN {
    printf "missed %.1f MiB, moved %.1f MiB, compared %.1f MiB in %.2f s: %.1f MiB/s\n", dirty / 2^20, moved / 2^20, compared / 2^20, took, moved / 2^20 / took
    if (moved > dirty * 1.02 + late + 2^20) { print "more was moved than was missed"; exit 1 }
}'
"$root/bin/lockstep" verify --admin="$admin" || die "verify found a difference"
must_be_identical
