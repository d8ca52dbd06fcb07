# Resource limits and what programs are told when they reach them, scheduling policies, shares of CPU time by nice values, moves between CPUs, POSIX message queues as files and with threads, what processes have read and written, places and caches of CPUs.
import ctypes, errno, mmap, os, resource, signal, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def name(e):
    return errno.errorcode[e.errno]


def child(what):
    """Runs `what` in a child; how that ends."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            what()
            sys.stdout.flush()
        except OSError as e:
            print("fails with", name(e), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        print("  killed by", signal.Signals(os.WTERMSIG(status)).name, "core", os.WCOREDUMP(status))
    else:
        print("  exit", os.WEXITSTATUS(status))


def forever():
    while True:
        pass


def cpu():
    def told(n, _):
        print("SIGXCPU, limit now", resource.getrlimit(resource.RLIMIT_CPU), flush=True)

    signal.signal(signal.SIGXCPU, told)
    resource.setrlimit(resource.RLIMIT_CPU, (1, 3))
    # A child begins anew.
    if os.fork() == 0:
        forever()
    pid, status, used = os.wait3(0)
    print("child", signal.Signals(os.WTERMSIG(status)).name, "after", round(used.ru_utime + used.ru_stime))
    print("parent's limit", resource.getrlimit(resource.RLIMIT_CPU))


def spin():
    resource.setrlimit(resource.RLIMIT_CPU, (1, 60))
    forever()


print("== CPU time")
child(cpu)
child(spin)


def file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 20000))
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    print("wrote", os.write(fd, b"x" * 30000), "of 30000")
    for what in (
        lambda: os.write(fd, b"x"),
        lambda: os.pwrite(fd, b"x", 10000),
        lambda: os.ftruncate(fd, 10001),
        lambda: os.truncate("f", 10001),
        lambda: os.posix_fallocate(fd, 9000, 2000),
    ):
        try:
            what()
            print("works")
        except OSError as e:
            print(name(e))
    os.ftruncate(fd, 10000)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.write(fd, b"x")


print("== user and system time")


def share_of_system(work):
    """Tenths of its time that a process has spent in the kernel after a second of this work."""
    before = os.times()
    while True:
        work()
        now = os.times()
        user, system = now.user - before.user, now.system - before.system
        if user + system > 1:
            return round(10 * system / (user + system))


def both():
    zero = os.open("/dev/zero", os.O_RDONLY)
    buffer = bytearray(1 << 20)
    print("the kernel's work:", share_of_system(lambda: os.readv(zero, [buffer])) > 6)
    print("our own:", share_of_system(lambda: sum(range(20000))) < 4)
    # No part ever becomes less.
    seen = []
    for number in range(300):
        os.readv(zero, [buffer])
        now = resource.getrusage(resource.RUSAGE_SELF)
        seen.append((now.ru_utime, now.ru_stime))
    print("in order:", seen == sorted(seen), sorted(s for _, s in seen) == [s for _, s in seen], flush=True)


child(both)

print("== file size")
child(file_size)


def memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    try:
        mmap.mmap(-1, 2 << 30)
    except OSError as e:
        print("mapping more:", name(e))
    mmap.mmap(-1, 16 << 20).close()


def data():
    resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
    try:
        mmap.mmap(-1, 128 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as e:
        print("private memory:", name(e))
    mmap.mmap(-1, 128 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close()
    mmap.mmap(-1, 128 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ).close()
    print("shared and read-only memory do not count")


print("== memory")
child(memory)
child(data)


def stack():
    resource.setrlimit(resource.RLIMIT_STACK, (256 << 10, 256 << 10))
    code = subprocess.run(["bash", "-c", "f() { f; }; f"], stderr=subprocess.DEVNULL).returncode
    print("endless recursion:", signal.Signals(-code).name)


print("== stack")
child(stack)


def files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as e:
        print("open:", name(e), "highest", held[-1])
    for what in (os.pipe, lambda: os.dup(0), lambda: os.dup2(0, 40), lambda: os.memfd_create("m")):
        try:
            what()
        except OSError as e:
            print(name(e))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print("higher:", os.dup(0))


print("== files")
child(files)


def processes():
    os.setgid(61234)
    os.setuid(61234)
    resource.setrlimit(resource.RLIMIT_NPROC, (5, 5))
    made = []
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            made.append(pid)
    except OSError as e:
        print("fork:", name(e), "after", len(made))
    os.kill(made[0], signal.SIGKILL)
    time.sleep(0.2)
    try:
        os.fork() or os._exit(0)
    except OSError as e:
        print("a zombie counts:", name(e))
    os.waitpid(made[0], 0)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    print("waited for:", os.waitpid(pid, 0)[1])
    for pid in made[1:]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


print("== processes")
child(processes)

def pending():
    os.setuid(61234)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (3, 3))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    sent = 0
    while libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) == 0:
        sent += 1
    print("sigqueue:", errno.errorcode[ctypes.get_errno()], "after", sent)


print("== queued signals")
child(pending)


def busy(nicer):
    pid = os.fork()
    if pid == 0:
        os.nice(nicer)
        forever()
    return pid


def shares(first, second):
    """By how much the first has had more CPU time than the second, on one CPU."""
    used = []
    time.sleep(4)
    for pid in (first, second):
        os.kill(pid, signal.SIGSTOP)
    for pid in (first, second):
        os.kill(pid, signal.SIGKILL)
        u = os.wait4(pid, 0)[2]
        used.append(u.ru_utime + u.ru_stime)
    return used[0] / used[1]


def nice():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("even:", 0.7 < shares(busy(0), busy(0)) < 1.4)
    print("four nicer, by itself:", 1.7 < shares(busy(0), busy(4)) < 3.5)
    first, second = busy(0), busy(0)
    os.setpriority(os.PRIO_PROCESS, second, os.getpriority(os.PRIO_PROCESS, second) + 4)
    print("four nicer, by another:", 1.7 < shares(first, second) < 3.5)


print("== nice")
child(nice)


def policy():
    """As two calls and the kernel's table tell it, with the nice value."""
    stat = open("/proc/thread-self/stat").read().rsplit(")", 1)[1].split()
    return hex(os.sched_getscheduler(0)), "policy", stat[38], "nice", stat[16]


