# Filters on system calls with libseccomp: errors, signals, arguments, kills, inheritance, all threads, a tracer's answer.
import ctypes, errno, os, resource, seccomp, signal, sys, threading
from seccomp import ALLOW, EQ, ERRNO, GE, KILL, KILL_PROCESS, LOG, MASKED_EQ, NE, TRAP, Arg, Attr, SyscallFilter

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name, *arguments):
    ctypes.set_errno(0)
    number = seccomp.resolve_syscall(seccomp.Arch(), name)
    answer = libc.syscall(number, *arguments)
    return answer if answer >= 0 else errno.errorcode[ctypes.get_errno()]


def status(*names):
    lines = open("/proc/self/status").read().splitlines()
    return [line for line in lines if line.split(":")[0] in names]


def child(name, work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            work()
        except BaseException as e:
            print("failed:", type(e).__name__, e)
            sys.stdout.flush()
            os._exit(99)
        sys.stdout.flush()
        os._exit(0)
    _, how = os.waitpid(pid, 0)
    end = f"signal {os.WTERMSIG(how)}" if os.WIFSIGNALED(how) else f"status {os.WEXITSTATUS(how)}"
    print(f"{name}: {end}")


def errors():
    print(status("Seccomp", "NoNewPrivs"))
    f = SyscallFilter(ALLOW)
    f.add_rule(ERRNO(errno.EXDEV), "getppid")
    f.load()
    print(status("Seccomp", "NoNewPrivs"), call("getppid"), call("getpid") > 0)
    f = SyscallFilter(ALLOW)
    f.add_rule(ERRNO(errno.ENODEV), "getppid")
    f.load()
    print(call("getppid"), status("Seccomp"))


def arguments():
    f = SyscallFilter(ALLOW)
    f.add_rule(ERRNO(errno.EAGAIN), "dup3", Arg(0, EQ, 7), Arg(2, NE, 0))
    f.add_rule(ERRNO(errno.EDOM), "lseek", Arg(1, GE, 0x1_0000_0000))
    f.add_rule(ERRNO(errno.EISDIR), "mmap", Arg(2, MASKED_EQ, 4, 4))
    f.load()
    print(call("dup3", 7, 9, 1), call("dup3", 7, 9, 0), call("dup3", 8, 9, 1))
    print(call("lseek", 0, ctypes.c_long(1 << 32), 0), call("lseek", 99, ctypes.c_long(1), 0))
    print(call("mmap", 0, 4096, 7, 0x22, -1, 0), call("mmap", 0, 4096, 3, 0x22, -1, 0) != "EISDIR")


def only_a_few():
    f = SyscallFilter(ERRNO(errno.ENOLINK))
    for name in ["write", "exit_group", "munmap", "brk"]:
        f.add_rule(ALLOW, name)
    f.load()
    os.write(1, (repr([call("getpid"), call("openat", 0, 0, 0)]) + "\n").encode())


def trapped():
    seen = []
    signal.signal(signal.SIGSYS, lambda number, frame: seen.append(number))
    f = SyscallFilter(ALLOW)
    f.add_rule(TRAP, "getuid")
    f.load()
    call("getuid")
    print(seen)


def trapped_without_handler():
    f = SyscallFilter(ALLOW)
    f.add_rule(TRAP, "getuid")
    f.load()
    call("getuid")


def killed(action):
    def work():
        f = SyscallFilter(ALLOW)
        f.add_rule(action, "getuid")
        f.load()
        call("getuid")
    return work


def thread_killed():
    """One thread goes, the others stay."""
    f = SyscallFilter(ALLOW)
    f.add_rule(KILL, "getuid")
    f.load()
    done = threading.Event()
    threading.Thread(target=lambda: (done.set(), call("getuid")), daemon=True).start()
    done.wait()
    while int(status("Threads")[0].split()[1]) > 1:
        os.sched_yield()
    print("on with", status("Threads"))


def logged():
    f = SyscallFilter(ALLOW)
    f.add_rule(LOG, "getuid")
    f.load()
    print(call("getuid"))


def all_threads():
    ready, go, answers = threading.Event(), threading.Event(), []
    def other():
        ready.set()
        go.wait()
        answers.append(call("getppid"))
    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    f = SyscallFilter(ALLOW)
    f.set_attr(Attr.CTL_TSYNC, 1)
    f.add_rule(ERRNO(errno.ESTALE), "getppid")
    f.load()
    go.set()
    thread.join()
    print(answers)


def inherited():
    f = SyscallFilter(ALLOW)
    f.add_rule(ERRNO(errno.EPROTO), "getppid")
    f.load()
    child("fork", lambda: print(call("getppid")))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", """if True:
        import ctypes, errno, os
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.syscall(110), errno.errorcode[ctypes.get_errno()])
        print([l for l in open('/proc/self/status').read().splitlines() if l.startswith('Seccomp:')])"""])


def unprivileged():
    os.setuid(1000)
    f = SyscallFilter(ALLOW)
    f.set_attr(Attr.CTL_NNP, 0)
    f.add_rule(ERRNO(errno.EPROTO), "getppid")
    try:
        f.load()
    except RuntimeError as e:
        print(e)
    f.set_attr(Attr.CTL_NNP, 1)
    f.load()
    print(call("getppid"), status("NoNewPrivs"))


def strict():
    PR_SET_SECCOMP, STRICT = 22, 1
    libc.prctl(PR_SET_SECCOMP, STRICT)
    libc.write(1, b"written\n", 8)
    libc.getpid()
    libc.syscall(39)


def refused():
    FILTER, AVAILABLE, PR_SET_NO_NEW_PRIVS = 1, 2, 38
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    print(call("seccomp", FILTER, 0, 0), call("seccomp", FILTER, 1, 0), call("seccomp", FILTER, 1 << 20, 0))
    print(call("seccomp", 77, 0, 0), call("seccomp", 0, 1, 0))
    for answer in [0x80000000, 0, 0x30000, 0x50000, 0x7ff00000, 0x7ffc0000, 0x7fff0000, 0x12340000]:
        value = ctypes.c_uint(answer)
        print(hex(answer), call("seccomp", AVAILABLE, 0, ctypes.byref(value)))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("at", ctypes.c_void_p)]

    def load(*instructions):
        code = b"".join(i[0].to_bytes(2, "little") + bytes(i[1:3]) + i[3].to_bytes(4, "little") for i in instructions)
        buffer = ctypes.create_string_buffer(code)
        program = Program(len(instructions), ctypes.addressof(buffer))
        return call("seccomp", FILTER, 0, ctypes.byref(program))

    allow = (6, 0, 0, 0x7fff0000)
    for name, program in {
        "beyond the data": [(0x20, 0, 0, 64), allow],
        "not aligned": [(0x20, 0, 0, 2), allow],
        "half a word": [(0x28, 0, 0, 0), allow],
        "a remainder": [(0x94, 0, 0, 3), allow],
        "division by zero": [(0x34, 0, 0, 0), allow],
        "a jump too far": [(0x05, 0, 0, 1), allow],
        "a branch too far": [(0x15, 1, 0, 0), allow],
        "no answer": [(0x20, 0, 0, 0)],
        "nothing": [],
        "memory before it is written": [(0x60, 0, 0, 0), allow],
        "memory after it is written": [(0x02, 0, 0, 0), (0x60, 0, 0, 0), allow],
        "too long": [(0, 0, 0, 0)] * 4096 + [allow],
        "as long as can be": [(0, 0, 0, 0)] * 4095 + [allow],
    }.items():
        print(name, load(*program))


def traced():
    """A tracer lets one call pass and answers another one itself."""
    ptrace = lambda *a: libc.ptrace(*[ctypes.c_long(x) for x in a])
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        f = SyscallFilter(ALLOW)
        f.add_rule(seccomp.TRACE(0x123), "getppid")
        f.load()
        print(call("getppid") == os.getppid() or "passed", call("getppid"))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    ptrace(0x4200, pid, 0, 0x80)
    asked = 0
    ptrace(7, pid, 0, 0)
    while True:
        _, how = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(how):
            break
        if how >> 8 == (signal.SIGTRAP | 7 << 8):
            message = ctypes.c_ulong()
            libc.ptrace(0x4201, pid, None, ctypes.byref(message))
            print("asked", hex(message.value))
            asked += 1
            if asked == 3:
                libc.ptrace(6, pid, ctypes.c_void_p(120), ctypes.c_long(-1))
                libc.ptrace(6, pid, ctypes.c_void_p(80), ctypes.c_long(4711))
        ptrace(7, pid, 0, 0)
    print("traced", how)
    sys.stdout.flush()


child("errors", errors)
child("arguments", arguments)
child("only a few calls", only_a_few)
child("trapped", trapped)
child("trapped without handler", trapped_without_handler)
child("killed", killed(KILL))
child("killed as a process", killed(KILL_PROCESS))
child("thread killed", thread_killed)
child("logged", logged)
child("all threads", all_threads)
child("inherited", inherited)
child("unprivileged", unprivileged)
child("strict", strict)
child("refused", refused)
traced()
