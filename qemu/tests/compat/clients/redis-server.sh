# Redis that keeps an append-only file, for everybody.
exec redis-server --bind 0.0.0.0 --protected-mode no --port 6379 --dir "$TMPDIR" --save '' \
    --appendonly yes --appendfsync everysec --enable-debug-command yes
