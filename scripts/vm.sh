#!/usr/bin/env bash
# A Linux machine with a stock Debian kernel, for what this machine's kernel lacks: nbd.ko,
# sch_netem, DRBD, md, device mapper. KVM where it works, else QEMU's own emulation
# (boots in some five seconds; CPU work is about 17 times slower there).
#
#   scripts/vm.sh run [OPTION...] -- CMD [ARG...]   run CMD as root in a new machine, end with its exit code
#   scripts/vm.sh shell [OPTION...]                 a root shell in a new machine; 'exit' ends it
#   scripts/vm.sh test [PACKAGE...]                 run the tests named TestKernel..., which need such a kernel
#   scripts/vm.sh image                             build the image, if it is not there, and print its directory
#
# CMD runs in /lockstep, which holds bin/lockstep (freshly built, in PATH), README.md and scripts/.
# What it leaves in the directory $OUT (/out) is brought back to --out. The disk is thrown away.
#
#   --out DIR          where what CMD left in $OUT goes; default vm-out, made only if there is something
#   --build PACKAGE    build this Go command into bin/, too; may be repeated
#   --put FILE[:PATH]  a file or directory to put to /lockstep/PATH (default: its name); may be repeated
#   --disk SIZE        an empty disk, /dev/vdd and on; may be repeated
#   --cpus N           default 2
#   --memory SIZE      default 2G
#   --timeout TIME     the longest that it may run, as 90s or 10m; default 15m; the exit code is 124 then
#   --network NAME     an interface lan0 on the network of this name, shared by all machines here that name it;
#   --address IP/BITS  with this address. It never leaves this machine.
#   --clock host       what the machine's clock follows, or instructions: it counts those of its one, emulated CPU, 2 ns
#                      each, and skips what it would wait. What this machine does meanwhile does not show then, and
#                      delays are exact; a disk seems slow. For measuring what takes no disk.
#   --systemd          boot with systemd, and run CMD when it has started
#
# Examples
#   scripts/vm.sh run -- uname -r
#   scripts/vm.sh run --clock instructions -- lockstep wan check --backend netem
#   scripts/vm.sh run --out report -- lockstep sweep --attach kernel --backend netem --target lockstep,drbd --out /out
#
# The image is made of Debian packages (scripts/vm/image.sh) once, in about a minute, as root, and kept in
# ${XDG_CACHE_HOME:-~/.cache}/lockstep/vm. LOCKSTEP_VM_ACCEL=kvm|tcg overrides the choice of how to run it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

boot_timeout=60 # seconds; about one emulated boot in a hundred hangs on a busy machine
boot_attempts=3

out=vm-out cpus=2 memory=2G timeout=15m network='' address='' init=plain clock=host
builds=() puts=() disks=()

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage && exit 0 ;;
        --systemd) init=systemd && shift && continue ;;
        --) shift && break ;;
        --*) [ $# -gt 1 ] || die "$1 needs a value; see $0 --help" ;;
        *) break ;;
        esac
        case $1 in
        --out) out=$2 ;;
        --build) builds+=("$2") ;;
        --put) puts+=("$2") ;;
        --disk) disks+=("$2") ;;
        --cpus) cpus=$2 ;;
        --memory) memory=$2 ;;
        --timeout) timeout=$2 ;;
        --network) network=$2 ;;
        --clock) clock=$2 ;;
        --address) address=$2 ;;
        *) die "unknown option $1; see $0 --help" ;;
        esac
        shift 2
    done
    command=("$@")
    [[ $timeout =~ ^[0-9]+[smh]?$ ]] || die "--timeout $timeout: use seconds, or a number and s, m or h"
    case $clock in
    host) ;;
    instructions) cpus=1 ;;
    *) die "unknown clock $clock: host or instructions; see $0 --help" ;;
    esac
}

