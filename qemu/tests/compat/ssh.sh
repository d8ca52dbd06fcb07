# OpenSSH: keys, a server, commands, a terminal, forwarding and file transfer over loopback.
set -eu
cd "$TMPDIR"
export HOME=$TMPDIR
# What the package's installation script does.
grep -q ^sshd: /etc/passwd || echo 'sshd:x:92:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
mkdir -p /run/sshd .ssh
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f id
cp id.pub keys
chmod 600 keys
chmod 755 "$TMPDIR"
sshd=$(command -v sshd)
"$sshd" -f /dev/null -h "$TMPDIR/host" -p 2222 -o ListenAddress=127.0.0.1 -o AuthorizedKeysFile="$TMPDIR/keys" \
    -o PermitRootLogin=yes -o StrictModes=no -o PidFile="$TMPDIR/pid" -o UsePAM=no -o PrintMotd=no -o PrintLastLog=no \
    -o Subsystem="sftp internal-sftp" -E "$TMPDIR/sshd.log"
while [ ! -e pid ]; do sleep 0.05; done
options="-o StrictHostKeyChecking=no -o UserKnownHostsFile=$TMPDIR/known -o LogLevel=ERROR -i $TMPDIR/id -o BatchMode=yes"
on() { ssh $options -p 2222 "$@" || { s=$?; [ $s = 255 ] && cat sshd.log; return $s; }; }
on root@127.0.0.1 'echo "hello from $(id -un)"; echo err >&2' 2>&1
# Who is not known yet is served by a process that filters its own system calls.
exec 3<>/dev/tcp/127.0.0.1/2222
echo 'SSH-2.0-nobody' >&3
children() { grep -ls "^PPid:.$1\$" /proc/[0-9]*/status | cut -d / -f 3; }
filtered() {
    for session in $(children "$(cat pid)"); do
        for process in $(children "$session"); do grep -s ^Seccomp: "/proc/$process/status" || true; done
    done | grep -c 2 || true
}
for _ in $(seq 100); do [ "$(filtered)" = 0 ] || break; sleep 0.1; done
echo "processes with filters: $(filtered)"
exec 3>&-
on root@127.0.0.1 'exit 9' || echo "status $?"
head -c 3000000 /dev/zero | on root@127.0.0.1 'cat | md5sum'
on -tt root@127.0.0.1 'tty | cut -c 1-9; stty -a | grep -o " echo " ; stty size >/dev/null && echo sized' </dev/null 2>/dev/null | tr -d '\r'
seq 1 100000 >file
scp $options -P 2222 -q file root@127.0.0.1:"$TMPDIR/copy" && cmp file copy && echo copied
printf 'mkdir d\ncd d\nput file\nrename file moved\nls -1\n' >batch
sftp $options -P 2222 -q -b batch root@127.0.0.1 2>/dev/null | grep -v '^sftp>' || true
ssh $options -p 2222 -N -L 2223:127.0.0.1:2222 root@127.0.0.1 &
forward=$!
until ssh $options -p 2223 root@127.0.0.1 'echo "through a tunnel"' 2>/dev/null; do sleep 0.1; done
kill $forward
ssh-keygen -q -t ed25519 -N '' -f other
ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o IdentitiesOnly=yes -i other -p 2222 root@127.0.0.1 true 2>&1 | grep -o 'Permission denied'
eval "$(ssh-agent -s)" >/dev/null
ssh-add -q id && ssh-add -l | grep -o ED25519
ssh-agent -k >/dev/null
kill "$(cat pid)"
while [ -e pid ]; do sleep 0.05; done
echo stopped
