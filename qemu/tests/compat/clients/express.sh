set -euo pipefail
cd "$TMPDIR"
base=http://$HOST:$PORT
until curl -sf "$base/" >/dev/null; do sleep 0.3; done
get() { curl -sS "$@"; }
get "$base/"; echo
get "$base/people/ada?a=1&b[]=2&b[]=3"; echo
get -i "$base/people/x" | tr -d '\r' | grep -iE '^(HTTP|content-type|etag|x-powered)'
get -H 'content-type: application/json' -d '[1, 2, 3, 36]' "$base/sum"; echo
{ echo '['; seq -s, 100000; echo ']'; } >numbers
get -H 'content-type: application/json' --data-binary @numbers "$base/sum"; echo
get -d 'a=1&b=two%20words' "$base/form"; echo
get -H 'content-type: application/json' -d '{' -o /dev/null -w '%{http_code}\n' "$base/sum"
get "$base/stream" | md5sum
get "$base/static/package.json" | md5sum
get -o /dev/null -w '%{http_code}\n' "$base/static/../../server.js"
get -o /dev/null -w '%{http_code}\n' "$base/missing"
get -w ' %{http_code}\n' "$base/broken"
tag=$(get -I "$base/static/package.json" | tr -d '\r' | sed -n 's/^etag: //Ip')
get -H "if-none-match: $tag" -o /dev/null -w '%{http_code}\n' "$base/static/package.json"
# Twelve at once, each with one connection for ten requests.
started=$(date +%s%N)
for n in $(seq 12); do
    # shellcheck disable=SC2046
    get -w ' %{http_code} %{num_connects}\n' $(for k in $(seq 10); do echo "-o /dev/null $base/slow"; done) &
done | sort | uniq -c
echo "~ 12 clients, each 10 answers of 200 ms: $((($(date +%s%N) - started) / 1000000)) ms"
