#!/bin/bash
# Runs a command in the files of an image, on this machine's own Linux: what it
# prints is what a node must print. Nothing of it reaches the machine: processes,
# mounts, the network and shared memory are in namespaces of their own.
#
#   host.sh FILES SCRIPT COMMAND...
#
# FILES is the folder that `skep unpack` wrote, or several with `:` between them, of
# which the first lies over the others; they are not changed. With HOST_NETWORK=1 the
# command has this machine's network, to reach a node.
set -eu
if [ "${1-}" != inside ]; then
    map=
    if [ "$(id -u)" != 0 ]; then
        # Servers change to users of their own, so one user is not enough.
        command -v newuidmap >/dev/null || { echo "run this as root, or install uidmap" >&2; exit 1; }
        map="--map-root-user --map-auto"
    fi
    command -v ip >/dev/null || { echo "ip is missing: install iproute2" >&2; exit 1; }
    network=--net
    [ "${HOST_NETWORK-}" != 1 ] || network=
    exec unshare $map --mount --pid --ipc --uts $network --fork --kill-child "$0" inside "$@"
fi
shift
files=$1 script=$2
shift 2
work=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$files,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"
mkdir -p proc sys dev tmp
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys 2>/dev/null || mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm dev/mqueue
mount -t mqueue mqueue dev/mqueue
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
cp "$script" script
chmod 755 script
[ "${HOST_NETWORK-}" = 1 ] || ip link set lo up
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 TZ=UTC TMPDIR=/tmp \
    unshare --root=. --wd=/tmp "$@" </dev/null 2>&1
