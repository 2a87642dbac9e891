# shellcheck shell=bash
# Sourced by bench.sh: how each target is started, and where it listens.
# shellcheck disable=SC2154 # size_mib is bench.sh's, the rest lib.sh's and daemons.sh's

# prepare makes one copy of the volume. All are filled alike, in 4 KiB writes: how
# a file was filled decides the size of its page cache folios, and so the cost of
# a small write to it (1 us or 18 us).
prepare() { dd if="$dir/seed" of="$1" bs=4k status=none; }

start_nbdkit() {
    prepare "$dir/nbdkit"
    start nbdkit nbdkit --foreground --unix "$(socket nbdkit)" file "$dir/nbdkit"
}

start_quorum() {
    local port
    port=$(free_port)
    prepare "$dir/quorum-local"
    prepare "$dir/quorum-remote"
    start quorum qemu-nbd --format=raw --cache=writeback --persistent --shared=0 \
        --bind=127.0.0.1 --port="$port" --export-name=remote "$dir/quorum-remote"
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "${pids[-1]}" 2>/dev/null || die "qemu-nbd ended: $(tail -5 "$dir/quorum.log")"
        sleep 0.1
    done
    # fifo: a read asks the local copy only, as lockstep's does.
    start quorum qemu-storage-daemon \
        --blockdev "driver=file,node-name=local,filename=$dir/quorum-local" \
        --blockdev "driver=nbd,node-name=remote,server.type=inet,server.host=127.0.0.1,server.port=$port,export=remote" \
        --blockdev driver=quorum,node-name=both,vote-threshold=2,read-pattern=fifo,children.0=local,children.1=remote \
        --nbd-server "addr.type=unix,addr.path=$(socket quorum)" \
        --export type=nbd,id=bench,node-name=both,name=vol,writable=on
}

start_lockstep() { start_pair lockstep; }

start_lockstep_poll() { start_pair lockstep-poll --poll=100us; }

# start_pair starts a primary and its replica for target $1, both with the flags $2...
start_pair() {
    local target=$1 port
    shift
    port=$(free_port)
    prepare "$dir/$target-primary"
    prepare "$dir/$target-replica"
    start "$target" "$root/bin/lockstep" replica --overwrite --store="$dir/$target-replica" --size="${size_mib}MiB" \
        --listen="127.0.0.1:$port" "$@"
    start "$target" "$root/bin/lockstep" serve --store="$dir/$target-primary" --size="${size_mib}MiB" \
        --nbd="unix:$(socket "$target")" --export=vol --replica="127.0.0.1:$port" "$@"
}

# start_lockstep_cluster starts nodes a, b and the witness w, and fills a volume that
# a and b have copies of through a, the way that the other targets' files are filled.
start_lockstep_cluster() {
    local cluster ports=()
    ports=("$(free_port)" "$(free_port)" "$(free_port)")
    cluster=a=127.0.0.1:${ports[0]},b=127.0.0.1:${ports[1]},w=127.0.0.1:${ports[2]}
    start lockstep-cluster "$root/bin/lockstep" node --name=a --data="$dir/cluster-a" \
        --listen="127.0.0.1:${ports[0]}" --cluster="$cluster" --nbd="unix:$(socket lockstep-cluster)"
    start lockstep-cluster "$root/bin/lockstep" node --name=b --data="$dir/cluster-b" \
        --listen="127.0.0.1:${ports[1]}" --cluster="$cluster" --nbd="unix:$dir/cluster-b.sock"
    start lockstep-cluster "$root/bin/lockstep" node --name=w --data="$dir/cluster-w" \
        --listen="127.0.0.1:${ports[2]}" --cluster="$cluster" --witness
    until "$root/bin/lockstep" volume create vol --size="${size_mib}MiB" --on=a,b --admin="$dir/cluster-a/admin.sock" &>/dev/null; do
        kill -0 "${pids[-1]}" 2>/dev/null || die "a node ended: $(tail -5 "$dir/lockstep-cluster.log")"
        sleep 0.2
    done
    until "$root/bin/lockstep" status vol --json --admin="$dir/cluster-a/admin.sock" |
        jq -e '.volumes[0] | .primary == "a" and ([.replicas[].in_sync] | all)' >/dev/null; do
        sleep 0.2
    done
    nbdcopy --request-size=4096 --connections=1 "$dir/seed" "nbd+unix:///vol?socket=$(socket lockstep-cluster)"
}
