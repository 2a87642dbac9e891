# shellcheck shell=bash
# Sourced by the end-to-end scripts: a primary and its replica as real processes,
# fio as the client.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=scripts/daemons.sh
source "$root/scripts/daemons.sh"

size_mib=192 # fio has the first 128 MiB, the scripts the rest
replica_addr=127.0.0.1:$(free_port)
in_site_b=() # a command that runs the replica elsewhere

# start_replica returns when it listens: a primary that finds nobody pauses before it looks again.
start_replica() {
    replica_log=$(stat -c %s "$dir/replica.log" 2>/dev/null || echo 0) # where this run begins in it
    start replica "${in_site_b[@]}" "$root/bin/lockstep" replica --store="$dir/replica.img" --size="${size_mib}MiB" \
        --listen="$replica_addr"
    replica=${pids[-1]}
    replica_says "replica is listening"
}

# replica_says waits until the replica has said $1.
replica_says() {
    local until=$((SECONDS + 60))
    until [[ $(tail -c "+$((replica_log + 1))" "$dir/replica.log" 2>/dev/null) == *"$1"* ]]; do
        kill -0 "$replica" 2>/dev/null || die "replica ended: $(tail -5 "$dir/replica.log")"
        [ $SECONDS -lt "$until" ] || die "replica does not say '$1' in 60 s: $(tail -5 "$dir/replica.log")"
        sleep 0.01
    done
}

start_serve() {
    start serve "$root/bin/lockstep" serve --store="$dir/primary.img" --size="${size_mib}MiB" \
        --nbd="unix:$(socket serve)" --export=vol --replica="$replica_addr" --timeout=1s
    serve=${pids[-1]}
    await serve
}

# start_load writes for $1 seconds at a steady rate, then reads back and checks
# everything. load is its process id. fio ends when it wrote each block once.
start_load() {
    [ "$1" -le 32 ] || die "in $1 s a load writes more blocks than it has"
    start fio fio --name=load --thread --ioengine=nbd --uri="$(uri serve)" --rw=randwrite --bs=4k --iodepth=16 --size=128m \
        --rate_iops=1000 --number_ios="$(($1 * 1000))" --verify=crc32c --verify_state_save=0
    load=${pids[-1]}
}

# must_be_loaded fails if the load has ended: what follows would prove nothing.
must_be_loaded() { kill -0 "$load" 2>/dev/null || die "the load ended too early: $(tail -5 "$dir/fio.log")"; }

# finish_load waits for the load: no error may have reached it, and what it reads
# back must be what it wrote.
finish_load() {
    wait "$load" || die "the load failed: $(tail -5 "$dir/fio.log"); serve says: $(tail -5 "$dir/serve.log")"
}

# must_be_identical stops both cleanly and compares their copies byte for byte.
must_be_identical() {
    stop "$serve" || die "serve did not stop: $(tail -5 "$dir/serve.log")"
    stop "$replica" || die "replica did not stop: $(tail -5 "$dir/replica.log")"
    cmp "$dir/primary.img" "$dir/replica.img" || die "the copies differ"
}

# write_block writes 4 KiB of the byte $2 at MiB $1 and fails if that is not
# acknowledged in $3 seconds (default 60: the flush at its end is as slow as the disks).
write_block() {
    timeout "${3:-60}" qemu-io -f raw -c "write -P $2 $1M 4k" "$(uri serve)" >>"$dir/qemu-io.log" 2>&1
}

"$root/scripts/build.sh"
scratch "${TMPDIR:-/var/tmp}"