def try_policy(number, priority=0):
    try:
        os.sched_setscheduler(0, number, os.sched_param(priority))
        print(*policy())
    except OSError as e:
        print(number, priority, name(e))


def policies():
    os.setuid(61234)
    print(*policy())
    for number, priority in [(os.SCHED_BATCH, 0), (os.SCHED_BATCH, 1), (os.SCHED_FIFO, 1), (os.SCHED_RR, 0), (7, 0)]:
        try_policy(number, priority)
    try_policy(os.SCHED_IDLE)
    child(lambda: print("inherited", *policy()))
    # It is a privilege that it has given up.
    try_policy(os.SCHED_OTHER)


def resetting():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    os.setuid(61234)
    try_policy(os.SCHED_BATCH | os.SCHED_RESET_ON_FORK)
    child(lambda: print("inherited", *policy()))
    try_policy(os.SCHED_BATCH)


def own_nice():
    """A nice value is a thread's, and a thread that it makes has the same."""
    def told():
        done.wait()
        print("told:", *policy())
        inner = threading.Thread(target=lambda: print("made:", *policy()))
        inner.start()
        inner.join()

    done = threading.Event()
    thread = threading.Thread(target=told)
    thread.start()
    os.setpriority(os.PRIO_PROCESS, thread.native_id, 7)
    print(os.getpriority(os.PRIO_PROCESS, thread.native_id), os.getpriority(os.PRIO_PROCESS, 0))
    done.set()
    thread.join()
    print("lowest of the group:", os.getpriority(os.PRIO_PGRP, 0))


def idle():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    first, second = busy(0), busy(0)
    os.sched_setscheduler(second, os.SCHED_IDLE, os.sched_param(0))
    print("idle has next to nothing:", shares(first, second) > 20)


print("== policies")
child(policies)
child(resetting)
child(own_nice)
child(idle)


def where():
    """The CPU by the thread's own memory (rseq) and by the kernel."""
    cpu = ctypes.c_uint()
    libc.syscall(309, ctypes.byref(cpu), None, None)
    return libc.sched_getcpu(), cpu.value


def tell(shared):
    while True:
        shared[0:2] = bytes(where())


def settles(shared, cpu):
    """Whether a process that runs all the time comes to this CPU, and stays."""
    deadline = time.monotonic() + 30
    while shared[0:2] != bytes((cpu, cpu)):
        if time.monotonic() > deadline:
            return False
    stray = 0
    for _ in range(200):
        stray += shared[0:2] != bytes((cpu, cpu))
    return stray == 0


