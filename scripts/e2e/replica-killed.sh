#!/usr/bin/env bash
# kill -9 of the replica in mid-load. No write may be acknowledged while it is
# away; when it is back the load goes on without an error and the copies are the same.
set -euo pipefail
# shellcheck source=scripts/e2e/pair.sh
source "$(dirname "$0")/pair.sh"

start_replica
start_serve
for byte in 1 2 3; do
    start_load 5 # of its own, so that it cannot end before the last of them
    sleep 1
    must_be_loaded
    crash "$replica"
    if write_block 140 "$byte" 1; then die "a write was acknowledged while the replica was dead"; fi
    start_replica
    write_block 150 "$byte" || die "writes did not resume: $(tail -5 "$dir/serve.log")"
    finish_load
done
must_be_identical
