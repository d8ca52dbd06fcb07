#!/bin/sh
# PostgreSQL and pgbench in the guest, over a Unix socket; prints "name value unit" lines.
# The release's own version.
for bin in /usr/lib/postgresql/*/bin; do :; done
export PATH=$bin:/bin:/sbin:/usr/bin:/usr/sbin
export PGDATA=/tmp/pg PGHOST=/tmp PGUSER=nobody LC_ALL=C TZ=UTC
as() { /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
now() { cut -d' ' -f1 /proc/uptime; }
took() { awk "BEGIN{print \"$1\", ($(now) - $2) * 1000, \"ms\"}"; }
tps() { awk -v name="$1" '/^tps = /{print name, $3, "tps"}'; }
fail() { echo "postgres FAIL $1"; cat /tmp/pg.log; exit 1; }
mkdir "$PGDATA" && chown 65534:65534 "$PGDATA"
start=$(now)
as initdb -A trust -E UTF8 >/tmp/pg.log 2>&1 || fail initdb
took pg_initdb "$start"
as pg_ctl -w -l "$PGDATA/log" -o '-k /tmp -c listen_addresses=' start >/tmp/pg.log 2>&1 || fail start
start=$(now)
as createdb nobody >/tmp/pg.log 2>&1 || fail createdb
as pgbench -i -q nobody >/tmp/pg.log 2>&1 || fail load
took pg_load "$start"
as pgbench -S -M prepared -c 4 -T 5 nobody 2>&1 | tee /tmp/pg.log | tps pg_select
as pgbench -c 4 -T 5 nobody 2>&1 | tee /tmp/pg.log | tps pg_update
as pg_ctl -w -m fast stop >/tmp/pg.log 2>&1 || fail stop
rm -rf "$PGDATA"
