#!/usr/bin/env bash
# The part of the test that needs kernels of its own: each line of `parts` in a new
# machine of scripts/vm.sh. It prints what each took.
#
#   scripts/lab/ci.sh               all of them
#   scripts/lab/ci.sh kernel sweep  some
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"
teach "$@"
cd "$root"

parts=(vagrantfile kernel netem filesystem powercut flaky postgres machines sweep)
in_vm() { scripts/vm.sh run --timeout 10m "$@"; }

vagrantfile() { vagrant validate --ignore-provider; }
kernel() { scripts/vm.sh test; }
netem() { in_vm --clock instructions -- lockstep wan check --backend netem --quick; }
filesystem() { in_vm -- scripts/lab/filesystem.sh --failovers 2; }
powercut() { in_vm --build ./mirror/store/powercut/cmd/powercut -- scripts/lab/powercut.sh; }
flaky() { in_vm -- scripts/lab/flaky-disk.sh --seconds 5; }
postgres() { in_vm -- scripts/lab/postgres.sh; }
machines() { scripts/lab/machines.sh; }
# A sweep ends well also if it has no answer; here it must have the right one. Each driver is
# run by the tests of cmd/lockstep/target, so two mirrors do.
sweep() {
    local out answers ok=0
    out=$(mktemp -d)
    in_vm --clock instructions --out "$out" -- lockstep sweep --attach kernel --backend netem --target lockstep,drbd \
        --km 0,500 --duration 400ms --warm-up 100ms --idle 0 --out /out || return
    answers='[.targets[] | select(.round_trips_per_write) | {target, round_trips: .round_trips_per_write}]'
    jq -c "$answers" "$out/report.json" || ok=1
    jq -e ".replicas_identical and ($answers | length == 2 and all(.round_trips > 0.9 and .round_trips < 1.1))" \
        "$out/report.json" >/dev/null || ok=1
    rm -rf "$out"
    return $ok
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
