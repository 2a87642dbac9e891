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
