#!/bin/bash
# Terminals and job control by script, stty and setsid; System V objects by perl and ipcs.
#
# What a shell in a terminal prints goes through `expect`, so that prompts and echo
# may come as they like.
set -u
exec 2>/dev/null
export SHELL=/bin/bash

send() { printf '%s\n' "$1" >&"${SHELL_END[1]}"; }
key() { printf '%b' "$1" >&"${SHELL_END[1]}"; }
expect() {
    local line
    while IFS= read -r -t 20 line <&"${SHELL_END[0]}"; do
        if [[ $line == *"$1"* ]]; then
            echo "saw $1"
            return
        fi
    done
    echo "missed $1"
}

echo "== a shell in a terminal"
coproc SHELL_END { exec script -qfc 'bash --norc --noprofile -i' /dev/null; }
send 'stty -echo; PS1=; PS2='
send 'echo ready-$((40 + 2))'
expect ready-42
send 'tty | tr 0-9 N | tr -s N'
expect /dev/pts/N
send 'test -t 0 && test -t 1 && echo both-$((1 + 1))'
expect both-2
send 'stty rows 30 cols 90; stty size'
expect '30 90'
send 'echo modes-$(stty -a | tr " " "\n" | grep -cx -e icanon -e isig -e iexten -e onlcr)'
expect modes-4
send 'readlink /proc/self/fd/0 | tr 0-9 N | tr -s N'
expect /dev/pts/N
send 'set -- $(cat /proc/self/stat); test "$5" = "$8" && echo in-front; test "$7" != 0 && echo has-tty'
expect in-front
expect has-tty
send 'echo to-the-terminal >/dev/tty'
expect to-the-terminal

echo "== jobs"
send 'cat'
send 'hello cat'
expect 'hello cat'
key '\x1a'
expect Stopped
send 'jobs'
expect Stopped
send 'fg'
send 'and again'
expect 'and again'
key '\x04'
send 'echo left-$?'
expect left-0
send 'cat'
send 'to be interrupted'
expect 'to be interrupted'
key '\x03'
sleep 0.5
send 'echo interrupted-$?'
expect interrupted-130
send 'bash -c "read line; echo got \$line" &'
send 'sleep 0.5; jobs'
expect Stopped
send 'fg'
send 'what it waited for'
expect 'got what it waited for'
send 'bash -c "stty tostop; echo never" & sleep 0.5; jobs'
expect Stopped
send 'kill -9 %%; wait; echo killed-$((2 + 3))'
expect killed-5
send 'sleep 100 | sleep 100'
sleep 0.5
key '\x1c'
sleep 0.5
send 'echo quit-${PIPESTATUS[0]}-${PIPESTATUS[1]}'
expect quit-131-131

echo "== hang-up"
send exit
wait "$SHELL_END_PID"
echo "shell $?"
coproc SHELL_END { exec script -qfc 'trap "echo hung-up >hung; exit" HUP; echo armed; while :; do sleep 0.1; done' /dev/null; }
expect armed
kill -9 "$SHELL_END_PID"
for _ in $(seq 100); do [[ -s hung ]] && break; sleep 0.1; done
cat hung

echo "== System V"
perl <<'PERL'
use strict;
$| = 1;
my $shm = shmget(0, 8192, 0600) // die "shmget: $!";
shmwrite($shm, "from the parent", 0, 32) or die "shmwrite: $!";
my $sem = semget(0, 2, 0600) // die "semget: $!";
my $queue = msgget(0, 0600) // die "msgget: $!";
my $child = fork();
if (!$child) {
    my $text;
    shmread($shm, $text, 0, 32) or die;
    $text =~ s/\0.*//s;
    semop($sem, pack("s!3", 0, 5, 0x1000)) or die;
    semop($sem, pack("s!3", 1, 1, 0)) or die;
    msgsnd($queue, pack("l! a*", 9, "later"), 0) or die;
    msgsnd($queue, pack("l! a*", 7, "child read: $text"), 0) or die;
    exit 3;
}
semop($sem, pack("s!3", 1, -1, 0)) or die;
for (1 .. 2) {
    my $message;
    select(undef, undef, undef, 0.2) if $_ == 1;
    msgrcv($queue, $message, 100, -9, 0) or die;
    my ($type, $text) = unpack("l! a*", $message);
    print "type $type: $text\n";
}
waitpid($child, 0);
print "status ", $? >> 8, "\n";
print "given back: ", semctl($sem, 0, 12, 0) + 0, "\n";
my $again = semop($sem, pack("s!3", 0, -1, 04000)) ? "taken" : "$!";
print "$again\n";
my $info = "";
shmctl($shm, 2, $info) or die;
my ($size) = unpack("x48 Q", $info);
print "size $size\n";
print shmctl($shm, 0, 0) && semctl($sem, 0, 0, 0) && msgctl($queue, 0, 0) ? "removed\n" : "$!\n";
print msgsnd($queue, pack("l! a*", 1, "x"), 0) ? "sent\n" : "$!\n";
PERL
echo done
