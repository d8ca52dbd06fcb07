#!/bin/sh
# Prints the same on Skep and on Linux.
set -eu
cd /tmp
printf '%s\n' pear apple fig apple >fruits
echo "different: $(sort -u fruits | wc -l)"
sort fruits | uniq -c | awk '{ print $2 "=" $1 }'
seq 1 1000 | md5sum
mkdir -p a/b && echo deep >a/b/c && find a -type f -exec cat '{}' ';'
tar -c a | gzip | gunzip | tar -t
for signal in TERM USR1; do
    (trap 'echo "caught"; exit 0' "$signal"; while :; do sleep 1; done) &
    child=$!
    sleep 1
    kill -"$signal" "$child"
    wait "$child"
done
rm -r a fruits
echo done
