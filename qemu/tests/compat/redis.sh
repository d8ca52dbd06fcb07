# Redis: persistence both ways, each read back alone, publishing, scripts, and a server killed under load.
set -eu
cd "$TMPDIR"
mkdir data dump
start() {
    redis-server --port 7000 --dir "$TMPDIR/$1" --appendonly "$2" --appendfsync always \
        --save '' --daemonize yes --logfile "$TMPDIR/log" --unixsocket "$TMPDIR/redis.sock" >/dev/null
    until [ "$(redis-cli -p 7000 ping 2>&1)" = PONG ]; do sleep 0.05; done
}
cli() { redis-cli -p 7000 "$@"; }
start data yes
cli set greeting hello; cli append greeting ' world'; cli get greeting
cli rpush list a b c d; cli lrange list 1 -2
cli zadd board 3 c 1 a 2 b; cli zrange board 0 -1 withscores
cli hset h x 1 y 2; cli hgetall h
cli eval 'local s = 0; for i = 1, 1000 do s = s + i end; return s + tonumber(ARGV[1])' 0 5
printf 'multi\nincr n\nincrby n 10\nexec\n' | cli
cli set gone soon px 30; sleep 0.1; cli exists gone
redis-cli -s "$TMPDIR/redis.sock" strlen greeting
(cli subscribe news | head -n 6) >heard &
until [ "$(cli publish news first)" = 1 ]; do sleep 0.02; done
cli publish news second >/dev/null
wait
tail -n 3 heard
for i in $(seq 1 2000); do echo "set key:$i value:$i"; done | cli --pipe | tail -n 1
cli bgsave >/dev/null
until [ "$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" = 0 ]; do sleep 0.05; done
cli info persistence | tr -d '\r' | grep -E 'last_bgsave_status|aof_enabled|last_write'
cli bgrewriteaof >/dev/null
until [ "$(cli info persistence | tr -d '\r' | sed -n 's/^aof_rewrite_in_progress://p')" = 0 ]; do sleep 0.05; done
redis-benchmark -p 7000 -n 3000 -c 20 -P 4 -q -t set,get,lpush,zadd --csv 2>/dev/null | cut -d, -f1
redis-benchmark -p 7000 -n 100000 -c 10 -q -t incr >/dev/null 2>&1 &
load=$!
sleep 0.3
kill -9 "$(cli info server | tr -d '\r' | sed -n 's/^process_id://p')"
kill $load 2>/dev/null || true
wait 2>/dev/null || true
start data yes
cli get greeting; cli get key:1999; cli dbsize | grep -cE '^[0-9]+$'
test "$(cli get counter:__rand_int__)" -gt 0 && echo "the counter is kept"
cli client no-evict on
cli config set maxmemory 1mb maxmemory-policy noeviction
cli eval 'for i = 1, 100000 do redis.call("set", "fill" .. i, "x") end' 0 2>&1 | grep -o OOM | head -n 1
cli shutdown nosave || true
until ! redis-cli -p 7000 ping >/dev/null 2>&1; do sleep 0.05; done
redis-check-aof "$(echo data/appendonlydir/*.manifest)" 2>/dev/null | tail -n 1
cp data/dump.rdb dump
redis-check-rdb dump/dump.rdb | grep -oE 'RDB looks OK|[0-9]+ keys read'
start dump no
cli info persistence | tr -d '\r' | grep -E 'aof_enabled|rdb_last_load_keys_loaded'
cli dbsize; cli get greeting; cli get key:1; cli get key:2000; cli get n
cli lrange list 0 -1; cli zrange board 0 -1 withscores; cli hget h y; cli exists counter:__rand_int__
cli shutdown nosave || true
until ! redis-cli -p 7000 ping >/dev/null 2>&1; do sleep 0.05; done
echo stopped
