# strace and gdb: calls followed through processes, counted and failed; break points, watch points, steps, threads, registers, attaching, core files.
set -eu
mkdir -p t && cd t
source='#source'
sed -n "/^$source\$/,/^#end\$/p" "$0" | sed '1d;$d' >prog.c
sed '1,/^#program$/d' "$0" | base64 -d >prog
chmod +x prog
export DEBUGINFOD_URLS= HISTSIZE=0
echo '## strace'
# The calls of the program and of its child, in the order each makes them; those that
# others overtake are split in the log, and put together here.
joined() {
    gawk -v who="$1" '$1 == who {
        if (held != "" && sub(/^[0-9]+ +<\.\.\. [a-z0-9_]+ resumed>/, "")) $0 = held $0
        else if (held != "") print held
        held = ""
        if (sub(/ *<unfinished \.\.\.>$/, "")) held = $0
        else print
    } END { if (held != "") print held }' log
}
strace -f -o log -e trace=write,kill,vfork,wait4,exit_group,clone,rt_sigaction,getuid,nanosleep,execve ./prog fork
for who in $(gawk '{ if (!seen[$1]++) print $1 }' log); do
    echo "- process"
    joined "$who" | sed -E 's/^[0-9]+ +//
        s/0x[0-9a-f]+/ADDR/g; s/\b[0-9]{2,7}\b/N/g; s/[0-9]+ vars/N vars/; s/si_([us])time=[^,}]*/si_\1time=T/g; s/pid=[0-9]+/pid=N/; s/ +/ /g; s/^ //' | grep -Ev '^(rt_sig|wait4|clone)' || true
done
echo '## strace -c'
strace -f -c -U name,calls,errors -S name -o counts ./prog fork
gawk '$1 == "write" || $1 == "kill" || $1 == "execve" || $1 == "getuid" { print $1, $2, $3 }' counts
echo '## strace -e inject'
strace -o log -e trace=getuid -e inject=getuid:retval=42 ./prog uid || echo "ended with $?"
cat log
strace -o log -e trace=getuid -e inject=getuid:error=EPERM:when=2 ./prog uid || echo "ended with $?"
cat log
{ strace -o log -e trace=getuid -e inject=getuid:signal=USR1:when=3 ./prog uid; } 2>/dev/null || echo "ended with $?"
sed -E 's/si_pid=[0-9]+/si_pid=N/; s/si_uid=[0-9]+/si_uid=N/' log
echo '## strace -p'
./prog wait & sleep 0.3
timeout -s INT 1 strace -q -o log -e trace=nanosleep,clock_nanosleep,restart_syscall -p $! || echo "ended with $?"
sed -E 's/clock_nanosleep\(CLOCK_REALTIME, 0, /nanosleep(/; s/tv_sec=[0-9]+/tv_sec=N/g; s/tv_nsec=[0-9]+/tv_nsec=N/g; s/0x[0-9a-f]+/ADDR/' log | sort -u | head -1
grep -c '^TracerPid:.0$' /proc/$!/status
kill $!; wait $! 2>/dev/null || echo "ended with $?"

