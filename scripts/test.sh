#!/usr/bin/env bash
# Runs every test: formatting, vet, shellcheck, unit and interop tests under the
# race detector, each fuzz target for a moment, the simulator over many seeds and
# with every sabotage, and the end-to-end scripts.
#
#   scripts/test.sh                     everything
#   scripts/test.sh ./nbd/...           one part (no end-to-end scripts)
#   FUZZ_TIME=1m scripts/test.sh ...    longer fuzzing; 0 for none (default 5s)
#   SIM_SEEDS=5000 scripts/test.sh      more seeds of 10 virtual minutes (default 500)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

fuzz_time=${FUZZ_TIME:-5s}
packages=("${@:-./...}")
fuzz_targets=0
scripts=0

check_sources() {
    say "gofmt, go vet, shellcheck"
    local unformatted
    unformatted=$(go list -f '{{.Dir}}' "${packages[@]}" | while read -r dir; do gofmt -l "$dir"/*.go; done)
    [ -z "$unformatted" ] || die "not formatted: ${unformatted//$'\n'/ } (mend with: gofmt -w .)"
    go vet "${packages[@]}"
    find scripts -name '*.sh' -print0 | xargs -0 shellcheck -x .ci/run
}

# gotestsum runs go test and ends with what was skipped and why: a skip that
# nobody sees is a test that nobody has.
run_tests() {
    say "go test -race ${packages[*]}"
    go run gotest.tools/gotestsum@v1.13.0 --format pkgname --format-hide-empty-pkg -- \
        -race -count=1 -timeout=10m "${packages[@]}"
}

# list_fuzz_targets prints "package target" lines.
list_fuzz_targets() {
    go test -list '^Fuzz' "${packages[@]}" | awk '
        /^Fuzz/ { names[++n] = $1 }
        $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }'
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
        out=$(go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzz_time" "$package" 2>&1) ||
            die "$package $name failed:"$'\n'"$out"
        printf '%s %s: %s\n' "$package" "$name" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
        fuzz_targets=$((fuzz_targets + 1))
    done
}

run_simulator() {
    say "the simulator, ${SIM_SEEDS:-500} seeds of 10 virtual minutes"
    go run ./mirror/sim/cmd -seeds "${SIM_SEEDS:-500}" -for 10m -workers "$(nproc)"
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

scripts/setup.sh test
check_sources
run_tests
run_fuzz_targets
[ $# -gt 0 ] || run_simulator
[ $# -gt 0 ] || run_scripts
say "all passed in $SECONDS s: ${packages[*]}, $fuzz_targets fuzz targets, $scripts end-to-end scripts"
