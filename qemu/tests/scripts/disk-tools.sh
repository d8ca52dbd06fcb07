# Debian's programs on a disk: what they say of it, and bytes there and back.
# Arguments: seconds of load, name of the disk, name of another for speed.
set -eu
disk=/dev/$2

echo "device: $(stat -c '%F %t:%T %s %a' $disk)"
echo "bytes: $(blockdev --getsize64 $disk)"
echo "sectors: $(blockdev --getsz $disk) $(cat /sys/block/$2/size)"
echo "blocks: $(blockdev --getss $disk) $(blockdev --getpbsz $disk) $(blockdev --getro $disk)"
echo "partitions:" $(tail -n +3 /proc/partitions)

# A file to 8 MiB, through whole and partial blocks, and back.
size=$(stat -L -c %s /data)
dd if=/data of=$disk bs=64k seek=128 conv=notrunc,fsync status=none
dd if=/data of=$disk bs=1000 seek=16777300 conv=notrunc,fsync oflag=seek_bytes status=none
dd if=$disk bs=1000 skip=16777300 iflag=skip_bytes,fullblock count=3 status=none >/tmp/part
[ "$(sha256sum </tmp/part)" = "$(head -c 3000 /data | sha256sum)" ]
echo "checksum: $(dd if=$disk bs=64k skip=128 iflag=fullblock status=none | head -c "$size" | sha256sum)"

# Past the cache: aligned is taken, unaligned refused.
dd if=$disk of=$disk bs=1M skip=8 seek=24 count=1 iflag=direct oflag=direct conv=notrunc status=none
dd if=$disk of=/dev/null bs=1000 count=1 iflag=direct status=none 2>&1 | tail -n 1
# The end is the end.
dd if=/dev/zero of=$disk bs=4096 seek=8191 count=2 conv=notrunc status=none 2>&1 | tail -n 1
blockdev --flushbufs $disk
disk load $disk "$1"
disk speed /dev/$3
