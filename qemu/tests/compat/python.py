# The standard library: files, sqlite3, subprocess, threading, multiprocessing, http.server, ssl, asyncio.
import asyncio, hashlib, http.client, http.server, json, mmap, multiprocessing, os, select, signal
import socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time, queue, zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def square(number):
    return number * number


def files():
    print("== files")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "wb") as file:
            file.write(b"0123456789" * 1000)
        with open(path, "r+b") as file:
            with mmap.mmap(file.fileno(), 0) as view:
                view[5:10] = b"HELLO"
                print(view[:12], view.find(b"789"), len(view))
        print(os.stat(path).st_size, oct(os.stat(path).st_mode), sorted(os.listdir(folder)))
        os.rename(path, path + ".new")
        os.symlink("file.new", path)
        print(os.readlink(path), os.path.realpath(path) == path + ".new")
        with os.scandir(folder) as entries:
            print(sorted((entry.name, entry.is_symlink()) for entry in entries))
        os.truncate(path, 100)
        print(hashlib.sha256(open(path, "rb").read()).hexdigest(), zlib.crc32(b"skep"))
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        os.write(fd, b"end")
        print(os.pread(fd, 10, 95), os.lseek(fd, 0, os.SEEK_END))
        os.close(fd)
        try:
            open(os.path.join(folder, "none"))
        except FileNotFoundError as error:
            print(error.errno, error.strerror)


def database():
    print("== sqlite3")
    base = sqlite3.connect("test.db")
    base.execute("pragma journal_mode=wal")
    base.execute("create table t (id integer primary key, name text, value real)")
    with base:
        base.executemany("insert into t (name, value) values (?, ?)", ((f"n{i}", i / 7) for i in range(2000)))
    other = sqlite3.connect("test.db")
    print(other.execute("select count(*), round(sum(value), 3), max(name) from t").fetchone())
    other.execute("begin immediate")
    other.execute("delete from t where id % 2 = 0")
    other.rollback()
    print(base.execute("select count(*) from t where id % 2 = 0").fetchone(), os.path.exists("test.db-wal"))
    print(base.execute("pragma integrity_check").fetchone())
    other.close()
    base.close()


def processes():
    print("== processes")
    print(subprocess.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True))
    pipe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(pipe.communicate(b"x" * 200000)[0].count(b"x"), pipe.returncode)
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        sleeper.wait(0.05)
    except subprocess.TimeoutExpired:
        sleeper.kill()
    print(sleeper.wait())
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    env = dict(os.environ, GREETING="hello")
    print(subprocess.check_output("echo $GREETING; pwd", shell=True, env=env, cwd="/", text=True).split())
    caught = []
    signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    while len(caught) < 3:
        time.sleep(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(len(caught) >= 3, signal.sigtimedwait([signal.SIGUSR1], 0.01))


def threads():
    print("== threads")
    jobs, results = queue.Queue(), []
    lock = threading.Lock()

    def work():
        while (job := jobs.get()) is not None:
            with lock:
                results.append(job * 2)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for job in range(500):
        jobs.put(job)
    for _ in workers:
        jobs.put(None)
    for worker in workers:
        worker.join()
    print(sum(results), len(results))
    with ThreadPoolExecutor(4) as pool:
        print(list(pool.map(square, range(10))))
    barrier, event = threading.Barrier(3), threading.Event()
    waiting = [threading.Thread(target=lambda: (barrier.wait(), event.wait())) for _ in range(2)]
    for thread in waiting:
        thread.start()
    barrier.wait()
    event.set()
    for thread in waiting:
        thread.join(5)
    print([thread.is_alive() for thread in waiting], threading.Condition().acquire(timeout=1))


def many_processes():
    print("== multiprocessing")
    with multiprocessing.Pool(3) as pool:
        print(pool.map(square, range(20)))
    with ProcessPoolExecutor(2) as pool:
        print(sum(pool.map(square, range(100))))
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        value, ends = context.Value("i", 40), context.Pipe()
        process = context.Process(target=add, args=(value, ends[1]))
        process.start()
        print(method, ends[0].recv(), process.join(), value.value, process.exitcode)
    semaphore = multiprocessing.Semaphore(2)
    print(semaphore.acquire(timeout=1), semaphore.acquire(timeout=1), semaphore.acquire(timeout=0.05))
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.buf[:4] = b"skep"
    other = shared_memory.SharedMemory(memory.name)
    print(bytes(other.buf[:4]))
    other.close()
    memory.close()
    memory.unlink()


def add(value, end):
    with value.get_lock():
        value.value += 2
    end.send({"pid": os.getpid() > 0})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"path": self.path, "size": len(body)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def network():
    print("== network")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = http.client.HTTPConnection(*server.server_address)
    for size in (10, 100000):
        client.request("POST", f"/{size}", b"a" * size)
        print(client.getresponse().read())
    client.close()
    server.shutdown()
    server.server_close()
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(one, [b"with"], [sys.stdout.fileno()])
    message, passed, _, _ = socket.recv_fds(two, 100, 1)
    print(message, len(passed), os.fstat(passed[0]).st_ino == os.fstat(sys.stdout.fileno()).st_ino)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.sendto(b"datagram", udp.getsockname())
    print(udp.recvfrom(100)[0], select.select([udp], [], [], 0.01)[0])
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    peer = socket.create_connection(six.getsockname()[:2])
    print(six.accept()[1][0], peer.getpeername()[0])
    try:
        socket.create_connection(("127.0.0.1", 1), timeout=2)
    except ConnectionRefusedError as error:
        print(error.strerror)
    print(socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])


def secure():
    print("== ssl")
    subprocess.run("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
                   " -addext subjectAltName=DNS:localhost", shell=True, check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain("cert.pem", "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection = serving.wrap_socket(listener.accept()[0], server_side=True)
        connection.sendall(connection.recv(100).upper())
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.create_default_context(cafile="cert.pem")
    with trusting.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost") as client:
        client.sendall(b"secret")
        print(client.version(), client.recv(100), client.getpeercert()["subject"])
    thread.join()


async def asynchronous():
    print("== asyncio")

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line[::-1].strip() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async def ask(number):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"question {number}\n".encode())
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer.decode().strip()

    print(await asyncio.gather(*(ask(number) for number in range(20))))
    child = await asyncio.create_subprocess_exec("sort", "-n", stdin=-1, stdout=-1)
    print((await child.communicate(b"10\n9\n1\n"))[0], child.returncode)
    print(await asyncio.to_thread(square, 12))
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.02)
    except asyncio.TimeoutError:
        print("timed out")
    server.close()
    loop = asyncio.get_running_loop()
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(got.wait(), 5)
    print("signal seen")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    files()
    database()
    processes()
    threads()
    many_processes()
    network()
    secure()
    asyncio.run(asynchronous())
