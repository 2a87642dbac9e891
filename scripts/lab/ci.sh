#!/usr/bin/env bash
# The part of the test that needs kernels of its own: each line of `parts` in a new
# machine of scripts/vm.sh. It prints what each took.
#
#   scripts/lab/ci.sh               all of them
#   scripts/lab/ci.sh kernel sweep  some
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"
cd "$root"

parts=(vagrantfile kernel netem filesystem powercut flaky postgres machines sweep)
in_vm() { scripts/vm.sh run --timeout 10m "$@"; }

vagrantfile() { vagrant validate --ignore-provider; }
kernel() { scripts/vm.sh test; }
netem() { in_vm --clock instructions -- lockstep wan check --backend netem --quick; }
filesystem() { in_vm -- scripts/lab/filesystem.sh --failovers 2; }
powercut() { in_vm --build ./mirror/store/powercut/cmd/powercut -- scripts/lab/powercut.sh; }
flaky() { in_vm -- scripts/lab/flaky-disk.sh; }
postgres() { in_vm -- scripts/lab/postgres.sh; }
machines() { scripts/lab/machines.sh; }
# The sweep must have an answer for each target that is a mirror: what takes less than a
# round trip is no mirror, and what takes two is not what is wanted here.
sweep() {
    local out
    out=$(mktemp -d)
    in_vm --out "$out" -- lockstep sweep --attach kernel --backend netem --target lockstep,drbd,md-nbd,qemu-quorum,local \
        --km 0,200 --duration 1s --warm-up 500ms --idle 0 --out /out || return
    jq -r '.targets[] | "\(.target): \(.round_trips_per_write) round trips a write"' "$out/report.json"
    rm -rf "$out"
}

[ $# -gt 0 ] || set -- "${parts[@]}"
for part in "$@"; do
    [[ " ${parts[*]} " == *" $part "* ]] || die "unknown part '$part': use ${parts[*]}"
done
times=() begun=$SECONDS
for part in "$@"; do
    say "lab: $part"
    from=$SECONDS
    "$part" || die "the lab's part $part failed, see above; by itself: scripts/lab/ci.sh $part"
    times+=("$part $((SECONDS - from)) s")
done
say "lab: all passed in $((SECONDS - begun)) s: $(printf '%s, ' "${times[@]}" | sed 's/, $//')"
