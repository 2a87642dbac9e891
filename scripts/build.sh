#!/usr/bin/env bash
# Builds bin/lockstep, stamped with the version and commit that `lockstep version` prints.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# safe.directory: in a container the tree often belongs to somebody else.
from_git() { git -c safe.directory="$root" -C "$root" "$@" 2>/dev/null || true; }

version=$(from_git describe --always --dirty --tags)
commit=$(from_git rev-parse HEAD)

cd "$root"
# Without cgo, so that all threads can be told what they are for (cmd/lockstep/flusher.go).
CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-X main.version=$version -X main.commit=$commit" \
    -o bin/lockstep ./cmd/lockstep
