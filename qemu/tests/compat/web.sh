# nginx with TLS, reloaded while clients ask, in front of PHP-FPM; curl asks.
set -eu
cd "$TMPDIR"
mkdir -p www logs
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost >/dev/null 2>&1
echo '<?php echo "php ", 6 * 7, " ", $_GET["x"] ?? "-", " ", strlen(file_get_contents("php://input")), "\n";' >www/a.php
cat >www/b.php <<'P'
<?php
session_save_path(getenv('TMPDIR') ?: '/tmp');
$base = new PDO('sqlite::memory:');
$base->exec('create table t(a)');
for ($i = 0; $i < 100; $i++) $base->exec("insert into t values($i)");
echo $base->query('select sum(a) from t')->fetchColumn(), ' ', json_encode(['k' => [1, 2.5, null]]), "\n";
$child = proc_open('sort -n', [['pipe', 'r'], ['pipe', 'w']], $pipes);
fwrite($pipes[0], "10\n9\n"); fclose($pipes[0]);
echo str_replace("\n", ' ', stream_get_contents($pipes[1])), proc_close($child), "\n";
echo preg_replace('/(\w+) (\w+)/', '$2 $1', 'hello world'), ' ', date('Y-m-d', 86400), ' ', hash('sha256', 'skep'), "\n";
P
cat >fpm.conf <<C
[global]
error_log = $TMPDIR/logs/fpm
daemonize = yes
pid = $TMPDIR/fpm.pid
[www]
user = www-data
group = www-data
listen = $TMPDIR/fpm.sock
listen.mode = 0666
pm = dynamic
pm.max_children = 4
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
C
chmod 777 "$TMPDIR"
# The release's own version.
for fpm in /usr/sbin/php-fpm[0-9]*; do :; done
"$fpm" -y fpm.conf
# From 1.25.1 on nginx has a directive for HTTP/2, and warns of the word.
tls="ssl http2;"
case $(nginx -v 2>&1) in *nginx/1.2[0-4].*) ;; *) tls="ssl; http2 on;" ;; esac
cat >nginx.conf <<C
worker_processes 2;
pid $TMPDIR/nginx.pid;
error_log $TMPDIR/logs/error;
events { worker_connections 512; }
http {
    access_log off;
    server {
        listen 127.0.0.1:8443 $tls
        listen 127.0.0.1:8000;
        ssl_certificate $TMPDIR/cert.pem;
        ssl_certificate_key $TMPDIR/key.pem;
        root $TMPDIR/www;
        gzip on;
        gzip_types text/plain;
        location ~ \.php\$ { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name; fastcgi_pass unix:$TMPDIR/fpm.sock; }
        location /version { return 200 "one\n"; }
    }
}
C
mkdir -p /var/lib/nginx /var/log/nginx
nginx -c "$TMPDIR/nginx.conf"
get() { curl -sS --cacert cert.pem --resolve localhost:8443:127.0.0.1 "$@"; }
seq 1 30000 >www/numbers.txt
get https://localhost:8443/numbers.txt | md5sum
get --http1.1 --compressed https://localhost:8443/numbers.txt | md5sum
get -r 100-199 http://127.0.0.1:8000/numbers.txt | md5sum
get "https://localhost:8443/a.php?x=y"
head -c 200000 /dev/zero | get --data-binary @- https://localhost:8443/a.php
get https://localhost:8443/b.php
get -o /dev/null -w '%{http_code} %{http_version} %{content_type}\n' https://localhost:8443/missing
curl -s https://localhost:8443/ || echo "curl without the certificate: $?"
get -I http://127.0.0.1:8000/numbers.txt | tr -d '\r' | grep -E '^(HTTP|Content-Length|Accept)'
for w in 1 2 3; do (for n in $(seq 1 20); do get http://127.0.0.1:8000/a.php?x=$n; done | md5sum) & done
wait
(while [ ! -e enough ]; do get http://127.0.0.1:8000/version; done | sort | uniq -c | mawk '{print $2, ($1 > 0)}') &
sleep 0.3
for n in 1 2 3; do nginx -c "$TMPDIR/nginx.conf" -s reload 2>/dev/null; sleep 0.2; done
sed -i 's/"one/"two/' nginx.conf
nginx -c "$TMPDIR/nginx.conf" -s reload 2>/dev/null
until [ "$(get http://127.0.0.1:8000/version)" = two ]; do sleep 0.05; done
touch enough
wait
nginx -c "$TMPDIR/nginx.conf" -s quit 2>/dev/null
while [ -e nginx.pid ]; do sleep 0.05; done
kill "$(cat fpm.pid)"
while [ -e fpm.sock ]; do sleep 0.05; done
get http://127.0.0.1:8000/ 2>/dev/null || echo "after the end: $?"
