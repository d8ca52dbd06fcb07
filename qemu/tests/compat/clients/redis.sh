# What begins with `~` are figures, which differ from machine to machine.
set -euo pipefail
cli() { redis-cli -h "$HOST" -p "$PORT" "$@"; }
bench() {
    echo "benchmark $*"
    redis-benchmark -h "$HOST" -p "$PORT" -c 50 --csv "$@" | sed 1d >figures
    cut -d, -f1 figures
    cut -d, -f1,2 figures | sed "s/^/~ $* /"
}
sum() { cli --raw eval 'local s = 0 for i = 0, 19 do s = s + (redis.call("get", string.format("counter:%012d", i)) or 0) end return s' 0; }
until [ "$(cli ping 2>&1)" = PONG ]; do sleep 0.2; done
bench -n 2000 -t set,get,lpush -d 100
bench -n 8000 -t set,get,lpush -d 100 -P 16
cli strlen key:__rand_int__; cli llen mylist; cli lrange mylist 0 0 | wc -c
# Not one increment is lost or made twice, however the clients run into one another.
bench -n 4000 -P 8 -r 20 incr counter:__rand_int__
sum
for n in $(seq 500); do echo "set name:$n value:$((n * n))"; done | cli --pipe | tail -n 1
for n in $(seq 500); do echo "get name:$n"; done | cli | md5sum
# A value far beyond one segment, each way.
head -c 3000000 /dev/zero | tr '\0' 'x' | cli -x set large
cli --raw get large | md5sum
cli info persistence | tr -d '\r' | grep -E '^aof_(enabled|last_write_status)'
# All of it once more, from the file.
cli debug loadaof
sum
cli llen mylist; cli dbsize
for n in $(seq 500); do echo "get name:$n"; done | cli | md5sum
