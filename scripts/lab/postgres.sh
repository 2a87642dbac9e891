#!/usr/bin/env bash
# PostgreSQL on ext4 on an attached volume, while pgbench runs and the cluster is broken;
# then the database itself is killed and started again. Every transaction that
# pgbench was told to be committed must be there, and every page and index right.
#
#   scripts/vm.sh run -- scripts/lab/postgres.sh [--seconds 15] [--scale 1]
#
# pgbench is run for so long, and again until the last failure is over. The last line is JSON. Exit status: 0 all is well, 1 not.
set -euo pipefail
# shellcheck source=scripts/lab/cluster.sh
source "$(dirname "$0")/cluster.sh"

seconds=15
scale=1
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2:?} ;;
    --scale) scale=${2:?} ;;
    *) die "unknown argument '$1': --seconds N, --scale N" ;;
    esac
    shift 2
done

programs=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -1)
[ -n "$programs" ] || die "PostgreSQL is not installed: scripts/provision.sh packages"

# pg runs a program of the server as its own user.
pg() {
    local program=$1
    shift
    (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups env PGHOST="$lab/socket" PGUSER=postgres "$programs/$program" "$@")
}

query() { pg psql -X -A -t -c "$1" postgres; }

start_database() { pg pg_ctl -D "$lab/mnt/db" -l "$lab/socket/postgres.log" -w -t 120 start >/dev/null; }

new_database() {
    install -d -o postgres "$lab/socket" "$lab/mnt/db"
    chmod 755 "$lab" "$lab/mnt"
    pg initdb -D "$lab/mnt/db" --data-checksums --auth=trust --locale=C -N >"$lab/initdb.log" 2>&1 ||
        die "initdb: $(tail "$lab/initdb.log")"
    cat >>"$lab/mnt/db/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$lab/socket'
checkpoint_timeout = 30s
END
    start_database
    pg pgbench -q -i -s "$scale" postgres >"$lab/init.log" 2>&1 || die "pgbench -i: $(tail "$lab/init.log")"
}

# bench runs pgbench until the file "done" is there: how long failures take is not known
# before. -n, as it would empty the history first.
bench() {
    local run=0
    until [ -e "$lab/done" ]; do
        run=$((run + 1))
        pg pgbench -n -c 4 -j 2 -T "$seconds" --max-tries=1 postgres >"$lab/bench.$run.txt" 2>"$lab/bench.err" || return
    done
}

must_be_loaded() { kill -0 "$loading" 2>/dev/null || die "pgbench ended early: $(cat "$lab"/bench.*)"; }

# fails kills the node $1, and has it back when the database went on without.
fails() {
    local before
    must_be_loaded
    kill_node "$1"
    before=$(query "select count(*) from pgbench_history")
    within 60 went_on "$before" || die "no transaction was committed for 60 s"
    start_node "$1"
    await_in_sync 180
    failures=$((failures + 1))
}

went_on() { [ "$(query "select count(*) from pgbench_history")" -gt "$1" ]; }

new_lab
dmesg -C
start_cluster 320MiB
attach
mkfs.ext4 -q -F "$device"
mount "$device" "$lab/mnt"
say "a database of scale $scale"
new_database
failures=0
say "pgbench, through failures"
begun=$SECONDS
background bench
loading=$started
within 60 went_on 0 || die "pgbench does not begin: $(cat "$lab/bench.err")"
# A copy that a slow machine left behind cannot take over.
await_in_sync 180
fails "$(primary)"
fails "$(serving)"
must_be_loaded
lockstep handover "$volume" --to "$(other "$(primary)")" >/dev/null
touch "$lab/done"
status=0
wait "$loading" || status=$?
others=()
[ "$status" = 0 ] || die "pgbench failed: $(cat "$lab"/bench.*)"
committed=$(awk '/^number of transactions actually processed:/ { n += $6 } END { print n + 0 }' "$lab"/bench.*.txt)
[ "$committed" -gt 0 ] || die "pgbench committed nothing: $(cat "$lab"/bench.*.txt)"
tps=$((committed / (SECONDS - begun)))

say "the database is killed, and started again"
pg pg_ctl -D "$lab/mnt/db" -m immediate stop >/dev/null
umount "$lab/mnt"
mount "$device" "$lab/mnt"
start_database
present=$(query "select count(*) from pgbench_history")
[ "$present" -ge "$committed" ] || die "$committed transactions were committed, $present are there"
pg pg_amcheck --install-missing --heapallindexed postgres >"$lab/amcheck.log" 2>&1 || die "pg_amcheck: $(cat "$lab/amcheck.log")"
balance=$(query "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)")
[ "$balance" = t ] || die "the accounts do not hold what the history says"
pg pg_ctl -D "$lab/mnt/db" -m fast -w stop >/dev/null
pg pg_checksums -D "$lab/mnt/db" --check >"$lab/checksums.log" 2>&1 || die "pg_checksums: $(cat "$lab/checksums.log")"
umount "$lab/mnt"
fsck.ext4 -fn "$device" >"$lab/fsck.log" 2>&1 || die "fsck found: $(cat "$lab/fsck.log")"
detach
must_be_identical
errors=$(kernel_errors "${device#/dev/}")
[ -z "$errors" ] || die "the kernel saw errors on $device: $errors"
verdict ok committed "$committed" present "$present" tps "$tps" failovers "$failures" handovers 1
