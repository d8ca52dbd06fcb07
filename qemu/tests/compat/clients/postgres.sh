set -euo pipefail
# The release's own version.
for bin in /usr/lib/postgresql/*/bin; do :; done
export PATH=$bin:$PATH PGHOST=$HOST PGPORT=$PORT PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=30
cd "$TMPDIR"
ask() { psql -qAt "$@"; }
# Answers of the database; while it recovers it takes nobody.
ready() { until ask -c 'select 1' >/dev/null 2>&1; do sleep 0.3; done; }
balanced() {
    ask -c 'select sum(a) = sum(t) and sum(t) = sum(b) and sum(b) = sum(h) from (
        select sum(abalance) a, 0 t, 0 b, 0 h from pgbench_accounts union all
        select 0, sum(tbalance), 0, 0 from pgbench_tellers union all
        select 0, 0, sum(bbalance), 0 from pgbench_branches union all
        select 0, 0, 0, coalesce(sum(delta), 0) from pgbench_history) sums'
}
made() { ask -c 'select count(*) from pgbench_history'; }
started() { ask -c 'select pg_postmaster_start_time()'; }
ready
pgbench -i -s 1 -q >/dev/null 2>&1
ask -c 'select count(*) from pgbench_accounts'
pgbench -n -c 8 -j 2 -t 25 >said 2>&1 || cat said
grep -E 'actually|failed' said
sed -n 's/^tps/~ pgbench -c 8: tps/p' said
balanced; made
first=$(started)
# Ends when its connections break, and has then written down what was acknowledged.
pgbench -n -c 8 -j 2 -T 600 --log --log-prefix=acknowledged >said 2>&1 &
load=$!
until [ "$(made)" -gt 300 ]; do sleep 0.2; done
ask -c "copy (select 1) to program 'kill -9 \$(head -n 1 $TMPDIR/data/postmaster.pid)'" >/dev/null 2>&1 || true
wait $load && echo 'pgbench noticed nothing'
ready
[ "$(started)" != "$first" ] && echo 'another postmaster'
ask -c "select pg_read_file('$TMPDIR/log')" | grep -c 'not properly shut down'
acknowledged=$(cat acknowledged.* | wc -l) kept=$(($(made) - 200))
echo "~ $acknowledged transactions were acknowledged under the load, $kept are kept"
# Of each client one more may have been committed and not acknowledged.
if [ "$acknowledged" -gt 50 ] && [ "$kept" -ge "$acknowledged" ] && [ "$kept" -le $((acknowledged + 8)) ]; then
    echo 'every acknowledged transaction is kept'
fi
balanced
pgbench -n -c 8 -j 2 -t 5 2>/dev/null | grep -E 'actually|failed'
balanced
