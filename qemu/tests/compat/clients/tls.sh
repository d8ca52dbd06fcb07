set -euo pipefail
cd "$TMPDIR"
plain=http://$HOST:$PORT
until curl -sf "$plain/cert.pem" -o cert.pem; do sleep 0.3; done
get() { curl -sS --cacert cert.pem --connect-to "localhost:443:$HOST:$PORT_TLS" "$@"; }
get https://localhost/numbers | md5sum
get --compressed https://localhost/numbers | md5sum
get -r 1000-1999 https://localhost/numbers | md5sum
for how in '--http1.1 --tls-max 1.2' '--http1.1 --tlsv1.3' '--http2 --tlsv1.3'; do
    # shellcheck disable=SC2086
    get $how -o /dev/null -w "$how: %{http_code} %{http_version} %{size_download} %{ssl_verify_result}\n" https://localhost/numbers
done
# One connection for all, and many at once.
# shellcheck disable=SC2046
get -w '%{num_connects}' $(for n in 1 2 3 4 5; do echo https://localhost/small; done)
echo
for n in $(seq 8); do get https://localhost/numbers | md5sum & done | sort -u
seq 200000 >sent
get -T sent https://localhost/put/received -o /dev/null -w '%{http_code}\n'
get https://localhost/put/received | cmp - sent && echo 'what was put is there'
get -X DELETE -o /dev/null -w '%{http_code}\n' https://localhost/put/received
get -o /dev/null -w '%{http_code}\n' https://localhost/put/received
curl -sS "$plain/numbers" | md5sum
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=localhost 2>/dev/null
get -s --cacert other.pem https://localhost/small 2>/dev/null || echo "a stranger's certificate: curl ends with $?"
ask() { printf 'GET /small HTTP/1.0\r\n\r\n' | openssl s_client -connect "$HOST:$PORT_TLS" -CAfile cert.pem -verify_return_error -ign_eof "$@" 2>&1 | tr -d '\r'; }
for version in tls1_2 tls1_3; do
    ask -$version | grep -E '^(hello|HTTP| *Verify return code|New, )' | uniq
done
ask -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 -sess_out session | grep -E '^New'
ask -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 -sess_in session | grep -E '^Reused'
{ ask -tls1_1 || true; } | grep -c 'Cipher is (NONE)'
