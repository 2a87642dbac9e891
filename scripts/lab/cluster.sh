# shellcheck shell=bash
# Sourced by the lab's scripts, which run as root in a machine of their own: a cluster of
# three nodes here, a and b with copies and the witness w, one volume, and that as a block
# device. All of it is gone when the script ends, however it ends.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
teach "$@"

lab=            # the directory of everything
volume=vol      # the volume
device=         # once it is attached, /dev/nbdN
declare -A node # the nodes' process ids; empty while one does not run
agent=          # the process id of lockstep attach
others=()       # process groups that are to end with the script
started=        # the latest of them
cluster=a=127.0.0.1:7801,b=127.0.0.1:7802,w=127.0.0.1:7803

# new_lab makes the directory $lab.
new_lab() {
    [ "$(id -u)" = 0 ] || die "it attaches and mounts devices: run it as root, in a machine of its own (scripts/vm.sh)"
    command -v lockstep >/dev/null || PATH=$root/bin:$PATH
    command -v lockstep >/dev/null || die "lockstep is not in PATH: build it first, with scripts/build.sh"
    lab=$(mktemp -d "${LAB_DIR:-/var/tmp}/lab.XXXXXX")
    export LOCKSTEP_ADMIN=$lab/w/admin.sock
    mkdir "$lab/a" "$lab/b" "$lab/w" "$lab/mnt"
    trap clean_lab EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# clean_lab ends what runs, last started first, and takes everything away. When the
# script failed the ends of the logs are shown.
clean_lab() {
    local status=$? pid name
    trap '' INT TERM # once is enough
    [ "$status" = 0 ] || show_logs
    # While the nodes run, so that what is not written back yet can be.
    for name in "${!node[@]}"; do [ -z "${node[$name]}" ] || kill -CONT "${node[$name]}" 2>/dev/null || true; done
    # All that has a file open: what opened it again below a mount point that is gone
    # would find another one.
    for pid in "${others[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
    if mountpoint -q "$lab/mnt" && ! within 20 umount "$lab/mnt"; then
        # A device that nobody serves would keep the machine from its end.
        [ -z "$device" ] || lockstep detach --force "$device" || true
        umount -l "$lab/mnt" || true
    fi
    [ -z "$agent" ] || end "$agent" 10 || true
    for name in a b w; do [ -z "${node[$name]:-}" ] || end "${node[$name]}" 20 || true; done
    if declare -F clean_disks >/dev/null; then clean_disks || true; fi
    rm -rf "$lab"
    exit "$status"
}

show_logs() {
    local log
    for log in "$lab"/*.log; do
        [ -s "$log" ] || continue
        printf -- '-- %s\n' "${log##*/}" >&2
        tail -n 15 "$log" >&2
    done
    printf -- '-- kernel\n' >&2
    dmesg | tail -n 15 >&2
}

