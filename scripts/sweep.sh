#!/usr/bin/env bash
# Measures how synchronous write latency grows with distance, from a clean clone:
# installs what is missing, builds, and runs `lockstep sweep` with these arguments.
# With none it takes at most three minutes after the build.
#
#   scripts/sweep.sh [--quick] [--km 0,50,100] [--budget 2ms] ...   (see --help)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

needs=build
for arg in "$@"; do
    case $arg in --workload*) needs=sweep ;; esac
done
"$root/scripts/setup.sh" "$needs"
"$root/scripts/build.sh"
exec "$root/bin/lockstep" sweep "$@"
