#!/usr/bin/env bash
# A sparse volume of 1 TiB: how long it takes until it answers, new and again, and
# how much memory the primary and the replica then use.
set -euo pipefail
# shellcheck source=scripts/e2e/pair.sh
source "$(dirname "$0")/pair.sh"

size_mib=$((1 << 20))

resident_mib() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$1/status"; }

# open_ms starts both and prints how long it took until a client was answered.
open_ms() {
    local began
    start_replica
    sleep 0.2 # so that the primary finds it at once
    began=$(date +%s%3N)
    start serve "$root/bin/lockstep" serve --store="$dir/primary.img" --size="${size_mib}MiB" \
        --nbd="unix:$(socket serve)" --export=vol --replica="$replica_addr" --timeout=1s
    serve=${pids[-1]}
    until nbdinfo --size "$(uri serve)" >/dev/null 2>&1; do
        sleep 0.02
        [ $(($(date +%s%3N) - began)) -lt 30000 ] || die "no answer after 30 s: $(tail -5 "$dir/serve.log" "$dir/replica.log")"
    done
    ms=$(($(date +%s%3N) - began))
}

# report prints what came out and holds it to the aims: an answer within a second, a
# new volume apart, which every site compares first, and 64 MiB resident at each.
report() {
    local primary replica_mib
    primary=$(resident_mib "$serve")
    replica_mib=$(resident_mib "$replica")
    printf '%s: peak resident memory: primary %d MiB, replica %d MiB\n' "$1" "$primary" "$replica_mib"
    if [ "$primary" -ge 64 ] || [ "$replica_mib" -ge 64 ]; then die "more than 64 MiB"; fi
    [ "$ms" -lt "${2:-1000}" ] || die "no answer within ${2:-1000} ms"
}

open_ms
report "new: answers after $ms ms" 5000
fio --name=scatter --thread --ioengine=nbd --uri="$(uri serve)" --rw=randwrite --bs=4k --iodepth=16 --size="${size_mib}m" \
    --number_ios=3000 --norandommap >"$dir/fio.log" 2>&1 || die "the load failed: $(tail -5 "$dir/fio.log")"
report "3000 scattered writes" 5000
stop "$serve" && stop "$replica"
open_ms
report "again, after a clean stop: answers after $ms ms"
write_block 80 1
crash "$serve"
crash "$replica"
open_ms
report "again, after both were killed: answers after $ms ms"
