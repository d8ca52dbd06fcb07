# find, grep, sed and gawk over a tree of files.
set -eu
mkdir -p tree/{a,b/c,d}/e
for i in $(seq 1 40); do
    printf 'line %d of file %d\nkey=%d\n\tindented %s\n' 1 "$i" $((i * i)) "$(printf '%x' "$i")" >"tree/a/e/f$i.txt"
done
seq 1 5000 >tree/b/numbers
printf 'Ärger\nÖl\nstraße\n' >tree/d/unicode
ln -s ../b/numbers tree/d/link
touch -d '2001-01-01 UTC' tree/d/old
chmod 640 tree/d/old

echo "== find"
find tree -type d | sort
find tree -name 'f1?.txt' -size -2k -newer tree/d/old | sort
find tree -perm 640 -printf '%p %m %s %TY\n'
find tree -type l -printf '%p -> %l\n'
find tree -name 'f*.txt' -print0 | sort -z | xargs -0 -n 10 -P 4 cat | sort | md5sum
find tree/a -type f -exec grep -l 'key=1600' {} +
find tree -maxdepth 2 -mindepth 2 -type d -empty | sort
find tree/b -regex '.*/num.*' -delete -print
seq 1 5000 >tree/b/numbers

echo "== grep"
grep -c . tree/b/numbers
grep -rn 'key=[0-9]*9$' tree | sort
grep -oP '(?<=key=)\d{3}$' tree/a/e/f2?.txt | sort
grep -vE '[1-8]' tree/b/numbers | paste -sd ' '
grep -i 'STRASSE\|öl' tree/d/unicode
grep -q nothing tree/b/numbers || echo "status $?"
grep -A1 -B1 -m1 '^2500$' tree/b/numbers

echo "== sed"
sed -n '10,20p;30q' tree/b/numbers | paste -sd ' '
sed -E 's/(.*) of (.*)/\2 has \1/;/indented/d' tree/a/e/f7.txt
sed -i.bak 's/key/schlüssel/' tree/a/e/f1.txt && cat tree/a/e/f1.txt tree/a/e/f1.txt.bak
seq 6 | sed 'N;N;s/\n/,/g'
seq 3 | sed '1!G;h;$!d'
sed -s -n '$=' tree/a/e/f2.txt tree/b/numbers

echo "== gawk"
gawk '{ sum += $1 } END { print NR, sum, sum / NR }' tree/b/numbers
gawk -F= '/key/ { k[FILENAME] = $2 } END { n = asorti(k, order); for (i = 1; i <= n; i += 10) print order[i], k[order[i]] }' tree/a/e/f*.txt
gawk 'BEGIN { while (("seq 3" | getline x) > 0) print "got", x; close("seq 3"); print toupper("straße"), length("straße") }'
gawk 'BEGIN { print "c\nb\na" | "sort"; close("sort"); printf "%5.2f|%-5s|%05d\n", 3.14159, "ab", 42 }'
gawk 'BEGIN { print strftime("%Y-%m-%d", 86400, 1); print gensub(/(a)(b)/, "\\2\\1", "g", "abab") }'
gawk 'BEGIN { cmd = "sort -n"; print "10\n9\n1" |& cmd; close(cmd, "to"); while ((cmd |& getline l) > 0) print "co", l }'
gawk --non-decimal-data 'BEGIN { srand(1); r = rand(); print (r >= 0 && r < 1), 0x1f, xor(5, 3), int(-3.7) }'
