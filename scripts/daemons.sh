# shellcheck shell=bash
# Sourced after lib.sh by scripts that run servers: a scratch directory and
# background processes, both gone when the script ends, however it ends.

dir=
pids=()

# scratch makes the directory $dir below $1.
scratch() {
    dir=$(mktemp -d "$1/lockstep.XXXXXX")
    trap stop_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# start runs the command $2... in the background and appends its output to the
# log of $1; its process id is the last of pids.
start() {
    local name=$1
    shift
    "$@" >>"$dir/$name.log" 2>&1 &
    pids+=($!)
}

# stop ends a process gently and, after 30 s, not; it fails if that was needed.
# A serve may take 5 s to give up on a replica that is gone, and its last flush and its
# replica's as long as the disk does.
stop() {
    kill "$1" 2>/dev/null || return 0
    ! ends "$1" 30 || return 0
    crash "$1"
    return 1
}

# crash ends a process as a crash would, and returns when its locks are free.
crash() {
    disown "$1" 2>/dev/null || true # the shell need not report how it ended
    kill -KILL "$1" 2>/dev/null || true
    # What waits for a disk ends after that.
    ends "$1" 60 || die "process $1 was killed and does not end: its locks are not free"
}

# ends waits until the process $1 has ended, at most for $2 seconds.
ends() {
    local until=$((SECONDS + $2))
    while kill -0 "$1" 2>/dev/null; do
        [ $SECONDS -lt "$until" ] || return 1
        sleep 0.01
    done
}

# stop_all ends every process, the latest first: a primary that flushes its
# replica at the end must find it there.
stop_all() {
    local i
    trap '' INT TERM # once is enough
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do (stop "${pids[i]}") || true; done # whatever comes of it
    rm -rf "$dir"
}

socket() { printf '%s/%s.sock' "$dir" "$1"; }

# uri is where a client finds the server $1.
uri() { printf 'nbd+unix:///vol?socket=%s' "$(socket "$1")"; }

# await returns when the server $1, started last, answers a client.
await() {
    local until=$((SECONDS + 60))
    until nbdinfo --size "$(uri "$1")" >/dev/null 2>&1; do
        kill -0 "${pids[-1]}" 2>/dev/null || die "$1 ended: $(tail -5 "$dir/$1.log")"
        [ $SECONDS -lt "$until" ] || die "$1 does not answer after 60 s: $(tail -5 "$dir/$1.log")"
        sleep 0.1
    done
}

# free_port prints a loopback port on which nobody listens.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    die "found no free port on 127.0.0.1"
}
