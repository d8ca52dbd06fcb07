# ss of iproute2 by family, state, queues, peers and owners; messages cut into datagrams, connections taken back, ends and resets, interfaces in /sys.

import ctypes
import errno
import fcntl
import os
import re
import select
import socket
import struct
import subprocess

# What a shell may have left open.
os.closerange(3, 64)
MINE = f"pid={os.getpid()},"
HELD = []


def hold(s):
    """Keeps a socket open to the end; its descriptor tells it from others."""
    HELD.append(s)
    return s


def tcp(family, host, port, **options):
    s = hold(socket.socket(family, socket.SOCK_STREAM))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "only" in options:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options["only"])
    s.bind((host, port))
    return s


def client(port, to, family=socket.AF_INET, host="127.0.0.1"):
    s = tcp(family, host, port)
    s.connect((host, to))
    return s


def udp(family, address):
    s = hold(socket.socket(family, socket.SOCK_DGRAM))
    s.bind(address)
    return s


def ss(*options):
    """Lines about this process, spaces made even, in an order of their own."""
    out = subprocess.run(["ss", "-H", *options], capture_output=True, text=True, check=True)
    if out.stderr:
        print("stderr:", out.stderr.strip())
    lines = [" ".join(line.split()) for line in out.stdout.splitlines()]
    return sorted(line.replace(MINE, "pid=N,") for line in lines)


def show(*options, keep="pid=N,"):
    print("##", "ss", *options)
    for line in ss(*options):
        if keep in line:
            # Linux counts an end that was not read as a byte.
            print(re.sub(r"^(CLOSE-WAIT) [01]", r"\1", line))


listener = tcp(socket.AF_INET, "127.0.0.1", 47001)
listener.listen(5)
tcp(socket.AF_INET6, "::", 47002, only=0).listen(7)
tcp(socket.AF_INET6, "::1", 47003, only=1).listen(9)
tcp(socket.AF_INET, "0.0.0.0", 47004).listen(0)
tcp(socket.AF_INET, "127.0.0.1", 47005)

plain = client(47011, 47001)
hold(listener.accept()[0])
full = client(47012, 47001)
hold(listener.accept()[0])
full.send(b"0123456789")
half = client(47013, 47001)
hold(listener.accept()[0])
half.shutdown(socket.SHUT_WR)
six = client(47014, 47003, socket.AF_INET6, "::1")
mapped = client(47015, 47002)
hold(HELD[1].accept()[0])
client(47016, 47001)

udp(socket.AF_INET, ("127.0.0.1", 47021))
udp(socket.AF_INET, ("0.0.0.0", 47022)).connect(("127.0.0.1", 47021))
udp(socket.AF_INET6, ("::", 47023))
udp(socket.AF_INET6, ("::1", 47024))

show("-tanp")
show("-tlnp")
show("-tn", "state", "established", "sport", "=", ":47012", keep="4701")
show("-tn4", "state", "fin-wait-2", keep="470")
show("-tan6p")
# Of a connection that waits to be accepted no program holds an end.
show("-tan", "sport", "=", ":47001", keep="47016")
show("-uanp")
show("-unp", "state", "connected")

for name in ("ss.stream", "ss.packets", "ss.datagrams"):
    if os.path.exists(name):
        os.unlink(name)
