#!/usr/bin/env bash
# kill -9 of the primary in mid-load, five times. What it had acknowledged is in
# both copies, and after its restart the copies are the same.
set -euo pipefail
# shellcheck source=scripts/e2e/pair.sh
source "$(dirname "$0")/pair.sh"

# holds reports whether the 4 KiB at MiB $2 of the file $1 are the byte $3.
holds() {
    qemu-io -f raw -r -c "read -P $3 $2M 4k" "$1" >>"$dir/qemu-io.log" 2>&1
}

start_replica
for byte in 1 2 3 4 5; do
    start_serve
    start_load 30
    sleep 1
    write_block 140 "$byte" || die "a write failed: $(tail -5 "$dir/qemu-io.log"); serve says: $(tail -5 "$dir/serve.log")"
    must_be_loaded
    crash "$serve"
    for copy in primary replica; do
        holds "$dir/$copy.img" 140 "$byte" || die "an acknowledged write is not in the $copy's copy"
    done
    crash "$load"
done
start_serve
must_be_identical
