#!/usr/bin/env bash
# Builds the root disk, kernel and initrd of scripts/vm.sh out of Debian packages, once, and
# prints the directory that they are in. Its name is a digest of everything here that they are
# made from, so that a change makes a new one. packages.txt in it lists what was installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"

here=$root/scripts/vm
suite=bookworm
mirror=${LOCKSTEP_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${LOCKSTEP_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
disk_size=3G
# Every machine of the lab has the packages of provision.sh; a VM needs a kernel and an init as well.
own=(linux-image-cloud-amd64 systemd-sysv udev dbus busybox-static)
# What the initrd loads to reach the root disk, and the ports that a command's output goes to.
modules=(virtio_pci virtio_blk virtio_console ext4)

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/vm

packages() { printf '%s\n' "${own[@]}" && "$root/scripts/provision.sh" packages --list; }

digest() {
    { cat "$0" "$here/initrd-init" && packages; } | sha256sum | cut -c1-16
}

install_root() {
    local names
    names=$(packages | sort -u | paste -sd,)
    # No documentation, no translations, no services started; the same clock for every build.
    # shellcheck disable=SC2016 # $1 is for the hooks' own shell
    SOURCE_DATE_EPOCH=1735689600 mmdebstrap --quiet --variant=minbase --include="$names" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/modules/*/kernel/drivers/gpu/*' \
        --aptopt='APT::Install-Recommends "false"' \
        --essential-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/postgresql-common"; echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"' \
        "$suite" "$build/root" \
        "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main"
    rm -f "$build/root/usr/sbin/policy-rc.d"
}

# settle makes what is the same on every machine of the lab.
settle() {
    local r=$build/root
    echo lockstep-vm >"$r/etc/hostname"
    printf '127.0.0.1 localhost lockstep-vm\n' >"$r/etc/hosts"
    : >"$r/etc/machine-id"
    mkdir -p "$r/lockstep" "$r/out" "$r/etc/modprobe.d"
    # DRBD would call a helper of user space at every event; devices come by name, all at once.
    echo 'options drbd usermode_helper=/bin/true' >"$r/etc/modprobe.d/lockstep.conf"
    # shellcheck disable=SC2016 # dpkg-query's own
    chroot "$r" dpkg-query -W -f '${Package} ${Version}\n' >"$build/packages.txt"
}

make_initrd() {
    local r=$build/root i=$build/initrd.d version module file
    version=$(basename "$r"/lib/modules/*)
    mkdir -p "$i/bin" "$i/modules" "$i/root" "$i/proc" "$i/dev"
    cp "$r/bin/busybox" "$i/bin/"
    install -m 755 "$here/initrd-init" "$i/init"
    for module in "${modules[@]}"; do
        modprobe --show-depends -d "$r" -S "$version" "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' >"$build/wanted"
    while read -r file; do
        file=${file#"$r"}
        cp "$r/$file" "$i/modules/"
        basename "$file"
    done <"$build/wanted" >"$i/modules/order"
    (cd "$i" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc --reproducible -R 0:0) | gzip -1n >"$build/initrd"
    cp "$r/boot/vmlinuz-$version" "$build/vmlinuz"
}

make_disk() {
    rm -rf "$build/root/boot" "$build/root/var/cache/apt"/* "$build/root/var/lib/apt/lists"/*
    truncate -s "$disk_size" "$build/root.ext4"
    E2FSPROGS_FAKE_TIME=1735689600 mke2fs -q -t ext4 -O ^has_journal -U 6c6f636b-7374-6570-2d76-6d2d726f6f74 \
        -E hash_seed=6c6f636b-7374-6570-2d76-6d2d73656564,lazy_itable_init=1 -d "$build/root" "$build/root.ext4"
}

want=$cache/$(digest)
if [ ! -d "$want" ]; then
    [ "$(id -u)" = 0 ] || die "building the image needs root, once: sudo env PATH=\"\$PATH\" HOME=\"\$HOME\" scripts/vm.sh image"
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9 # two that start at once build one image
fi
if [ ! -d "$want" ]; then
    say "building the image of the machines from Debian packages, about a minute" >&2
    build=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$build"' EXIT
    install_root >&2
    settle
    make_initrd
    make_disk
    rm -rf "$build/root" "$build/initrd.d" "$build/wanted"
    chmod 755 "$build"
    mv "$build" "$want"
fi
# Another tree may use another one. Whoever may not do this leaves it to root.
touch "$want" 2>/dev/null || true
find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} + 2>/dev/null || true
echo "$want"
