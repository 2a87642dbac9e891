#!/usr/bin/env bash
# Breaks a cluster of three sites once in every way that can be done here, and checks
# that nothing is lost, that no two primaries acknowledge, and that the copies are equal.
#
#   scripts/e2e/drill.sh
#   ROUNDS=100 scripts/e2e/drill.sh     more of the same
set -euo pipefail
cd "$(dirname "$0")/../.."
exec scripts/failover.sh --rounds "${ROUNDS:-14}" --hold 1s
