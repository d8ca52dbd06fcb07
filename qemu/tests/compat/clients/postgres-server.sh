# A cluster for everybody, whose postmaster is started again whenever it ends.
set -eu
# The release's own version.
for bin in /usr/lib/postgresql/*/bin; do :; done
export PATH=$bin:$PATH PGDATA=$TMPDIR/data LC_ALL=C
grep -q ^postgres: /etc/passwd || echo 'postgres:x:90:90::/tmp:/bin/bash' >>/etc/passwd
grep -q ^postgres: /etc/group || echo 'postgres:x:90:' >>/etc/group
mkdir "$PGDATA"
chown postgres: "$PGDATA" "$TMPDIR"
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as initdb -A trust -E UTF8
echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
while :; do
    # It refuses to start while processes of the one before are there.
    as postgres -k "$TMPDIR" -c 'listen_addresses=*' >>"$TMPDIR/log" 2>&1 || sleep 0.3
done
