#!/bin/sh
# Run by busybox's shell on a node and on the host; both must print the same.
# shellcheck shell=dash
set -eu
# What shells say of killed jobs has numbers in it that differ.
exec 2>/dev/null
b=/bin/busybox
$b mkdir work
cd work

echo "== text"
$b seq 1 200 | $b awk '{ s += $1; if ($1 % 50 == 0) print $1, s }'
$b printf 'b 2\na 1\nc 3\n' | $b sort | $b tr a-z A-Z | $b sed 's/ /=/'
$b seq 1 5000 | $b md5sum
$b seq 1 5000 | $b sha256sum
$b printf 'one two three' | $b wc
$b seq 1 100 | $b grep -c 7
$b printf '%s\n' x y x z x | $b sort | $b uniq -c
$b seq 1 20 | $b head -n 7 | $b tail -n 3
$b printf 'a,b,c\n' | $b cut -d , -f 2
$b seq 1 6 | $b xargs -n 2 echo pair
echo hello | $b rev

echo "== files"
$b mkdir -p deep/er/still
$b seq 1 3000 >deep/er/numbers
$b cp deep/er/numbers deep/copy
$b cmp deep/er/numbers deep/copy && echo same
$b ln -s er/numbers deep/link
$b readlink deep/link
$b ln deep/copy deep/hard
$b stat -c '%h %s %a' deep/copy
$b chmod 640 deep/copy
$b stat -c '%a %F' deep/copy
$b mv deep/hard deep/moved
$b find deep | $b sort
$b du -a deep >/dev/null && echo counted
$b dd if=deep/copy of=piece bs=100 skip=3 count=2 2>/dev/null && $b wc -c <piece
$b truncate -s 100000 sparse && $b wc -c <sparse
$b touch -d '2020-02-02 02:02:02' old && $b stat -c %Y old
$b cat missing 2>&1 || echo "status $?"
$b tar -c deep | $b gzip -9 | $b gunzip | $b tar -t | $b sort
$b seq 1 4000 >big && $b gzip big && $b zcat big.gz | $b sha1sum
$b diff deep/er/numbers deep/copy && echo no difference
$b mkfifo pipe && { echo through >pipe & } && $b cat pipe && wait

echo "== processes"
(exit 3) || echo "status $?"
$b sh -c 'kill -9 $$' || echo "status $?"
for signal in TERM USR1 HUP; do
    $b sh -c "trap 'echo caught $signal; exit 5' $signal; while :; do $b sleep 0.05; done" &
    $b sleep 0.5
    kill -$signal $!
    wait $! || echo "status $?"
done
$b seq 1 20 | while read -r n; do (exit "$n") & wait $! || s=$((${s:-0} + $?)); echo "${s:-0}"; done | $b tail -n 1
i=0
while [ $i -lt 60 ]; do $b true; i=$((i + 1)); done
echo "$i children"
$b timeout 0.2 $b sleep 60 || echo "timeout $?"
$b env -i A=1 $b env
echo "umask $(umask)"
echo done
