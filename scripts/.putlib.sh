#!/usr/bin/env bash
# Makes a Debian or Ubuntu machine a node of a lockstep cluster: the machines of the
# Vagrantfile, of the VM lab, or yours. Each step may be repeated: it changes only
# what is not as it should be.
#
#   scripts/provision.sh packages [--list]
#   scripts/provision.sh install [--binary FILE]
#   scripts/provision.sh configure --name NAME --cluster NAME=IP:PORT,... [--witness]
#   scripts/provision.sh node [--no-wait]
#   scripts/provision.sh attach VOLUME [--device /dev/nbdN]
#
# packages   installs, by apt, what the lab's machines need: the tools that attach,
#            load, break and compare. --list prints their names and does nothing.
# install    puts bin/lockstep (or FILE) and the systemd units in place. A node that
#            runs is restarted if they changed.
# configure  writes /etc/lockstep/node.json and attach.env; the cluster is the same list
#            at each machine. A running node is restarted if they changed.
#   --witness            this node votes, and has no data
#   --witnesses NAME,... those of the cluster (default: w); the others serve NBD, on
#                        /run/lockstep/nbd.sock for their own machine and, for one
#                        whose own node is lost, on their address
#   --nbd-port PORT      of that, the same at each machine (default 10809)
# node       starts the node, now and at each boot, and waits until the cluster has a
#            leader: for that most of its voters must run, the first time all of them.
#   --no-wait            do not: the others are started later
# attach     makes VOLUME a block device, now and at each boot, and waits for it.
#   --device /dev/nbdN   which one (default: /dev/nbd0). It has to be said, so that an
#                        agent that died finds its device again
#
# Example: the first of three machines, as root
#
#   C=a=10.0.0.1:7801,b=10.0.0.2:7801,w=10.0.0.3:7801
#   scripts/provision.sh packages
#   scripts/provision.sh install
#   scripts/provision.sh configure --name a --cluster "$C"
#   scripts/provision.sh node
#   lockstep volume create vol --size 1GiB --on a,b     # once all three are there
#   scripts/provision.sh attach vol --device /dev/nbd0
#
# Exit status: 0 done, 1 it failed, 2 it was asked wrongly.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# One a line, and what it is for. The image of scripts/vm.sh is built from the same list.
lab_packages=(
    fio                # load, and reading back what was written
    nbd-client         # the kernel's NBD client by its usual name
    libnbd-bin         # nbdinfo, nbdcopy
    nbdkit             # an NBD server to compare with
    qemu-utils         # qemu-img, qemu-io, qemu-nbd
    qemu-system-common # qemu-storage-daemon and its quorum, as a peer
    drbd-utils         # DRBD, as a peer
    mdadm              # RAID-1 over NBD, as a peer
    e2fsprogs          # ext4
    xfsprogs           # xfs
    postgresql         # a database, with pgbench
    dmsetup            # dm-flakey, dm-log-writes
    iproute2           # links and their delays
    iputils-ping       # their round trips
    ethtool            # their offloads
    kmod               # nbd, sch_netem and drbd are modules
    procps             # ps, sysctl
    jq                 # results are JSON
)

conf=/etc/lockstep
data=/var/lib/lockstep
socket=/run/lockstep/nbd.sock
units=/etc/systemd/system
binary=/usr/local/bin/lockstep

usage() { sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# misuse says what is wrong with the arguments, and where they are explained.
misuse() {
    printf '%s: %s (see --help)\n' "${0##*/}" "$*" >&2
    exit 2
}

must_be_root() { [ "$(id -u)" = 0 ] || die "$1 changes the machine: run it as root"; }

packages() {
    case ${1-} in
    --list)
        printf '%s\n' "${lab_packages[@]}"
        return
        ;;
    '') must_be_root packages ;;
    *) misuse "packages: unknown argument '$1'" ;;
    esac
    local missing=() package
    for package in "${lab_packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    # A database server that starts at each boot is no part of a lab.
    put 644 /etc/postgresql-common/createcluster.conf <<<"create_main_cluster = false"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    "${apt[@]}" update || die "apt-get update failed, see above"
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}, see above"
}

changed= # set by put

# put makes the file $2 with the mode $1 what it is given, as a whole or not at all, and
# says in $changed whether anything had to be done. It ends the script if it cannot, also
# where set -e is off.
put() {
    local new
    changed=
    install -d "$(dirname "$2")" || die "cannot make the directory of $2"
    new=$(mktemp "$2.XXXXXX") || die "cannot write beside $2"
    cat >"$new" || { rm -f "$new"; die "cannot write $2: it is as it was"; }
    chmod "$1" "$new" || { rm -f "$new"; die "cannot write $2: it is as it was"; }
    if cmp -s "$new" "$2" && [ "$(stat -c %a "$2")" = "$1" ]; then
        rm "$new" || die "cannot remove $new"
        return
    fi
    mv "$new" "$2" || { rm -f "$new"; die "cannot write $2: it is as it was"; }
    changed=1
}

# renew restarts a node that runs: what it runs with has changed. In an image that is
# only being built nothing runs.
renew() {
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    ! systemctl -q is-active lockstep-node || systemctl restart lockstep-node
}

