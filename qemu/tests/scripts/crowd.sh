# Many processes wait for the same thing and end together, again and again: more kernel
# stacks become free at once than are kept, while forks replace pages on the other CPU.
cd "${TMPDIR:-/tmp}"
round=0
while [ $round -lt 20 ]; do
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
    echo "round $round"
done
