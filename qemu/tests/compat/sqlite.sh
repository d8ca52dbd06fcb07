# The sqlite3 shell: WAL, many writers, and a writer killed in the middle.
set -eu
# What bash says of killed jobs has numbers in it that differ.
exec 2>/dev/null
sqlite3 base 'pragma journal_mode=wal; create table t(id integer primary key, who text, n int);'
writer() {
    for n in $(seq 1 20); do
        sqlite3 base -cmd '.timeout 60000' "begin immediate; insert into t(who, n) values('$1', $n); commit;"
    done
}
for who in a b c d; do writer $who & done
wait
sqlite3 base 'select who, count(*), sum(n) from t group by who order by who; pragma integrity_check;'
printf 'touch begun\nexec sleep 100\n' >hold
sqlite3 base -cmd '.timeout 60000' >/dev/null <<'S' &
begin immediate;
insert into t(who, n) values('lost', 1);
.shell sh hold
commit;
S
while [ ! -e begun ]; do sleep 0.01; done
kill -9 $!
pkill -9 -x sleep
sqlite3 base -cmd '.timeout 60000' "insert into t(who, n) values('after', 1); select count(*), sum(who = 'lost') from t; pragma integrity_check;"
sqlite3 base <<'S'
create index by_who on t(who, n);
explain query plan select * from t where who = 'a' and n > 5;
with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000) insert into t(who, n) select 'many', x from c;
select count(*), avg(n) from t where who = 'many';
create virtual table words using fts5(text);
insert into words values('the node heals itself'), ('capsules are signed');
select text from words where words match 'signed';
select json_extract('{"a":[1,2,3]}', '$.a[2]'), hex(zeroblob(4)), printf('%.3f', 2.0 / 3);
delete from t where who = 'many';
vacuum;
pragma wal_checkpoint(truncate);
.dump words_config
S
# Writers took turns in an order of their own, so numbers of rows differ.
sqlite3 base .dump | sed 's/VALUES([0-9]*,/VALUES(/' | sort | md5sum
stat -c %s base-wal 2>/dev/null || echo "no log is left"
sqlite3 base ".backup copy" && sqlite3 copy 'select count(*) from t'
sqlite3 base "pragma journal_mode=delete; pragma mmap_size=1000000; select count(*) from t;"
