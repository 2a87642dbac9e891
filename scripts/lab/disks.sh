# shellcheck shell=bash
# Sourced instead of cluster.sh by scripts whose nodes have disks of their own, between
# which and the file system the device mapper is: to log writes, or to fail.
# shellcheck source=scripts/lab/cluster.sh
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

disks=() # names of device-mapper devices

# dm is dmsetup that does not wait for udev, which may not be there; then there is no
# /dev/mapper either.
dm() { dmsetup --noudevsync "$@"; }

# device_of prints the file of the device $1.
device_of() { printf '/dev/%s\n' "$(dmsetup info -c --noheadings -o blkdevname "$1")"; }

# new_disk makes the device $1 of $2 MiB, as yet a plain disk.
new_disk() {
    local loop
    truncate -s "$2M" "$lab/$1.img"
    loop=$(losetup -f --show "$lab/$1.img")
    printf '%s\n' "$loop" >"$lab/$1.loop"
    dm create "$1" --table "$(linear "$1")"
    disks+=("$1")
}

loop_of() { cat "$lab/$1.loop"; }

linear() { printf '0 %s linear %s 0\n' "$(blockdev --getsz "$(loop_of "$1")")" "$(loop_of "$1")"; }

# become makes the device $1 another one, $2, at once: what is in flight ends first, but
# nothing is flushed.
become() {
    dm suspend --nolockfs --noflush "$1"
    dm load "$1" --table "$2"
    dm resume "$1"
}

# make_fs puts ext4 on the device $1. Nothing is left to be initialized later.
make_fs() {
    mkfs.ext4 -q -F -J size=4 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$(device_of "$1")"
}

# remove_disk takes the device $1 away; what it holds stays in $lab/$1.img.
remove_disk() {
    within 10 dm remove "$1" || die "device $1 cannot be removed"
    losetup -d "$(loop_of "$1")"
    rm "$lab/$1.loop"
}

# clean_disks takes away whatever there is, when the script ends.
clean_disks() {
    local name
    for name in a b w; do ! mountpoint -q "$lab/$name" || umount "$lab/$name" || umount -l "$lab/$name"; done
    for name in "${disks[@]}"; do
        [ -e "$lab/$name.loop" ] || continue
        dm remove --retry "$name" || dm remove --force "$name"
        losetup -d "$(loop_of "$name")"
    done
}