def affinity():
    cpus = sorted(os.sched_getaffinity(0))
    homes = [cpus[0], cpus[-1]] * 100
    wrong = 0
    for cpu in homes:
        os.sched_setaffinity(0, {cpu})
        wrong += where() != (cpu, cpu)
    print("moved itself, and was elsewhere:", wrong)
    last = open("/proc/self/stat").read().split()[38]
    print("it is told to be where it is:", last == str(homes[-1]))
    os.sched_setaffinity(0, cpus)
    shared = mmap.mmap(-1, 4096)
    pid = os.fork()
    if pid == 0:
        tell(shared)
    for cpu in homes[:20]:
        os.sched_setaffinity(pid, {cpu})
        if not settles(shared, cpu):
            print("another one is not where it was moved to")
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    os.sched_setaffinity(pid, {cpus[-1]})
    os.kill(pid, signal.SIGCONT)
    print("one that had stopped:", settles(shared, cpus[-1]))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def count(shared, at):
    n = 0
    while True:
        n += 1
        shared[at : at + 8] = n.to_bytes(8, "little")


def spins(what, *cpus):
    """A process on these CPUs that goes on for ever."""
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, cpus)
        what()
    return pid


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def turns():
    """Who waits for a CPU and is taken by another one has turns there and leaves others theirs,
    however long each of the two CPUs has been busy."""
    busy, quiet = (sorted(os.sched_getaffinity(0)) * 2)[:2]
    os.sched_setaffinity(0, {busy})
    shared = mmap.mmap(-1, 4096)
    home = spins(lambda: count(shared, 0), busy)
    time.sleep(3)
    away = spins(forever, quiet)
    stop(away)
    without = 0
    for _ in range(10):
        stop(home)
        os.kill(away, signal.SIGCONT)
        stranger = os.fork()
        if stranger == 0:
            count(shared, 8)
        # Waits behind the one that is there, until this CPU has nothing else to do.
        os.sched_setaffinity(stranger, {quiet})
        os.sched_setaffinity(stranger, {quiet, busy})
        began = time.monotonic()
        time.sleep(0.02)
        without += time.monotonic() - began > 1.5
        stop(away)
        before = shared[0:16]
        os.kill(home, signal.SIGCONT)
        time.sleep(0.3)
        without += shared[0:8] == before[0:8]
        without += shared[8:16] == before[8:16]
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
    for pid in (home, away):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print("times without a turn:", without)


print("== affinity")
child(affinity)
child(turns)


def queue(name, flags):
    ctypes.set_errno(0)
    fd = libc.mq_open(name, flags, 0o640, None)
    return fd if fd >= 0 else errno.errorcode[ctypes.get_errno()]


class Event(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("rest", ctypes.c_char * 32),
    ]


def queues():
    os.umask(0)
    fd = queue(b"/one", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
    libc.mq_send(fd, b"hello", 5, 3)
    queue(b"/two", os.O_RDWR | os.O_CREAT)
    print(sorted(os.listdir("/dev/mqueue")))
    found = os.stat("/dev/mqueue/one")
    print(oct(found.st_mode), found.st_size, found.st_nlink)
    # By another process: one that closes a queue is not told of it any more.
    status = lambda: subprocess.check_output(["cat", "/dev/mqueue/one"], text=True).split()[:2]
    print(status())
    text = ctypes.create_string_buffer(8192)
    print(libc.mq_receive(fd, text, 8192, None), text.value)
    told = threading.Event()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: told.set())
    event = Event(value=77, notify=2, function=ctypes.cast(function, ctypes.c_void_p))
    print(libc.mq_notify(fd, ctypes.byref(event)), status())
    libc.mq_send(fd, b"news", 4, 0)
    print("in time:", told.wait(20), status())
    os.chmod("/dev/mqueue/one", 0o600)
    print(oct(os.stat("/dev/mqueue/one").st_mode))
    os.unlink("/dev/mqueue/one")
    print(queue(b"/one", os.O_RDWR), libc.mq_send(fd, b"still", 5, 0))


print("== POSIX queues")
child(queues)


def io(path="/proc/self/io"):
    fd = os.open(path, os.O_RDONLY)
    text = os.read(fd, 4096)
    os.close(fd)
    return text, {k: int(v) for k, v in (line.split(b": ") for line in text.splitlines())}


NAMES = [b"rchar", b"wchar", b"syscr", b"syscw"]


def added(f):
    """What `f` adds to the account of this process, without the look at it."""
    text, before = io()
    try:
        f()
    except OSError:
        pass
    _, after = io()
    read, written, reads, writes = (after[n] - before[n] for n in NAMES)
    return read - len(text), written, reads - 1, writes


