#!/usr/bin/env bash
# Runs every test: formatting, vet, shellcheck, unit and interop tests under the
# race detector, each fuzz target for a moment, the simulator over many seeds and
# with every sabotage, the end-to-end scripts, and the lab (scripts/lab/ci.sh), whose
# parts run in virtual machines.
#
#   scripts/test.sh                     everything
#   scripts/test.sh ./nbd/...           one part (no end-to-end scripts, no lab)
#   FUZZ_TIME=1m scripts/test.sh ...    longer fuzzing; 0 for none (default 2s)
#   SIM_SEEDS=5000 scripts/test.sh      more seeds of 10 virtual minutes (default 300)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
teach "$@"
cd "$root"

fuzz_time=${FUZZ_TIME:-2s}
packages=("${@:-./...}")
fuzz_targets=0
scripts=0

check_sources() {
    say "gofmt, go vet, shellcheck"
    local unformatted
    unformatted=$(go list -f '{{.Dir}}' "${packages[@]}" | while read -r dir; do gofmt -l "$dir"/*.go; done)
    [ -z "$unformatted" ] || die "not formatted: ${unformatted//$'\n'/ } (mend with: gofmt -w .)"
    go vet "${packages[@]}"
    find scripts -name '*.sh' -print0 | xargs -0 shellcheck -x .ci/run scripts/vm/init
}

# gotestsum runs go test and ends with what was skipped and why: a skip that
# nobody sees is a test that nobody has. It is no module of ours, so it is downloaded here.
run_tests() {
    local bin=$root/bin
    again env GOBIN="$bin" go install gotest.tools/gotestsum@v1.13.0 || die "gotestsum cannot be downloaded, see above"
    say "go test -race ${packages[*]}"
    "$bin/gotestsum" --format pkgname --format-hide-empty-pkg -- \
        -race -count=1 -timeout=10m "${packages[@]}"
}

# list_fuzz_targets prints "package target" lines.
list_fuzz_targets() {
    go test -list '^Fuzz' "${packages[@]}" | awk '
        /^Fuzz/ { names[++n] = $1 }
        $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }'
}

fuzz() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzz_time" "$1" 2>&1; }

# once_more repeats a target that found nothing and failed all the same: at the end of
# its time go test may call that a failure (golang/go#75804, mended in Go 1.27). $1 is
# what it said; an input that fails is written down, and gets no second chance.
once_more() {
    if ! grep -q '^ *context deadline exceeded$' <<<"$1" || grep -q 'Failing input' <<<"$1"; then
        printf '%s\n' "$1"
        return 1
    fi
    fuzz "$2" "$3"
}

run_fuzz_targets() {
    [ "$fuzz_time" != 0 ] || return 0
    say "fuzzing, $fuzz_time each target"
    local targets target package name out
    targets=$(list_fuzz_targets)
    mapfile -t targets <<<"$targets"
    for target in "${targets[@]}"; do
        [ -n "$target" ] || continue
        read -r package name <<<"$target"
        out=$(fuzz "$package" "$name") || out=$(once_more "$out" "$package" "$name") ||
            die "$package $name failed:"$'\n'"$out"
        printf '%s %s: %s\n' "$package" "$name" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
        fuzz_targets=$((fuzz_targets + 1))
    done
}

run_simulator() {
    say "the simulator, ${SIM_SEEDS:-300} seeds of 10 virtual minutes"
    go run ./mirror/sim/cmd -seeds "${SIM_SEEDS:-300}" -for 10m -workers "$(nproc)"
    say "the simulator, sabotaged"
    go test -count=1 -tags sabotage -timeout=15m -v -run '^TestMutations$' ./mirror/sim | grep -E '^ *--- |^(ok|FAIL|panic)'
}

run_scripts() {
    local script
    for script in scripts/e2e/*.sh; do
        [ -x "$script" ] || continue # what they share
        say "$script"
        "$script"
        scripts=$((scripts + 1))
    done
}

# phase runs one and notes how long it took.
phase() {
    local from=$SECONDS
    "$@"
    phases+=("$1 $((SECONDS - from)) s")
}

lab() { scripts/lab/ci.sh; }

phases=()
phase scripts/setup.sh test
phase check_sources
phase run_tests
phase run_fuzz_targets
if [ $# -eq 0 ]; then
    phase run_simulator
    phase run_scripts
    phase lab
fi
say "$(printf '%s, ' "${phases[@]}" | sed 's/, $//')"
say "all passed in $SECONDS s: ${packages[*]}, $fuzz_targets fuzz targets, $scripts end-to-end scripts"