# end asks the process $1 to end, and after $2 seconds makes it; then it fails.
end() {
    kill "$1" 2>/dev/null || return 0
    ! within "$2" gone "$1" || return 0
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    return 1
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# background runs a command as a process group, $started, that ends with the script at
# the latest.
background() {
    set -m
    "$@" &
    set +m
    started=$!
    others+=("$started")
}

# within runs $2... until it succeeds, at most for $1 seconds. It pauses as long as that
# took, twice: on an emulated CPU to ask is work that others have to wait for.
within() {
    local until=$((SECONDS + $1)) begun
    shift
    while true; do
        begun=${EPOCHREALTIME//[.,]/}
        "$@" >/dev/null 2>&1 && return
        [ $SECONDS -lt "$until" ] || return 1
        sleep "$(printf '%de-6' $((100000 + 2 * (${EPOCHREALTIME//[.,]/} - begun))))"
    done
}

address() {
    local all=,$cluster
    all=${all#*,"$1"=}
    printf '%s\n' "${all%%,*}"
}

# start_node starts the node $1, with the data that it had.
start_node() {
    local how=(--nbd "unix:$lab/$1.sock")
    [ "$1" != w ] || how=(--witness)
    # An emulated CPU may let a node wait longer than it takes elsewhere to be lost, and
    # what is to be tried is not how resync gives way to writes.
    lockstep node --name "$1" --data "$lab/$1" --listen "$(address "$1")" --cluster "$cluster" \
        --heartbeat "${HEARTBEAT:-1s}" --resync-within 3s "${how[@]}" >>"$lab/$1.log" 2>&1 &
    node[$1]=$!
}

# kill_node ends the node $1 as a crash would.
kill_node() {
    local pid=${node[$1]}
    node[$1]=
    disown "$pid" 2>/dev/null || true # the shell need not report how it ended
    kill -KILL "$pid"
    within 10 gone "$pid" || die "node $1 does not die"
}

# stop_node ends the node $1 in order.
stop_node() {
    local pid=${node[$1]}
    node[$1]=
    end "$pid" 30 || die "node $1 did not stop in 30 s"
}

# start_cluster starts the three and makes the volume of $1, with $2... more of
# lockstep volume create.
start_cluster() {
    local name size=$1
    shift
    for name in a b w; do start_node "$name"; done
    within 60 created --size "$size" --on a,b --lease "${LEASE:-2500ms}" "$@" ||
        die "there is no cluster, or no volume, after 60 s"
    await_in_sync 30
}

# created makes the volume, with $1... What was not decided in time may be decided later.
created() { lockstep volume create "$volume" "$@" || lockstep volume show "$volume"; }

# await_in_sync returns when both copies are in sync and the volume takes writes, in
# at most $1 seconds.
await_in_sync() {
    within "$1" lockstep status "$volume" ||
        die "the copies are not in sync after $1 s: $(lockstep status "$volume" 2>&1)"
}

primary() { lockstep volume show "$volume" --json | jq -r .primary; }

# other prints the other of a and b.
other() { if [ "$1" = a ]; then echo b; else echo a; fi; }

# attach makes the volume $device, by way of a or, when that is lost, b.
attach() {
    modprobe nbd
    lockstep attach "$volume" --nodes "unix:$lab/a.sock,unix:$lab/b.sock" --json \
        >"$lab/attach.json" 2>>"$lab/attach.log" &
    agent=$!
    within 30 test -s "$lab/attach.json" || die "the volume is not attached after 30 s"
    device=$(jq -r .device <"$lab/attach.json" | head -1)
    [ -b "$device" ] || die "the volume was attached as '$device', which is no block device"
}

# detach takes the device away; it must be flushed and free.
detach() {
    local pid=$agent
    agent=
    end "$pid" 30 || die "lockstep attach did not end in 30 s"
    within 10 not_connected || die "$device is still there after lockstep attach ended"
}

not_connected() { [ "$(blockdev --getsize64 "$device" 2>/dev/null || echo 0)" = 0 ]; }

# serving prints the node, a or b, that the device talks to: the last one that the agent
# named.
serving() {
    local last
    last=$(grep -h 'msg=attached' "$lab/attach.log" | tail -1 || true)
    [[ $last =~ $lab/([ab])\.sock ]] || die "which node does $device talk to? $last"
    printf '%s\n' "${BASH_REMATCH[1]}"
}

# must_be_identical stops the nodes and compares the copies, byte for byte.
must_be_identical() {
    local name
    await_in_sync 60
    for name in a b w; do stop_node "$name"; done
    # Copies that were replaced are beside it, with longer names.
    cmp "$lab"/a/volumes/"$volume"-????????/data "$lab"/b/volumes/"$volume"-????????/data || die "the copies differ"
}

# kernel_errors prints what the kernel said of errors since the last `dmesg -C`: of the
# device $1 or a file system on it.
kernel_errors() {
    dmesg | grep -E "Aborting journal|I/O error.* (dev )?$1\b|$1.*(I/O error|error|lost)|EXT4-fs error|[Rr]emounting filesystem read-only|XFS.*(error|[Cc]orrupt|shut ?down)" |
        grep -Ev "block $1: (Connection timed out|Dead connection|Receive control failed|Send (control|data) failed|Other side returned error \(0\))" || true
}

# verdict prints the script's result, one line of JSON: $1, then NAME VALUE...; what is
# not a number is text.
verdict() {
    local filter="{verdict: \$verdict, seconds: $SECONDS" args=(--arg verdict "$1") n=0
    shift
    while [ $# -gt 1 ]; do
        if [[ $2 =~ ^-?[0-9]+(\.[0-9]+)?$ ]]; then
            args+=(--argjson "v$n" "$2")
        else
            args+=(--arg "v$n" "$2")
        fi
        filter+=", \"$1\": \$v$n"
        n=$((n + 1))
        shift 2
    done
    jq -nc "${args[@]}" "$filter}"
}
