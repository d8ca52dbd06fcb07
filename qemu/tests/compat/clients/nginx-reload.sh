# The end of a server that is reloaded with another answer again and again.
nginx -c "$TMPDIR/nginx.conf" &
until [ -e nginx.pid ]; do sleep 0.1; done
generation=0
while sleep 1; do
    generation=$((generation + 1))
    sed -i "s/return 200 .*\\\\n/return 200 \"$generation\\\\n/" nginx.conf
    nginx -c "$TMPDIR/nginx.conf" -s reload 2>/dev/null
done
