#!/usr/bin/env bash
# Runs, in a machine of scripts/vm.sh, the test programs that it packed. A test that skips itself
# here is a test that nobody has, so that fails, too.
set -euo pipefail
failed=0
while read -r program; do
    package=$(dirname "${program#tests/}")
    begun=$SECONDS
    if (cd "$(dirname "$program")" && ./kernel.test -test.v -test.run '^TestKernel' -test.timeout 10m) >/tmp/log 2>&1 &&
        ! grep -q -- '--- SKIP' /tmp/log && grep -q -- '--- PASS' /tmp/log; then
        # With what they measured: a figure that is quoted must have been printed.
        grep -E -- '^--- PASS|: the longest write took ' /tmp/log | sed 's/^ */    /'
        printf 'ok   %s %d s\n' "$package" $((SECONDS - begun))
    else
        cat /tmp/log
        printf 'FAIL %s %d s\n' "$package" $((SECONDS - begun))
        failed=1
    fi
done <tests/list
exit $failed