def transfers():
    fd = os.open("io.data", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    deaf = os.open("io.data", os.O_WRONLY)
    here = os.open(".", os.O_RDONLY)
    r, w = os.pipe()

    def forked(*then):
        pid = os.fork()
        if pid == 0:
            os.write(w, b"c" * 1000)
            os.read(r, 600)
            for f in then:
                f()
            os._exit(0)
        os.waitpid(pid, 0)

    for what, f in {
        "write": lambda: os.write(fd, b"x" * 5000),
        "pwrite": lambda: os.pwrite(fd, b"y" * 10, 3),
        "writev": lambda: os.writev(fd, [b"ab", b"cde"]),
        "pwritev": lambda: os.pwritev(fd, [b"ab", b"cde"], 9),
        "read at the end": lambda: os.read(fd, 100),
        "pread": lambda: os.pread(fd, 100, 0),
        "preadv": lambda: os.preadv(fd, [bytearray(7), bytearray(9)], 0),
        "readv": lambda: os.readv(fd, [bytearray(7)]),
        "nothing": lambda: os.read(fd, 0),
        "closed": lambda: os.read(1000, 1),
        "not to be read": lambda: os.read(deaf, 1),
        "a pipe has no places": lambda: os.pread(r, 1, 0),
        "pipe": lambda: (os.write(w, b"z" * 77), os.read(r, 1000)),
        "directory": lambda: os.read(here, 1),
        "list": lambda: os.listdir(here),
        "sendfile": lambda: os.sendfile(w, fd, 0, 300),
        "copy_file_range": lambda: os.copy_file_range(fd, deaf, 100, 0, 4000),
        "child": forked,
        "and its child": lambda: forked(forked),
    }.items():
        print(what, added(f))
    own = []

    def other():
        os.write(w, b"t" * 40)
        own.append(io(f"/proc/self/task/{threading.get_native_id()}/io")[1])

    thread = threading.Thread(target=other)
    written = added(lambda: (thread.start(), thread.join()))[1::2]
    print("thread", written, [own[0][n] for n in NAMES])
    print(oct(os.stat("/proc/self/io").st_mode), list(io()[1]))
    print(oct(os.stat("/proc/self/loginuid").st_mode), oct(os.stat("/proc/self/sessionid").st_mode))


def words(path):
    with open(path) as f:
        return f.read().strip()


def numbers(text):
    """A list of ranges."""
    ends = [part.split("-") for part in text.split(",") if part]
    return {n for first, *last in ends for n in range(int(first), int((last or [first])[0]) + 1)}


def cpus():
    """What must hold on any machine."""
    base = "/sys/devices/system/cpu"
    online = numbers(words(f"{base}/online"))
    print("online:", len(online) == os.cpu_count(), 0 in online)
    places, right = {}, set()
    for n in online:
        at = f"{base}/cpu{n}/topology"
        places[n] = words(f"{at}/physical_package_id"), words(f"{at}/core_id")
        for new, old in (("core_cpus", "thread_siblings"), ("package_cpus", "core_siblings")):
            like = numbers(words(f"{at}/{new}_list"))
            right.add(n in like and like <= online)
            right.add(words(f"{at}/{old}_list") == words(f"{at}/{new}_list"))
            right.add(words(f"{at}/{old}") == words(f"{at}/{new}"))
            mask = int(words(f"{at}/{new}").replace(",", ""), 16)
            right.add({i for i in range(mask.bit_length()) if mask >> i & 1} == like)
    for n in online:
        for other in numbers(words(f"{base}/cpu{n}/topology/core_cpus_list")):
            right.add(places[n] == places[other])
        for other in numbers(words(f"{base}/cpu{n}/topology/package_cpus_list")):
            right.add(places[n][0] == places[other][0])
    print("places:", right)
    found, right = set(), set()
    for n in online:
        cache = f"{base}/cpu{n}/cache"
        for index in sorted(os.listdir(cache) if os.path.isdir(cache) else []):
            if not index.startswith("index"):
                continue
            at = f"{cache}/{index}"
            parts = "coherency_line_size", "physical_line_partition", "ways_of_associativity", "number_of_sets"
            size = 1
            for part in parts:
                size *= int(words(f"{at}/{part}"))
            right.add(f"{size >> 10}K" == words(f"{at}/size"))
            right.add(n in numbers(words(f"{at}/shared_cpu_list")))
            right.add(words(f"{at}/type") in ("Data", "Instruction", "Unified"))
            found.add(int(words(f"{at}/level")))
    print("caches:", right <= {True}, 1 in found or not found)


print("== transfers")
child(transfers)
print("== CPUs")
child(cpus)
