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
