# shellcheck shell=bash
# Sourced by the scripts beside it: where the tree is, and how to give up.

# shellcheck disable=SC2034 # used where this is sourced
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Go's own installer puts it here and leaves PATH to the user; sudo drops it.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
export PATH

say() { printf '== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# usage prints what a script says of itself at its top.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# teach does so, and ends, if that is what the arguments ask for.
teach() {
    case ${1-} in -h | --help) usage && exit ;; esac
}

# again runs $1..., which downloads, until it succeeds, at most five times: a network fails
# now and then, and a machine that has just started may still install things by itself.
# What it says goes where it always goes.
again() {
    local try status
    for try in 1 2 3 4 5; do
        status=0
        "$@" || status=$?
        [ "$status" != 0 ] || return 0
        [ "$status" -lt 126 ] || return "$status" # there is no such program
        printf '%s: failed with %d, time %d of 5: %s\n' "${0##*/}" "$status" "$try" "$*" >&2
        [ "$try" = 5 ] || sleep $((try * 5))
    done
    return "$status"
}
