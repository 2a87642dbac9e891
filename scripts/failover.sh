#!/usr/bin/env bash
# Breaks a cluster of three sites in every way, round after round, while writers and
# readers check that nothing is lost: builds, and runs `lockstep drill` with these
# arguments. A round takes some ten seconds.
#
#   scripts/failover.sh [--rounds N] [--kinds LIST] [--km KM] [--json FILE]
#                       [--witness-km KM | --witness-rtt 100ms] ...   (see --help)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

"$root/scripts/setup.sh" build
"$root/scripts/build.sh"
exec "$root/bin/lockstep" drill "$@"
