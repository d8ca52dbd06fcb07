# Memory: addresses by chance, guards of stacks, huge pages under all that can happen to memory, with threads and forks.
import ctypes, errno, fcntl, mmap, os, random, re, resource, signal, subprocess, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
for call in (libc.munmap, libc.madvise, libc.mprotect):
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * (call is not libc.munmap)

PAGE, HUGE = 4096, 2 << 20
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
FIXED, FIXED_NOREPLACE = 0x10, 0x100000
MAYMOVE, REMAP_FIXED = 1, 2
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def child(what):
    """Runs `what` in a child; how that ends."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            what()
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "exit %d" % os.WEXITSTATUS(status)


print("== addresses by chance")
PLACES = """
import ctypes, re
maps = open("/proc/self/maps").read()
at = lambda what: re.search("^([0-9a-f]+)-.*" + what, maps, re.M).group(1)
print(at("\\\\[stack\\\\]"), at("\\\\[heap\\\\]"), at("libc"), at("python"), at("\\\\[vdso\\\\]"))
"""


def places(fixed):
    def begin():
        if fixed:
            libc.personality(0x0040000)

    ran = subprocess.run([sys.executable, "-c", PLACES], preexec_fn=begin, capture_output=True, text=True)
    return ran.stdout.split()


for fixed in (False, True):
    runs = [places(fixed) for _ in range(4)]
    print("chosen" if not fixed else "fixed", [len(set(place)) for place in zip(*runs)])


print("== guards")


def stack():
    return int(re.search(r"^([0-9a-f]+)-.*\[stack\]", open("/proc/self/maps").read(), re.M).group(1), 16)


def touch(at):
    ctypes.memset(at, 1, 1)


def beside_another():
    """A stack keeps away from what is mapped below it."""
    below = stack() - 400 * PAGE
    assert libc.mmap(below, PAGE, RW, PRIVATE | FIXED_NOREPLACE, -1, 0) == below
    touch(below + 300 * PAGE)
    print("300 pages above another mapping:", stack() == below + 300 * PAGE, flush=True)
    touch(below + 200 * PAGE)


def thread_guard():
    def run():
        here = ctypes.c_int()
        maps = [line.split()[:2] for line in open("/proc/self/maps")]
        areas = [[int(end, 16) for end in span.split("-")] + [rights] for span, rights in maps]
        mine = next(i for i, (start, end, _) in enumerate(areas) if start <= ctypes.addressof(here) < end)
        # A thread of Python's keeps its C stack where its locals are not: look for its guard.
        guards = [area for area in areas if area[2].startswith("---") and area[1] - area[0] == PAGE]
        print("a guard:", len(guards) > 0, mine > 0, flush=True)
        touch(guards[-1][0])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


print("a page lower:", child(lambda: touch(stack() - PAGE)))
print("beyond the limit:", child(lambda: touch(stack() - (64 << 20))))
print(child(beside_another))
print(child(thread_guard))


print("== huge pages")
SPANS = 4
WORDS = {}


class Area:
    """Memory for huge pages, and what each page of it has to begin with."""

    def __init__(self):
        # As much again, to begin where a huge page may.
        at = libc.mmap(None, (2 * SPANS + 1) * HUGE, 0, PRIVATE, -1, 0)
        self.at = (at + HUGE - 1) & -HUGE
        self.other = self.at + SPANS * HUGE
        self.fresh(0, SPANS * HUGE // PAGE)
        self.pages = [0] * (SPANS * HUGE // PAGE)
        self.writable = [True] * len(self.pages)

    def fresh(self, first, count):
        at, length = self.at + first * PAGE, count * PAGE
        assert libc.mmap(at, length, RW, PRIVATE | FIXED, -1, 0) == at
        assert libc.madvise(at, length, 14) == 0

    def word(self, page, offset=0):
        return ctypes.c_uint64.from_address(self.at + page * PAGE + offset)

    def check(self):
        for page, expected in enumerate(self.pages):
            found = self.word(page).value, self.word(page, PAGE - 8).value
            assert found == (expected, expected), (page, found, expected)


def wrong_write(area, page):
    area.word(page).value = 1


def step(area, rng, number):
    first = rng.randrange(len(area.pages))
    count = min(rng.choice([1, 1, 3, 64, 512, 700]), len(area.pages) - first)
    span = range(first, first + count)
    at, length = area.at + first * PAGE, count * PAGE
    kind = rng.choice(["write"] * 6 + ["drop", "protect", "allow", "anew", "move", "fork"])
    if kind == "write":
        for page in span:
            if area.writable[page]:
                area.word(page).value = area.word(page, PAGE - 8).value = area.pages[page] = number
    elif kind == "drop":
        assert libc.madvise(at, length, 4) == 0
        area.pages[first:first + count] = [0] * count
    elif kind == "protect":
        assert libc.mprotect(at, length, mmap.PROT_READ) == 0
        area.writable[first:first + count] = [False] * count
        if rng.randrange(4) == 0:
            assert child(lambda: wrong_write(area, first)) == "SIGSEGV"
    elif kind == "allow":
        assert libc.mprotect(at, length, RW) == 0
        area.writable[first:first + count] = [True] * count
    elif kind == "anew":
        assert libc.munmap(at, length) == 0
        area.fresh(first, count)
        area.pages[first:first + count] = [0] * count
        area.writable[first:first + count] = [True] * count
    elif kind == "move":
        # There and back.
        there = area.other + first * PAGE
        for start, end in ((at, there), (there, at)):
            for offset in range(0, min(length, 8 * PAGE), PAGE):
                to = end + offset
                assert libc.mremap(start + offset, PAGE, PAGE, MAYMOVE | REMAP_FIXED, to) == to
    else:
        def other_side():
            area.check()
            for page in span:
                if area.writable[page]:
                    area.word(page).value = ~number & (1 << 64) - 1

        assert child(other_side) == "exit 0"
    return kind


def walk(seed):
    rng = random.Random(seed)
    area = Area()
    for number in range(1, 150):
        step(area, rng, number)
        if number % 10 == 0:
            area.check()
    area.check()


def together():
    """Threads write while another one drops, protects and forks beside them."""
    area = Area()
    done = threading.Event()

    def write(part):
        number = 0
        pages = range(part, len(area.pages), 4)
        while not done.is_set():
            number += 1
            for page in pages:
                area.word(page).value = number
            assert all(area.word(page).value == number for page in pages)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        for page in range(3, len(area.pages), 64 + 4 * number):
            at = area.at + page * PAGE
            assert libc.madvise(at, PAGE, 4) == 0 and area.word(page).value == 0
            assert libc.mprotect(at, PAGE, mmap.PROT_READ) == 0
            assert libc.mprotect(at, PAGE, RW) == 0
    done.set()
    for thread in threads:
        thread.join()


def as_told():
    """Whether there are huge pages, if the system says that who asks gets them."""
    area = Area()
    for page in range(0, len(area.pages), 512):
        area.word(page).value = 1
    smaps = open("/proc/self/smaps").read()
    have = sum(int(kib) for kib in re.findall(r"AnonHugePages: *(\d+)", smaps))
    said = open("/sys/kernel/mm/transparent_hugepage/enabled").read()
    print("as told:", (have >= SPANS * 2048) == ("[never]" not in said), flush=True)


for seed in range(6):
    print("walk", seed, child(lambda: walk(seed)))
print("together", child(together))
print(child(as_told))


print("== seals")


def tried(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def sealed():
    """What can be sealed under which mappings, and what seals stop."""
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE)
    reader = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
    to_write = lambda of=fd: mmap.mmap(of, PAGE, mmap.MAP_SHARED, RW)
    to_read = lambda of=fd: mmap.mmap(of, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
    own = lambda: mmap.mmap(fd, PAGE, mmap.MAP_PRIVATE, RW)
    seal = lambda seals: tried(fcntl.fcntl, fd, fcntl.F_ADD_SEALS, seals)
    print("by a reader:", tried(fcntl.fcntl, reader, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK))
    first, half = to_write(), to_read()
    print("written:", seal(fcntl.F_SEAL_WRITE), fcntl.fcntl(fd, fcntl.F_GET_SEALS))
    first.close()
    print("might be written:", seal(fcntl.F_SEAL_WRITE))
    half.close()
    private, only_read = own(), to_read(reader)
    private[0] = 7
    print("a child's:", child(lambda: os._exit(3 if seal(fcntl.F_SEAL_GROW) == 0 else 4)))
    print("sealed:", seal(fcntl.F_SEAL_WRITE), fcntl.fcntl(fd, fcntl.F_GET_SEALS))
    print(private[0], only_read[0], own()[0], tried(to_write), tried(os.write, fd, b"x"))
    print(tried(os.pwrite, fd, b"x", PAGE), tried(os.ftruncate, fd, 10), seal(fcntl.F_SEAL_SEAL), seal(fcntl.F_SEAL_SHRINK), flush=True)


print(child(sealed))
