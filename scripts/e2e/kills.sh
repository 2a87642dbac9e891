#!/usr/bin/env bash
# 50 times a primary, a replica, or several of them at once are killed (SIGKILL) or
# stopped in the middle of writes and started again; every sector is checked after
# each. Half of the rounds suspend writes meanwhile, half go on without the replica.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"
cd "$root"

LOCKSTEP_KILL_ROUNDS=${KILL_ROUNDS:-25} go test -count=1 -timeout=20m -v -run '^TestKilledUnderLoad$' ./cmd/lockstep
