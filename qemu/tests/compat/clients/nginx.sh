# nginx with TLS, with files to fetch and a folder to put files into.
set -eu
cd "$TMPDIR"
mkdir -p www/put logs /var/lib/nginx /var/log/nginx
chmod 777 www/put
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out www/cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost 2>/dev/null
seq 300000 >www/numbers
echo hello >www/small
cat >nginx.conf <<C
user root;
worker_processes 2;
worker_rlimit_nofile 4096;
daemon off;
pid $TMPDIR/nginx.pid;
error_log $TMPDIR/logs/error;
events { worker_connections 2048; }
http {
    access_log off;
    keepalive_timeout 600;
    client_max_body_size 16m;
    client_body_temp_path $TMPDIR/body;
    server {
        listen ${LISTEN:-8000} backlog=1024;
        listen ${LISTEN_TLS:-8443} ssl http2;
        ssl_certificate $TMPDIR/www/cert.pem;
        ssl_certificate_key $TMPDIR/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:1m;
        root $TMPDIR/www;
        gzip on;
        gzip_types text/plain;
        default_type text/plain;
        location /put/ { dav_methods PUT DELETE; }
        location /generation { return 200 "0\n"; }
    }
}
C
