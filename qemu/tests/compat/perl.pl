# Files and locks, processes, pipes, signals, sockets.
use strict;
use warnings;
use Fcntl qw(:flock SEEK_SET O_RDWR O_CREAT);
use File::Find;
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX qw(:sys_wait_h strftime setsid);
use Socket;
use Time::HiRes qw(sleep ualarm);
$| = 1;

print "== files\n";
my $folder = tempdir(CLEANUP => 1);
for my $n (1 .. 5) { mkdir "$folder/d$n"; open my $f, '>', "$folder/d$n/f" or die; print $f "x" x $n; close $f }
my @found;
find(sub { push @found, sprintf "%s %d", $_, -s $_ if -f }, $folder);
print join(",", sort @found), "\n";
open my $lock, '>', "$folder/lock" or die $!;
flock $lock, LOCK_EX or die $!;
unless (my $pid = fork) {
    open my $again, '>', "$folder/lock";
    POSIX::_exit(flock($again, LOCK_EX | LOCK_NB) ? 1 : 0);
}
wait;
print "lock kept: ", $? >> 8, "\n";
sysopen my $rw, "$folder/rw", O_RDWR | O_CREAT, 0600 or die $!;
syswrite $rw, "0123456789";
sysseek $rw, 4, SEEK_SET;
sysread $rw, my $part, 3;
printf "%s %04o\n", $part, (stat "$folder/rw")[2] & 07777;
truncate $rw, 5;
print -s "$folder/rw", " ", join(",", sort map { s/.*\///r } glob "$folder/d*"), "\n";
utime 1000000000, 1000000000, "$folder/rw";
print strftime("%F %T", gmtime((stat "$folder/rw")[9])), "\n";

print "== processes\n";
my $text = `echo from the shell; exit 3`;
print $text, $? >> 8, "\n";
open my $sort, '|-', 'sort -n' or die $!;
print $sort "$_\n" for 3, 20, 1;
close $sort;
open my $in, '-|', 'seq', 5 or die $!;
print join(" ", map { chomp; $_ * 2 } <$in>), "\n";
my %children;
for my $n (1 .. 10) { my $pid = fork // die $!; unless ($pid) { sleep 0.01 * $n; exit $n } $children{$pid} = $n }
my $sum = 0;
while ((my $pid = waitpid -1, 0) > 0) { $sum += $? >> 8; delete $children{$pid} }
print "$sum ", scalar(keys %children), "\n";
my $caught = 0;
$SIG{USR1} = sub { $caught++ };
kill USR1 => $$ for 1 .. 3;
print "caught $caught\n";
my $timed = eval { local $SIG{ALRM} = sub { die "alarm\n" }; ualarm 20000; sleep 10; 1 };
print $timed ? "no" : $@;
pipe my $from, my $to or die $!;
if (my $pid = fork) { close $to; print "pipe: ", scalar <$from>; waitpid $pid, 0 }
else { close $from; syswrite $to, "through\n"; POSIX::_exit(0) }
my $child = fork // die $!;
unless ($child) { setsid; kill STOP => $$; POSIX::_exit(5) }
waitpid $child, WUNTRACED;
print "stopped ", WIFSTOPPED($?) ? 1 : 0, "\n";
kill CONT => $child;
waitpid $child, 0;
print "exit ", $? >> 8, "\n";

print "== sockets\n";
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5, ReuseAddr => 1) or die $!;
unless (my $pid = fork) {
    for (1 .. 3) { my $c = $server->accept; while (my $l = <$c>) { last if $l eq "end\n"; print $c uc $l } close $c }
    POSIX::_exit(0);
}
for my $n (1 .. 3) {
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->sockport) or die $!;
    print $c "hello $n\n";
    print scalar <$c>;
    print $c "end\n";
    print defined(<$c>) ? "more" : "closed", "\n";
}
wait;
socketpair my $one, my $two, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die $!;
syswrite $one, "pair";
my $select = IO::Select->new($two, $one);
print scalar($select->can_read(1)), " ";
sysread $two, my $got, 100;
print "$got\n";
my $unix = IO::Socket::UNIX->new(Local => "$folder/s", Listen => 1) or die $!;
my $peer = IO::Socket::UNIX->new(Peer => "$folder/s") or die $!;
my $accepted = $unix->accept;
print $peer "unix\n";
$peer->flush;
print scalar <$accepted>;
printf "%s %s\n", inet_ntoa(scalar gethostbyname 'localhost'), (getpwnam 'www-data')[2];