# pack makes the archive that becomes /lockstep, and what is to be run in it.
pack() {
    local tree=$work/tree item from to
    mkdir -p "$tree/bin"
    cp -a "$root/scripts" "$root/README.md" "$tree/"
    "$root/scripts/build.sh"
    cp "$root/bin/lockstep" "$tree/bin/"
    for item in ${builds[@]+"${builds[@]}"}; do
        (cd "$root" && go build -trimpath -o "$tree/bin/" "$item")
    done
    for item in ${puts[@]+"${puts[@]}"}; do
        from=${item%%:*} to=${item#*:}
        [ "$to" != "$item" ] || to=$(basename "$from")
        mkdir -p "$(dirname "$tree/$to")"
        cp -a "$from" "$tree/$to"
    done
    {
        printf 'mode=%q init=%q address=%q host_date=%q clock=%q\n' "$mode" "$init" "$address" "@$(date +%s)" "$clock"
        printf 'command=('
        printf '%q ' ${command[@]+"${command[@]}"}
        printf ')\n'
    } >"$tree/.vm"
    tar -C "$tree" -cf "$work/put.tar" --owner=0 --group=0 .
    rm -rf "$tree"
    truncate -s 4G "$work/out.tar"
}

# machine_args prints QEMU's arguments, one a line. $1 is the accelerator.
machine_args() {
    local accel=$1 disk n=0 port
    local kernel="console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off no_timer_check tsc=reliable clocksource=tsc net.ifnames=0"
    printf '%s\n' -nodefaults -no-user-config -display none -no-reboot -M q35 -smp "$cpus" -m "$memory"
    case $accel-$clock in
    *-instructions)
        printf '%s\n' -accel tcg,thread=single -cpu max -icount shift=1,sleep=off
        kernel+=" lockstep.clock=instructions" # whoever measures has to say so
        ;;
    kvm-*) printf '%s\n' -accel kvm -cpu host ;;
    tcg-*) printf '%s\n' -accel tcg,thread=multi -cpu max ;;
    esac
    printf '%s\n' -kernel "$image/vmlinuz" -initrd "$image/initrd" -append "$kernel"
    printf '%s\n' -drive "file=$image/root.ext4,format=raw,if=virtio,snapshot=on" \
        -drive "file=$work/put.tar,format=raw,if=virtio,readonly=on" \
        -drive "file=$work/out.tar,format=raw,if=virtio"
    for disk in ${disks[@]+"${disks[@]}"}; do
        truncate -s "$disk" "$work/disk$n"
        printf '%s\n' -drive "file=$work/disk$n,format=raw,if=virtio,discard=unmap"
        n=$((n + 1))
    done
    printf '%s\n' -object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng \
        -chardev "file,id=kernel,path=$work/kernel.log" -serial chardev:kernel -device virtio-serial-pci
    if [ "$mode" = shell ]; then
        printf '%s\n' -chardev stdio,id=tty,signal=off -device virtconsole,chardev=tty
    else
        printf '%s\n' -chardev "file,id=out,path=$work/out" -device virtserialport,chardev=out,nr=1 \
            -chardev "file,id=err,path=$work/err" -device virtserialport,chardev=err,nr=2
    fi
    [ -n "$network" ] || return 0
    # The name picks the multicast group's port, the address the card's.
    port=$((20000 + $(cksum <<<"$network" | cut -d' ' -f1) % 20000))
    printf '%s\n' -netdev "socket,id=lan,mcast=239.192.76.83:$port,localaddr=127.0.0.1" \
        -device "virtio-net-pci,netdev=lan,mac=$(cksum <<<"$address" | awk '{ printf "52:54:%02x:%02x:%02x:%02x", $1/2^24%256, $1/2^16%256, $1/256%256, $1%256 }')"
}

# accelerator tries KVM once for each image: that /dev/kvm is there does not mean that
# a kernel gets past the firmware with it.
accelerator() {
    local known=$image/accelerator found=tcg
    if [ -n "${LOCKSTEP_VM_ACCEL:-}" ]; then
        echo "$LOCKSTEP_VM_ACCEL"
    elif [ -s "$known" ]; then
        cat "$known"
    elif [ ! -w /dev/kvm ]; then
        echo tcg # what this user may not use is not on record
    else
        if LOCKSTEP_VM_ACCEL=kvm LOCKSTEP_VM_ATTEMPTS=1 LOCKSTEP_VM_BOOT=15 "$root/scripts/vm.sh" run -- true >/dev/null 2>&1; then
            found=kvm
        fi
        echo "${0##*/}: machines are run by $found from now on (kept in $known)" >&2
        { echo "$found" >"$known"; } 2>/dev/null || true # it may be root's
        echo "$found"
    fi
}

# booted tells whether the machine has said so.
booted() { grep -q 'lockstep-vm: up' "$work/kernel.log" 2>/dev/null; }

