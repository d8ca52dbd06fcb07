#!/bin/bash
# Fills the disk, and then the memory, of a capsule that has to go on.
set -u
last() { echo "$1: ${out##*: }"; }
touch sparse old
truncate -s 1G sparse
echo "free before: $(($(stat -fc %a .) > 5000))"
out=$(dd if=/dev/zero of=fill bs=64K 2>&1)
echo "dd $? $(grep -o 'No space left on device' <<<"$out")"
# What dd had for itself is room for files again; the shell takes it all.
while printf '%65536s' >>fill; do :; done 2>/dev/null
echo "free: $(stat -fc %a .), as df says: $(df --output=avail . | tail -n 1 | tr -d ' ')"
echo "used as du says: $(($(df --output=used . | tail -n 1) - $(du -s . | cut -f 1)))"
out=$(mkdir dir 2>&1) || last mkdir
out=$(ln -s old link 2>&1) || last symlink
out=$({ echo text >new; } 2>&1) || last create
out=$({ echo text >>old; } 2>&1) || last append
out=$(dd if=/dev/zero of=sparse bs=4K seek=100 count=1 conv=notrunc 2>&1 | head -n 1) && last sparse
# Programs have memory: they start, sort, and find files of the image.
seq 2000 | sort -rn | head -n 1
ls /usr/bin | wc -l | tr -d '0-9'
mv old older && rm fill && mkdir dir && echo back >dir/new && cat dir/new
dd if=/dev/zero of=again bs=1M count=16 status=none && stat -c %s again
rm again
# One program takes more memory than there is; it is killed, and nobody else.
hog() { { dd if=/dev/zero of=/dev/null bs=200M count=1 status=none; echo "status $?"; } 2>/dev/null; }
hog
# Files that are in the way of programs stay.
dd if=/dev/zero of=fill bs=64K count=400 status=none
hog
stat -c %s fill
