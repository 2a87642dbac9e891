#!/usr/bin/env bash
# Installs what building and running lockstep needs and this machine lacks.
# Does nothing, at once, when all is there.
#
#   scripts/setup.sh [build|sweep|test|bench|vm]
#
# build  Go alone, which is checked and never installed (default)
# sweep  what `lockstep sweep --workload` needs as well
# test   everything that scripts/test.sh runs
# bench  everything that scripts/bench.sh compares with
# vm     what scripts/vm.sh makes machines with
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
teach "$@"

# command=package, as Debian and Ubuntu name them.
fio=(fio=fio)
bench=("${fio[@]}" jq=jq column=bsdextrautils nbdkit=nbdkit nbdinfo=libnbd-bin qemu-nbd=qemu-utils
    qemu-storage-daemon=qemu-system-common)
vm=(qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap cpio=cpio modprobe=kmod mke2fs=e2fsprogs pkill=procps)
tests=("${bench[@]}" "${vm[@]}" vagrant=vagrant gcc=gcc nbdcopy=libnbd-bin qemu-io=qemu-utils qemu-img=qemu-utils
    ip=iproute2 ping=iputils-ping shellcheck=shellcheck)

case ${1:-build} in
build) needs=() ;;
sweep) needs=("${fio[@]}") ;;
test) needs=("${tests[@]}") ;;
bench) needs=("${bench[@]}") ;;
vm) needs=("${vm[@]}") ;;
*) die "unknown set '$1': build, sweep, test, bench or vm" ;;
esac

check_go() {
    local want have
    want=$(awk '$1 == "go" { print $2 }' "$root/go.mod")
    command -v go >/dev/null ||
        die "Go $want or newer is needed and 'go' is not on PATH: install it from https://go.dev/dl" \
            "(under sudo, keep PATH: sudo env PATH=\"\$PATH\" $0)"
    # Go 1.21 and later fetch the toolchain that go.mod asks for, unless told not to.
    have=$(cd "$root" && go env GOVERSION) || die "go does not work here, see above"
    have=${have#go}
    printf '%s\n' "$want" "$have" | sort -VC ||
        die "Go $want or newer is needed, this is $have: install it from https://go.dev/dl"
}

missing_packages() {
    local need
    for need in "${needs[@]}"; do
        command -v "${need%%=*}" >/dev/null || printf '%s\n' "${need#*=}"
    done | sort -u
}

# The race detector links against C, and gcc alone has no headers.
headers_for() { case $1 in gcc) echo gcc libc6-dev ;; *) echo "$1" ;; esac }

# install_by_apt does both, to be done again as one: an update that got nothing has
# succeeded all the same, and then the install finds no package.
install_by_apt() {
    "${apt[@]}" update || return
    "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null
}

install_packages() {
    local sudo=() want=() package
    for package in "$@"; do
        # shellcheck disable=SC2207 # two words, on purpose
        want+=($(headers_for "$package"))
    done
    command -v apt-get >/dev/null ||
        die "missing: ${want[*]} (names as in Debian); no apt-get here, install them by your system's means"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing: ${want[*]}; as root: apt-get install ${want[*]}"
        sudo=(sudo)
    fi
    say "installing ${want[*]}"
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    again install_by_apt "${want[@]}" || die "apt-get could not install ${want[*]}, see above"
}

PATH=$PATH:/usr/sbin:/sbin # a user's PATH on Debian lacks them
check_go
mapfile -t missing < <(missing_packages)
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
