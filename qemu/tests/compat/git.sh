# git: history, merge, packing, and clone, push and a pull that merges over HTTP and by a pipe.
set -eu
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' HOME=$TMPDIR GIT_PAGER=cat
git config --global init.defaultBranch main
git config --global protocol.file.allow always
git config --global gc.auto 0
git init -q one
cd one
for i in $(seq 1 30); do seq "$i" $((i + 200)) >"f$((i % 7))"; git add -A; git commit -qm "change $i"; done
git log --oneline | head -n 3
git checkout -qb side HEAD~5
echo side >side; git add side; git commit -qm side
git checkout -q main
git merge -q --no-edit side && git log --oneline --graph | head -n 4
git checkout -qb clash HEAD~1; seq 5 >f1; git commit -qam clash
git checkout -q main; seq 6 >f1; git commit -qam other
git merge clash >/dev/null || git diff --name-only --diff-filter=U
git merge --abort
git stash list | wc -l; echo dirty >f2; git stash -q; git status --short | wc -l; git stash pop -q; git diff --stat | tail -n 1; git checkout -q f2
git gc -q --prune=now
git count-objects -v | grep -E 'in-pack|packs'
git fsck --no-progress --strict && echo sound
git blame -s f3 | tail -n 1
git bisect start HEAD HEAD~20 >/dev/null 2>&1; git bisect run sh -c 'test "$(head -n 1 f3)" -lt 20' 2>/dev/null | grep -c 'is the first bad commit'; git bisect reset 2>/dev/null
git archive --format=tar HEAD | tar -t | sort | head -n 3
git tag -a v1 -m one; git describe
cd ..
git clone -q --no-local one two && git -C two log -1 --format=%H
git clone -q --bare one bare.git
git -C bare.git config http.receivepack true
git -C bare.git update-server-info
export GIT_PROJECT_ROOT=$PWD GIT_HTTP_EXPORT_ALL=1
python3 - <<'P' &
import http.server, os, subprocess, sys
class H(http.server.BaseHTTPRequestHandler):
    def go(self):
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size); self.rfile.readline()
            length = len(body)
        env = dict(os.environ, PATH_INFO=path, QUERY_STRING=query, REQUEST_METHOD=self.command,
                   CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(length), REMOTE_USER="u",
                   HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""))
        out = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=env).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        fields = dict(l.split(": ", 1) for l in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for f in fields.items(): self.send_header(*f)
        self.send_header("Content-Length", str(len(rest))); self.end_headers(); self.wfile.write(rest)
    do_GET = do_POST = go
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8123), H)
open("ready", "w").close()
server.serve_forever()
P
web=$!
while [ ! -e ready ]; do sleep 0.05; done
git clone -q http://127.0.0.1:8123/bare.git three
cd three
git log -1 --format=%T
head -c 300000 /dev/zero | tr '\0' 'x' >big; git add big; git commit -qm big
git push -q origin main && git -C ../bare.git log -1 --format=%s
cd ../two
echo own >own; git add own; git commit -qm own
git pull -q --no-rebase --no-edit http://127.0.0.1:8123/bare.git main 2>&1
git log -1 --format='%H %s'; git cat-file -p HEAD | grep -c '^parent'; git log --oneline --graph | head -n 4
wc -c <big; cat own; git status --short | wc -l
git gc -q --prune=now
git count-objects -v | grep -E '^count|in-pack|packs'
git fsck --no-progress --strict && echo sound
git push -q http://127.0.0.1:8123/bare.git main && git -C ../bare.git log -1 --format=%H
cd ..
kill $web
git -C three pull -q --no-rebase ../bare.git main 2>&1 && git -C three log -1 --format=%H