debug() {
    local args=() line
    while read -r line; do args+=(-ex "$line"); done
    timeout 120 gdb -nx -q -batch -ex 'set confirm off' -ex 'set width 0' -ex 'set startup-with-shell off' \
        "${args[@]}" "$@" 2>&1 |
        sed -E 's/\b(Thread|LWP|process) (0x[0-9a-f]+ \(LWP [0-9]+\)|[0-9]+)/\1 N/g; s/0x0*[0-9a-f]{5,}/ADDR/g; s/\(LWP [0-9]+\)/(LWP N)/g
            s/pid [0-9]+/pid N/g' |
        grep -Ev '^(\[New|\[Thread|\[Switching|warning: (Error disabling|Could not load|Section .\.reg-xstate)|Using host|$)|thread_db|debuginfod|auto-load|add-auto|info "\(gdb|To enable|line to your|To complet|For more'
    return 0
}
echo '## gdb: break points, steps, what a frame holds'
debug --args ./prog count 5 <<'GDB'
break add if i == 3
run
backtrace
info args
print total
print/x $rip == (long)&add || $rip > (long)&add
up
print argc
down
delete
finish
next
step
tbreak add
continue
display i
stepi
nexti
info registers cs ss
set var i = 100
continue
GDB
echo '## gdb: a software watch, registers that change, a call'
debug --args ./prog count 4 <<'GDB'
break add
run
finish
set can-use-hw-watchpoints 0
delete
watch total
continue
continue
delete
print square(12)
print half(3.0)
set $rax = 7
print $eax
print $xmm0.v4_int32[0] = 9
print $xmm0.v4_int32[0]
continue
GDB
echo '## gdb: watch points of the processor'
# The value after each change, what is read, what code is reached, and no more than four.
debug --args ./prog watch <<'GDB'
break watched
run
delete
watch total
rwatch limit
awatch words[1]
watch *(char *)((char *)words + 3)
info breakpoints
continue
continue
continue
continue
continue
continue
continue
continue
delete
hbreak add
continue
print i
print (int)$eflags & 0x10100
stepi
print (int)$eflags & 0x10100
continue
print i
delete
watch total if total > 100
continue
print total
delete
hbreak square
hbreak half
hbreak meet
hbreak watched
hbreak add
print sizeof(long)
continue
delete
hbreak square
continue
finish
delete
watch total
kill
GDB
debug --args ./prog threads <<'GDB'
watch total
run
continue
continue
GDB
debug --args ./prog fork <<'GDB' | grep -Ev '^(child ended|signal|\[Detaching|\[Inferior)'
set follow-fork-mode child
set detach-on-fork on
watch forked
run
continue
continue
GDB
echo '## gdb: signals'
debug --args ./prog signal <<'GDB'
handle SIGUSR1 stop print nopass
run
print $_siginfo.si_signo
signal SIGUSR1
GDB
debug --args ./prog signal <<'GDB'
handle SIGUSR1 nostop noprint pass
break on_signal
run
backtrace 1
continue
GDB
echo '## gdb: a crash'
debug --args ./prog crash <<'GDB'
run
backtrace
print $_siginfo.si_signo
print (long)$_siginfo._sifields._sigfault.si_addr
kill
GDB
echo '## gdb: threads'
debug --args ./prog threads <<'GDB'
break meet
run
print $_inferior_thread_count
thread apply all -q print $_thread > 0
delete
continue
GDB
echo '## gdb: core files'
# What is left of `$@` when a signal ends it.
leave_core() {
    rm -f core
    { (ulimit -c unlimited; exec "$@"); } 2>said || echo "ended with $?"
    # Where this machine sends its cores elsewhere, gdb writes one.
    if [ -f core ]; then grep -o 'core dumped' said; else
        timeout 60 gdb -nx -q -batch -ex run -ex 'generate-core-file core' --args "$@" >/dev/null 2>&1
        echo 'core dumped'
    fi
}
leave_core ./prog crash
debug ./prog core <<'GDB'
backtrace
print what
print $_siginfo.si_signo
print (long)$_siginfo._sifields._sigfault.si_addr
info registers cs ss
print $_inferior_thread_count
GDB
leave_core ./prog abort
debug ./prog core <<'GDB'
print total
print $_inferior_thread_count
thread apply all -q print $rip != 0
print $xmm0.v4_int32[0] == $xmm0.v4_int32[0]
GDB
leave_core /usr/bin/bash -c 'kill -ABRT $$'
debug /usr/bin/bash core <<'GDB'
info sharedlibrary
print (char)**(char***)&environ != 0
GDB
{ (ulimit -c 0; exec ./prog crash); } 2>/dev/null || echo "ended with $?"
echo '## gdb: children'
# The parent, which is let go, writes when it likes.
debug --args ./prog fork <<'GDB' | grep -Ev '^(child ended|signal)'
set follow-fork-mode child
catch fork
run
catch exec
delete 1
continue
info inferiors 2
continue
GDB
echo '## gdb: attach and detach'
./prog wait & sleep 0.3
debug -p $! <<'GDB'
print done
set var done = 1
detach
GDB
wait $! && echo "ended with $?"
exit 0
#source
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

volatile int total, limit = 1000, done, aborts, forked;
volatile long words[2];
static pthread_barrier_t all;

int square(int n) { return n * n; }
double half(double n) { return n / 2; }

static void add(int i) {
    total += i;
}

static void count(int n) {
    for (int i = 1; i <= n; i++)
        add(i);
    if (total > limit)
        total = limit;
    printf("total %d\n", total);
}

static void meet(void) {
    total = 1;
}

/* What the kernel reads and writes for it, a debugger is not told of. */
static void watched(void) {
    int ends[2], old = 0;
    total = 7;
    old = limit;
    words[1] = old;
    old = words[1];
    if (pipe(ends) != 0 || write(ends[1], (void *)&total, sizeof total) != sizeof total)
        abort();
    if (read(ends[0], (void *)words, sizeof total) != sizeof total)
        abort();
    ((volatile char *)words)[3] = 5;
    total = words[0];
    count(2);
    for (int i = 0; i < 50; i++)
        add(i);
    total = square(half(total));
    meet();
}

static void on_signal(int n) {
    printf("signal %d\n", n);
}

static void *work(void *arg) {
    pthread_barrier_wait(&all);
    if (arg)
        meet();
    if (arg && aborts)
        abort();
    pthread_barrier_wait(&all);
    return NULL;
}

static void threads(void) {
    pthread_t t[4];
    pthread_barrier_init(&all, NULL, 5);
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, work, (void *)(long)(i == 2));
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&all);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    printf("total %d\n", total);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "fork")) {
        pid_t child = fork();
        forked = 1;
        if (child == 0) {
            execl(argv[0], "child", "uid", NULL);
            _exit(127);
        }
        int status = 0;
        waitpid(child, &status, 0);
        printf("child ended with %d\n", WEXITSTATUS(status));
        fork() == 0 ? kill(getpid(), SIGUSR2) : wait(&status);
        printf("signal %d\n", WTERMSIG(status));
    } else if (!strcmp(what, "uid")) {
        for (int i = 0; i < 3; i++)
            printf("uid %ld\n", syscall(SYS_getuid));
        return 3;
    } else if (!strcmp(what, "wait")) {
        struct timespec pause = {0, 50000000};
        while (!done)
            nanosleep(&pause, NULL);
    } else if (!strcmp(what, "watch")) {
        watched();
    } else if (!strcmp(what, "count")) {
        count(atoi(argv[2]));
    } else if (!strcmp(what, "signal")) {
        signal(SIGUSR1, on_signal);
        raise(SIGUSR1);
        puts("after");
    } else if (!strcmp(what, "crash")) {
        *(volatile int *)16 = 1;
    } else if (!strcmp(what, "threads") || !strcmp(what, "abort")) {
        aborts = *what == 'a';
        threads();
    }
    return 0;
}
#end
