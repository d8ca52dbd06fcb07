# MariaDB: a server, transactions on two connections, and recovery after SIGKILL.
set -eu
# What the package's installation script does.
grep -q ^mysql: /etc/passwd || echo 'mysql:x:91:91::/tmp:/bin/false' >>/etc/passwd
grep -q ^mysql: /etc/group || echo 'mysql:x:91:' >>/etc/group
mkdir -p /run/mysqld data
chown -R mysql: data /run/mysqld "$TMPDIR"
mariadb-install-db --user=mysql --datadir="$TMPDIR/data" --skip-test-db --auth-root-authentication-method=normal \
    >install.log 2>&1 || { cat install.log; exit 1; }
start() {
    mariadbd --user=mysql --datadir="$TMPDIR/data" --socket="$TMPDIR/sock" --port=3307 --bind-address=127.0.0.1 \
        --innodb-buffer-pool-size=16M --innodb-log-file-size=8M >log 2>&1 &
    server=$!
    until mariadb-admin --socket="$TMPDIR/sock" ping >/dev/null 2>&1; do
        kill -0 $server 2>/dev/null || { cat log; exit 1; }
        sleep 0.1
    done
}
sql() { mariadb --socket="$TMPDIR/sock" -N "$@"; }
start
sql <<'S'
create database shop; use shop;
create table item(id int auto_increment primary key, name varchar(40), price decimal(8,2), index(name)) engine=innodb;
insert into item(name, price) select concat('i', seq), seq / 3 from seq_1_to_3000;
select count(*), sum(price), max(name) from item;
select name from item where price between 100 and 101 order by id;
start transaction; delete from item; rollback;
select count(*) from item;
create procedure twice(n int) select n * 2;
call twice(21);
select json_value('{"a":{"b":7}}', '$.a.b'), regexp_replace('a1b2', '[0-9]', '#'), sha2('skep', 256);
S
mariadb -h 127.0.0.1 -P 3307 -N shop -e 'select avg(id) from item'
for w in 1 2 3; do
    for n in 1 2 3 4 5; do sql shop -e "insert into item(name, price) values('w$w', $n)"; done &
    workers="${workers-} $!"
done
wait $workers
sql shop -e "select name, count(*), sum(price) from item where name like 'w%' group by name"
kill -9 $server
# What bash says of it has numbers in it that differ.
{ wait $server || echo "killed: $?"; } 2>/dev/null
start
sql shop -e 'check table item; select count(*) from item'
# The numbers of what came from several clients at once are in no order.
mariadb-dump --socket="$TMPDIR/sock" --skip-comments --compact --where="name like 'i%'" shop item | md5sum
mariadb-admin --socket="$TMPDIR/sock" shutdown
wait $server && echo stopped
