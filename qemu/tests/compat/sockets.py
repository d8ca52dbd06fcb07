# ss of iproute2: the sockets of this process by family, state, queues, peers and owners.

import os
import re
import socket
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
