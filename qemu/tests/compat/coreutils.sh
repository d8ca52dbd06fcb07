#!/bin/bash
# bash and most of coreutils.
set -eu
# What shells say of killed jobs has numbers in it that differ.
exec 2>/dev/null
mkdir work
cd work

echo "== bash"
declare -A count
for word in red blue red green blue red; do count[$word]=$((${count[$word]:-0} + 1)); done
for word in $(printf '%s\n' "${!count[@]}" | sort); do echo "$word ${count[$word]}"; done
text="The quick brown fox"
echo "${text,,} ${text^^} ${#text} ${text/quick/slow} ${text##* }"
[[ $text =~ q(.)i ]] && echo "matched ${BASH_REMATCH[1]}"
fib() { if (($1 < 2)); then echo "$1"; else echo $(($(fib $(($1 - 1))) + $(fib $(($1 - 2))))); fi; }
fib 7
while read -r line; do echo "read $line"; done < <(seq 3)
cat <<<"here string"
mapfile -t lines < <(seq 5)
echo "${lines[@]:1:3}"
exec 7>file7; echo seven >&7; exec 7>&-; cat file7
trap 'echo "caught"' USR1; kill -USR1 $$
(trap 'echo "exit trap"' EXIT; exit 0)
printf '%(%Y-%m-%d %H:%M:%S)T\n' 86400
{ coproc cat; } 2>/dev/null; echo to >&"${COPROC[1]}"; read -r back <&"${COPROC[0]}"; echo "coprocess $back"
kill "$COPROC_PID"; wait "$COPROC_PID" 2>/dev/null || echo "status $?"
sleep 60 & kill $!; wait $! 2>/dev/null || echo "status $?"
set +e; (set -e; false; echo never); echo "status $?"; set -e

echo "== coreutils"
seq 1 20000 | sort -R --random-source=<(yes) | sort -n | md5sum
seq 1 20000 | sort -rn | head -n 3
seq 1 1000 | factor | tail -n 2
seq 10 | paste -sd+ | tr + '\n' | tac | head -n 2
printf 'b\na\n' >one; printf 'a\nc\n' >two; join <(sort one) <(sort two); comm <(sort one) <(sort two)
seq 100 | shuf --random-source=<(yes) | wc -l
head -c 300000 /dev/zero | sha512sum
head -c 100000 /dev/zero | base64 -w 0 | wc -c
seq 1000 >lines && split -n l/4 lines part. && wc -l part.* | tail -n 1
seq 3000 | od -An -tx1 | md5sum
numfmt --to=iec 123456789
date -u -d @1000000000 '+%F %T'
basename /a/b/c.txt .txt; dirname /a/b/c.txt
mkdir -p tree/a/b tree/c; touch tree/a/f tree/c/g; ln -s ../c tree/a/link
ls -R tree; ls -l tree/a | tail -n +2 | cut -c 1-10
cp -a tree copy && rm -r tree && ls -R copy
mv copy moved; chmod -R go= moved; stat -c '%A %n' moved/a/*
dd if=/dev/zero of=zeros bs=64K count=16 status=none; stat -c %s zeros
truncate -s 5M sparse; stat -c %s sparse; cksum sparse
install -m 751 one installed; stat -c %a installed
mktemp -d found.XXXXXX >/dev/null && echo found.* | wc -w
tee a b <one >c; cat a b c | sort | uniq -c
ln a hard; stat -c %h a; basename "$(readlink -f moved/a/link)"
timeout 0.2 sleep 60 || echo "timeout $?"
nproc >/dev/null && echo "counted"
id -u; test -w . && echo writable
cat missing 2>&1 || echo "status $?"
yes | head -n 100000 | wc -l
expr 6 '*' 7; printf '%05.2f|%x|%q\n' 3.14159 255 "a b"
env -i A=1 env
echo done