stream = hold(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
stream.bind("ss.stream")
stream.listen(3)
packets = hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
packets.bind("\0skep-ss-packets")
packets.listen(4)
datagrams = hold(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
datagrams.bind("ss.datagrams")
for to in ("ss.stream", "\0skep-ss-packets", "ss.datagrams"):
    kind = {"ss.stream": stream, "ss.datagrams": datagrams}.get(to, packets).type
    hold(socket.socket(socket.AF_UNIX, kind)).connect(to)
first = hold(stream.accept()[0])
hold(packets.accept()[0])
# This one waits.
hold(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)).connect("ss.stream")
a, b = socket.socketpair()
hold(a), hold(b)
b.send(b"to be read")
c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
hold(c), hold(d)
hold(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
e, f = socket.socketpair()
hold(e)
f.close()

print("## ss -xap")
inodes = {str(os.fstat(s.fileno()).st_ino): s.fileno() for s in HELD}
for fields in sorted(
    (line.split() for line in ss("-xap") if "pid=N," in line),
    key=lambda fields: int(re.search(r"fd=(\d+)", fields[-1])[1]),
):
    kind, state, unread, unsent, local, own, peer, other, owner = fields
    # What was sent and not read yet is counted with its buffers.
    unsent = "some" if state == "ESTAB" and unsent != "0" else unsent
    print(kind, state, unread, unsent, local, inodes[own], peer, inodes.get(other, other), owner)
print("## ss -xlp")
for line in ss("-xlp"):
    if "pid=N," in line:
        print(re.sub(r"\b\d{3,}\b", "N", line))


def said(f, *args):
    """What a call answers, or the name of its error."""
    try:
        return f(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


def error(s):
    number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(number, number)


print("## messages cut into datagrams")
SOL_UDP, UDP_SEGMENT = socket.IPPROTO_UDP, 103


def came(s):
    """The lengths of what waits; those of a run of equal ones once."""
    lengths = []
    while isinstance(n := said(s.recv_into, bytearray(70000)), int):
        lengths.append(n)
    return [(n, lengths.count(n)) for n in sorted(set(lengths), reverse=True)]


def cut(s, data, size, *flags):
    return said(s.sendmsg, [data], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", size))], *flags)


for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    r = socket.socket(family, socket.SOCK_DGRAM)
    r.bind((host, 0))
    r.setblocking(False)
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.connect(r.getsockname())
    for size in (-1, 0, 1, 65535, 65536, 1000):
        kept = said(s.setsockopt, SOL_UDP, UDP_SEGMENT, size)
        print(size, kept, s.getsockopt(SOL_UDP, UDP_SEGMENT))
    print("short", said(s.setsockopt, SOL_UDP, UDP_SEGMENT, b"\1\0"))
    print("unknown", said(s.setsockopt, SOL_UDP, 99, 1), said(s.getsockopt, SOL_UDP, 99))
    for n in (0, 1, 1000, 1001, 3500, 64000, 65507):
        print(n, said(s.send, bytes(n)), came(r))
    s.setsockopt(SOL_UDP, UDP_SEGMENT, 65535)
    print("whole", said(s.send, bytes(2000)), said(s.send, bytes(65507)), came(r))
    s.setsockopt(SOL_UDP, UDP_SEGMENT, 1)
    print("many", said(s.send, bytes(64)), said(s.send, bytes(200)), came(r))
    s.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    print("control", cut(s, bytes(2500), 1000), came(r), cut(s, bytes(2500), 0), came(r))
    print("more", cut(s, bytes(1500), 700, socket.MSG_MORE), s.send(bytes(1000)), came(r))
    print("last", s.send(bytes(1500), socket.MSG_MORE), cut(s, bytes(1000), 700), came(r))
    for control in (
        (SOL_UDP, UDP_SEGMENT, b"1234"),
        (SOL_UDP, 104, b"12"),
        (SOL_UDP, 99, b""),
        (socket.SOL_SOCKET, 99, b"1234"),
        (socket.SOL_IP, 99, b"1234"),
        (socket.IPPROTO_IPV6, 99, b"1234"),
        (socket.IPPROTO_TCP, 1, b""),
        (200, 99, b""),
    ):
        print(control, said(s.sendmsg, [b"x"], [control]), came(r))

print("## connections taken back")
libc = ctypes.CDLL(None, use_errno=True)


def take_back(s):
    """connect(2) with AF_UNSPEC, for which Python has no words."""
    if libc.connect(s.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16) < 0:
        return errno.errorcode[ctypes.get_errno()]


def ready(s):
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    return [hex(e) for _, e in p.poll(0)]


def state(s):
    port = s.getsockname()[1]
    return port if port == 47102 else "", said(s.getpeername), s.getsockopt(6, 11, 1)[0]


server = tcp(socket.AF_INET, "127.0.0.1", 47101)
server.listen(9)
at = server.getsockname()
s = socket.socket()
print("new", take_back(s), ready(s), state(s), error(s))
for bound in (None, 0, 47102):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bound is not None:
        s.bind(("127.0.0.1", bound))
    for step in ("error", "send", "recv"):
        print(bound, step, said(s.connect, at), said(s.connect, at))
        peer, _ = server.accept()
        peer.send(b"unread")
        print(s.send(b"x"), peer.recv(1), take_back(s), ready(s), state(s))
        print(said(peer.recv, 9), said(peer.recv, 9), said(peer.send, b"1"))
        if step == "error":
            print(error(s), error(s), ready(s))
        elif step == "send":
            print(said(s.send, b"1"), said(s.send, b"1"), said(s.recv, 1), ready(s))
        else:
            print(said(s.recv, 1), said(s.recv, 1))
        peer.close()
    print("bind", said(s.bind, ("127.0.0.1", 0)))

s = socket.socket()
s.connect(at)
print("again", take_back(s), take_back(s), said(s.connect, at), error(s), said(s.connect, at))
server.accept()[0].close()
peer, _ = server.accept()
peer.send(b"abc")
peer.close()
print("ended", s.recv(4), s.recv(4), take_back(s), error(s), state(s))
s.connect(at)
s.shutdown(socket.SHUT_WR)
server.accept()[0].close()
print("both ended", s.recv(1), take_back(s), error(s), state(s))
s.connect(at)
peer, _ = server.accept()
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
peer.close()
print("reset", ready(s), take_back(s), error(s), state(s))
s.setblocking(False)
print("at once", said(s.connect, at), error(s), select.select([], [s], [], 9)[1] == [s])
print(said(s.connect, at), said(s.connect, at), error(s))
peer, _ = server.accept()
s.send(b"there")
peer.send(b"back")
print(peer.recv(9), select.select([s], [], [], 9)[0] == [s], s.recv(9), state(s))
# Waiting: without, Linux makes even this attempt behind the program's back.
s.setblocking(True)
print("refused", take_back(s), said(s.connect, ("127.0.0.1", 1)), take_back(s))
print(error(s), said(s.connect, at))
listening = tcp(socket.AF_INET, "127.0.0.1", 47103)
listening.listen()
waits = socket.create_connection(listening.getsockname())
print("listener", take_back(listening), state(listening), error(listening))
print(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), ready(listening))
print(said(listening.accept), said(waits.recv, 1))
print(said(socket.socket().connect, ("127.0.0.1", 47103)))
print(said(listening.listen), said(socket.socket().connect, ("127.0.0.1", 47103)))

print("## nothing sent to who is gone")
s = socket.create_connection(at)
while (peer := server.accept()[0]).getpeername() != s.getsockname():
    peer.close()
peer.close()
print(s.recv(1), [s.sendall(b"") for _ in range(3)], ready(s), error(s))
print(said(s.send, b"x"), said(s.send, b""), said(s.send, b"x"))

print("## interfaces in /sys")
CLASS = "/sys/class/net"


def tells(interface, file):
    def read():
        with open(f"{CLASS}/{interface}/{file}") as f:
            return f.read()

    return said(read)


for file in (
    *("address", "addr_len", "broadcast", "carrier", "duplex", "flags", "ifindex", "iflink"),
    *("mtu", "operstate", "speed", "type", "uevent", "nothing"),
):
    print(file, repr(tells("lo", file)))
print(os.readlink(f"{CLASS}/lo"), os.path.isdir(f"{CLASS}/lo/"))
listed = sorted(name for _, name in socket.if_nameindex())
print("as by netlink:", sorted(os.listdir(CLASS)) == listed)
for name in listed:
    ask = lambda number: fcntl.ioctl(listener, number, struct.pack("32s", name.encode()))[16:]
    flags, mtu = struct.unpack("H", ask(0x8913)[:2])[0], struct.unpack("i", ask(0x8921)[:4])[0]
    hardware, address = struct.unpack("H6s", ask(0x8927)[:8])
    for right in (
        tells(name, "ifindex") == f"{socket.if_nametoindex(name)}\n",
        int(tells(name, "flags"), 16) == flags & ~0x40,
        tells(name, "mtu") == f"{mtu}\n",
        tells(name, "type") == f"{hardware}\n",
        tells(name, "address") == address.hex(":") + "\n" or not address.strip(b"\0"),
        tells(name, "operstate") in ("up\n", "down\n", "unknown\n"),
    ):
        if not right:
            print(name, "is told differently")