install_files() {
    local from=$root/bin/lockstep unit version any=
    while [ $# -gt 0 ]; do
        case $1 in
        --binary)
            [ $# -gt 1 ] || misuse "install: --binary wants a file"
            from=$2
            shift 2
            ;;
        *) misuse "install: unknown argument '$1'" ;;
        esac
    done
    must_be_root install
    [ -f "$from" ] || die "$from is missing: build it first, where Go is, with scripts/build.sh"
    "$from" version >/dev/null || die "$from does not run on this machine: is it built for $(uname -m)?"
    put 755 "$binary" <"$from"
    any+=$changed
    for unit in "$root"/scripts/systemd/*.service; do
        put 644 "$units/${unit##*/}" <"$unit"
        any+=$changed
    done
    put 644 /etc/modules-load.d/lockstep.conf <<<nbd
    version=$("$binary" version) || die "$binary does not run"
    [ -z "$any" ] || renew
    say "${version%%$'\n'*} is installed"
}

# address prints where the node $2 of the cluster $1 listens.
address() {
    local peer
    for peer in ${1//,/ }; do
        [ "${peer%%=*}" != "$2" ] || { printf '%s\n' "${peer#*=}"; return; }
    done
    return 1
}

# nbd_nodes prints where NBD is served, this machine's own node first: the witnesses
# serve none.
nbd_nodes() {
    local name=$1 cluster=$2 witnesses=$3 port=$4 peer list=
    case ,$witnesses, in *,"$name",*) ;; *) list=unix:$socket ;; esac
    for peer in ${cluster//,/ }; do
        case ,$name,$witnesses, in *,"${peer%%=*}",*) continue ;; esac
        peer=${peer#*=}
        list+=${list:+,}tcp:${peer%:*}:$port
    done
    printf '%s\n' "$list"
}

configure() {
    local name='' cluster='' witness=false witnesses=w nbd_port=10809 here any=
    while [ $# -gt 0 ]; do
        case $1 in
        --witness) witness=true && shift && continue ;;
        --name | --cluster | --witnesses | --nbd-port) [ $# -gt 1 ] || misuse "configure: $1 wants a value" ;;
        *) misuse "configure: unknown argument '$1'" ;;
        esac
        case $1 in
        --name) name=$2 ;;
        --cluster) cluster=$2 ;;
        --witnesses) witnesses=$2 ;;
        --nbd-port) nbd_port=$2 ;;
        esac
        shift 2
    done
    [[ $name =~ ^[A-Za-z0-9._-]+$ ]] || misuse "configure: --name is this node's: letters, digits, dots, dashes"
    [[ $nbd_port =~ ^[0-9]+$ ]] || misuse "configure: --nbd-port $nbd_port is no port"
    [[ $cluster =~ ^[A-Za-z0-9._-]+=[^,=\"\\]+:[0-9]+(,[A-Za-z0-9._-]+=[^,=\"\\]+:[0-9]+)*$ ]] ||
        misuse "configure: --cluster '$cluster' is not NAME=IP:PORT,NAME=IP:PORT,..."
    here=$(address "$cluster" "$name") || misuse "configure: --cluster '$cluster' does not have this node, $name"
    [ "$witness" = false ] || witnesses+=,$name
    must_be_root configure

    local nbd='[]'
    [ "$witness" = true ] || nbd="[\"unix:$socket\", \"tcp:${here%:*}:$nbd_port\"]"
    put 600 "$conf/node.json" <<END
{"name": "$name", "listen": "$here", "witness": $witness, "nbd": $nbd,
 "cluster": ["${cluster//,/\", \"}"]}
END
    any=$changed
    put 644 "$conf/attach.env" <<END
# Where lockstep-attach@VOLUME finds the volume: the first that answers serves it.
NODES=$(nbd_nodes "$name" "$cluster" "$witnesses" "$nbd_port")
END
    [ -z "$any" ] || renew
    say "node $name of $cluster is configured"
}

# has_leader reports whether the node here can have something decided.
has_leader() { [ -n "$("$binary" cluster list --admin "$data" --json 2>/dev/null | jq -r '.group.leader // ""')" ]; }

node() {
    local wait=1
    case ${1-} in
    --no-wait) wait= ;;
    '') ;;
    *) misuse "node: unknown argument '$1'" ;;
    esac
    must_be_root node
    [ -f "$conf/node.json" ] || die "$conf/node.json is missing: configure first"
    systemctl enable --quiet --now lockstep-node ||
        die "the node did not start: $(journalctl -u lockstep-node -n 5 --no-pager -o cat)"
    [ -n "$wait" ] || return 0
    for _ in {1..120}; do
        if has_leader; then
            say "the node runs, and the cluster has a leader"
            return
        fi
        sleep 0.5
    done
    die "the cluster has no leader after 60 s: do most of its voters run? (lockstep cluster list --admin $data)"
}

attach() {
    local volume=${1-} device=/dev/nbd0
    [[ $volume =~ ^[A-Za-z0-9._-]+$ ]] || misuse "attach: which volume?"
    shift
    case ${1-} in
    --device)
        device=${2-}
        [[ $device =~ ^/dev/nbd[0-9]+$ ]] || misuse "attach: --device wants /dev/nbdN"
        ;;
    '') ;;
    *) misuse "attach: unknown argument '$1'" ;;
    esac
    must_be_root attach
    [ -f "$conf/attach.env" ] || die "$conf/attach.env is missing: configure first"
    put 644 "$conf/attach-$volume.env" <<<"OPTIONS=--device $device"
    if [ -n "$changed" ] && systemctl -q is-active "lockstep-attach@$volume"; then
        systemctl restart "lockstep-attach@$volume" ||
            die "volume $volume was not attached anew; is it still mounted? $(journalctl -u "lockstep-attach@$volume" -n 5 --no-pager -o cat)"
    fi
    systemctl enable --quiet --now "lockstep-attach@$volume" ||
        die "volume $volume was not attached: $(journalctl -u "lockstep-attach@$volume" -n 5 --no-pager -o cat)"
    say "volume $volume is attached as $device"
}