# boot starts the machine and returns when its init runs; $qemu is its process.
boot() {
    local args attempt limit=${LOCKSTEP_VM_BOOT:-$boot_timeout} attempts=${LOCKSTEP_VM_ATTEMPTS:-$boot_attempts} end
    mapfile -t args < <(machine_args "$accel")
    for attempt in $(seq "$attempts"); do
        : >"$work/kernel.log"
        if [ "$mode" = shell ]; then
            setpriv --pdeathsig KILL qemu-system-x86_64 "${args[@]}" <&3 &
        else
            # A port whose reader has gone would hang the writer in the machine.
            cat "$work/out" &
            copiers=($!)
            cat "$work/err" >&2 &
            copiers+=($!)
            setpriv --pdeathsig KILL qemu-system-x86_64 "${args[@]}" </dev/null &
        fi
        qemu=$!
        end=$((SECONDS + limit))
        while kill -0 "$qemu" 2>/dev/null; do
            ! booted || return 0
            [ $SECONDS -lt $end ] || break
            sleep 0.1
        done
        ! booted || return 0 # and ended already
        stop_qemu
        # One that waits for a QEMU that ended at once would share what the next one says.
        [ ${#copiers[@]} -eq 0 ] || kill "${copiers[@]}" 2>/dev/null || true
        copiers=()
        echo "${0##*/}: the machine was not up after $limit s, or its QEMU ended (attempt $attempt of $attempts)" >&2
    done
    tail -20 "$work/kernel.log" >&2
    die "the machine does not boot with $accel; LOCKSTEP_VM_ACCEL=tcg or kvm takes the other way"
}

stop_qemu() {
    [ -n "$qemu" ] || return 0
    kill -9 "$qemu" 2>/dev/null || true
    { wait "$qemu" || true; } 2>/dev/null # the shell would say that it was killed
    qemu=''
}

clean_up() {
    stop_qemu
    [ -z "$watch" ] || pkill -P "$watch" 2>/dev/null || true # its sleep; what waits for that ends, too
    [ ${#copiers[@]} -eq 0 ] || kill "${copiers[@]}" 2>/dev/null || true
    rm -rf "$work"
}

# run boots, waits for the end and brings back what there is.
run() {
    accel=$(accelerator)
    pack
    mkfifo "$work/out" "$work/err"
    boot
    if [ "$mode" = run ]; then
        (sleep "$timeout" && touch "$work/late" && kill -9 "$qemu") </dev/null >/dev/null 2>&1 &
        watch=$!
    fi
    { wait "$qemu" || true; } 2>/dev/null
    qemu=''
    [ "$mode" = run ] || return 0
    wait "${copiers[@]}" || true
    copiers=()
    collect
}

# collect unpacks what the machine left and ends with its exit code.
collect() {
    local left=$work/left code
    mkdir "$left"
    if [ -e "$work/late" ]; then
        tail -5 "$work/kernel.log" >&2
        echo "${0##*/}: not done after $timeout (--timeout); the machine was switched off" >&2
        return 124
    fi
    tar -C "$left" -xf "$work/out.tar" 2>/dev/null || true
    if [ ! -s "$left/.exit" ]; then
        tail -40 "$work/kernel.log" >&2
        die "the machine ended without an exit code; above is what its kernel said last"
    fi
    code=$(cat "$left/.exit")
    rm "$left/.exit"
    if [ -n "$(ls -A "$left")" ]; then
        mkdir -p "$out"
        find "$left" -mindepth 1 -maxdepth 1 -exec cp -a --no-preserve=ownership -t "$out" {} + # not the directory's own mode
    fi
    return "$code"
}

# pack_tests builds the tests of the packages that have some for such a kernel.
pack_tests() {
    local package packages dirs files dir name
    cd "$root"
    [ $# -gt 0 ] || mapfile -t -d '' files < <(grep -rlZ --include='*_test.go' '^func TestKernel' .)
    if [ $# -eq 0 ]; then
        mapfile -t dirs < <(printf '%s\n' "${files[@]}" | xargs -n1 dirname | sort -u)
        set -- "${dirs[@]}"
    fi
    packages=$(go list "$@")
    for package in $packages; do
        dir=$(go list -f '{{.Dir}}' "$package")
        name=${dir#"$root"/}
        mkdir -p "$work/tests/$name"
        go test -c -o "$work/tests/$name/kernel.test" "$package"
        [ -x "$work/tests/$name/kernel.test" ] || die "$package has no tests"
        echo "tests/$name/kernel.test" >>"$work/tests/list"
        [ ! -d "$dir/testdata" ] || cp -a "$dir/testdata" "$work/tests/$name/"
    done
    puts+=("$work/tests")
}

mode=${1:---help}
shift || true
qemu='' watch='' copiers=()
case $mode in
run | shell) parse "$@" ;;
test)
    while [ $# -gt 0 ] && [[ $1 == --* ]]; do
        [ "$1" != --help ] || { usage && exit 0; }
        test_options+=("$1" "${2:?}") && shift 2
    done
    parse ${test_options[@]+"${test_options[@]}"} -- scripts/vm/gotests.sh
    ;;
image) ;;
--help | -h) usage && exit 0 ;;
*) die "unknown command $mode: run, shell, test or image; see $0 --help" ;;
esac
"$root/scripts/setup.sh" vm
# To build it is to download it; who is not root cannot.
make_image=("$root/scripts/vm/image.sh")
[ "$(id -u)" != 0 ] || make_image=(again "${make_image[@]}")
image=$("${make_image[@]}") || die "there is no image to run a machine with, see above"
[ "$mode" != image ] || { echo "$image" && exit 0; }
work=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-vm.XXXXXX")
exec 3<&0
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$mode" = test ]; then
    pack_tests "$@"
    mode=run
fi
[ "$mode" = shell ] || [ ${#command[@]} -gt 0 ] || die "run: what? put a command after --; see $0 --help"
run
