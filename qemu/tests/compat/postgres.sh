# PostgreSQL: a cluster, SQL, pgbench, and recovery after its postmaster was killed.
set -eu
# The release's own version.
for bin in /usr/lib/postgresql/*/bin; do :; done
export PATH=$bin:$PATH PGDATA=$TMPDIR/data PGHOST=$TMPDIR PGUSER=postgres LC_ALL=C
# What the package's installation script does.
grep -q ^postgres: /etc/passwd || echo 'postgres:x:90:90::/tmp:/bin/bash' >>/etc/passwd
grep -q ^postgres: /etc/group || echo 'postgres:x:90:' >>/etc/group
mkdir "$PGDATA"
chown postgres: "$PGDATA" "$TMPDIR"
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as initdb -A trust -E UTF8 >init.log || { cat init.log; exit 1; }
start() {
    as pg_ctl -w -t 120 -l "$TMPDIR/log" -o "-k $TMPDIR -p 5432 -c listen_addresses=127.0.0.1" start >/dev/null ||
        { cat "$TMPDIR/log"; exit 1; }
}
start
psql -qAt <<'S'
create table people(id serial primary key, name text not null, born date, data jsonb);
insert into people(name, born, data) select 'p' || n, date '2000-01-01' + n, jsonb_build_object('n', n) from generate_series(1, 5000) n;
create index on people((data->>'n'));
analyze people;
select count(*), min(born), max(born), sum((data->>'n')::int) from people;
select name from people where data->>'n' = '4242';
begin; delete from people; rollback;
with recursive f(a, b) as (values(0, 1) union all select b, a + b from f where b < 1000) select string_agg(a::text, ' ') from f;
create function twice(int) returns int language plpgsql as 'begin return $1 * 2; end';
select twice(21), pg_size_pretty(pg_relation_size('people')) is not null;
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;
explain (costs off) select count(*) from people where name like '%7%';
select count(*) from people where name like '%7%';
select regexp_replace('Skep node', '(\w+) (\w+)', '\2 \1'), to_char(timestamp '2026-01-02 03:04:05', 'YYYY HH24:MI');
select 1 / 0;
S
pgbench -i -s 1 -q 2>/dev/null
pgbench -h 127.0.0.1 -c 4 -j 2 -t 25 2>/dev/null | grep -E 'transactions actually|failed'
psql -qAt -c 'select sum(abalance) = (select sum(delta) from pgbench_history), count(*) from pgbench_accounts'
psql -qAt -c "listen news" -c "notify news, 'x'" | sed 's/PID [0-9]*/PID/'
psql -qAt -c "create table kept as select 1 as n" -c checkpoint
psql -qAt -c "insert into kept select generate_series(2, 1000)"
kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")"
sleep 1
pkill -9 postgres || true
while pgrep postgres >/dev/null; do sleep 0.1; done
start
psql -qAt -c 'select count(*), sum(n) from kept' -c 'select count(*) from people'
grep -c 'database system was not properly shut down' "$TMPDIR/log"
pg_dump -t people | grep -v '^--' | sed '/restrict/d' | md5sum
as pg_ctl -w stop -m fast >/dev/null && echo stopped
as pg_controldata | grep 'Database cluster state'
