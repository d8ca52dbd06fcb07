# A crowd of processes waits for one thing and ends together, again and again: more kernel
# stacks become free at once than are kept.
cd "${TMPDIR:-/tmp}"
round=0
while [ $round -lt 10 ]; do
    mkfifo gate
    exec 3<>gate
    i=0
    while [ $i -lt 160 ]; do
        (exec <gate 3>&-; read -r line) &
        i=$((i + 1))
    done
    # They read until nobody writes any more.
    exec 3>&-
    wait
    rm gate
    round=$((round + 1))
done
echo "the crowd ended $round times"
