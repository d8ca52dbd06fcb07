// HTTP server and client, garbage collection under the load of threads, processes, files, threads; built by Debian's JDK.
import com.sun.net.httpserver.HttpServer;
import java.lang.management.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

public class Main {
    record Item(int id, String name) {}

    public static void main(String[] arguments) throws Exception {
        http();
        collect();
        processes();
        files();
        threads();
        garbage();
    }

    static void http() throws Exception {
        System.out.println("== http");
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        var pool = Executors.newFixedThreadPool(4);
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            var body = exchange.getRequestBody().readAllBytes();
            var answer = (exchange.getRequestURI() + " " + body.length).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            try (var out = exchange.getResponseBody()) { out.write(answer); }
        });
        server.start();
        var client = HttpClient.newHttpClient();
        var base = "http://127.0.0.1:" + server.getAddress().getPort();
        var asked = IntStream.range(0, 10).mapToObj(n -> client.sendAsync(
            HttpRequest.newBuilder(URI.create(base + "/" + n)).POST(HttpRequest.BodyPublishers.ofString("x".repeat(n * 1000))).build(),
            HttpResponse.BodyHandlers.ofString())).toList();
        for (var one : asked) System.out.println(one.get().body());
        server.stop(0);
        pool.shutdown();
    }

    static void collect() {
        System.out.println("== memory");
        var kept = new ArrayDeque<byte[]>();
        long sum = 0;
        for (int i = 0; i < 3000; i++) {
            kept.add(new byte[20000]);
            if (kept.size() > 200) sum += kept.poll().length;
        }
        System.gc();
        System.out.println(sum + " " + (Runtime.getRuntime().totalMemory() > 0));
        try { var huge = new long[Integer.MAX_VALUE - 8]; System.out.println(huge.length); } catch (OutOfMemoryError error) { System.out.println("out of memory"); }
        try { recurse(0); } catch (StackOverflowError error) { System.out.println("stack overflow"); }
        String none = arguments(); try { System.out.println(none.length()); } catch (NullPointerException error) { System.out.println("null pointer"); }
        System.out.println(IntStream.range(0, 100000).parallel().mapToObj(n -> new Item(n, "n" + n % 7)).collect(Collectors.groupingByConcurrent(Item::name, Collectors.counting())).entrySet().stream().map(Object::toString).sorted().toList());
    }

    static String arguments() { return null; }

    static int recurse(int n) { return recurse(n + 1) + 1; }

    /** Threads that make garbage while the collector's threads move what they keep. */
    static void garbage() throws Exception {
        System.out.println("== garbage");
        var pool = Executors.newFixedThreadPool(6);
        var sums = IntStream.range(0, 6).mapToObj(seed -> pool.submit(() -> {
            var kept = new HashMap<Integer, int[]>();
            for (int i = 0; i < 30000; i++) {
                var block = new int[500];
                Arrays.fill(block, i * 6 + seed);
                kept.put(i % 1000, block);
            }
            long sum = 0;
            for (var block : kept.values()) for (int value : block) sum += value;
            return sum;
        })).toList();
        for (var sum : sums) System.out.println(sum.get());
        pool.shutdown();
        System.out.println(pool.awaitTermination(10, TimeUnit.SECONDS));
        for (var collector : ManagementFactory.getGarbageCollectorMXBeans()) {
            // From Java 20 on there is one that begins when it finds the heap full enough: a matter of time.
            boolean whenever = collector.getName().equals("G1 Concurrent GC");
            System.out.println(collector.getName() + ": " + (whenever || collector.getCollectionCount() > 0));
        }
    }

    static void processes() throws Exception {
        System.out.println("== processes");
        var process = new ProcessBuilder("sh", "-c", "cat; echo err >&2; exit 5").redirectErrorStream(true).start();
        process.outputWriter().append("given\n").close();
        System.out.print(new String(process.getInputStream().readAllBytes()));
        System.out.println(process.waitFor());
        var sleeper = new ProcessBuilder("sleep", "100").start();
        System.out.println(sleeper.waitFor(30, TimeUnit.MILLISECONDS) + " " + sleeper.toHandle().isAlive());
        sleeper.destroyForcibly();
        System.out.println(sleeper.waitFor() + " " + ProcessHandle.current().info().command().isPresent());
    }

    static void files() throws Exception {
        System.out.println("== files");
        var folder = Files.createTempDirectory("java");
        var file = folder.resolve("file");
        try (var channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            var map = channel.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
            for (int i = 0; i < 1 << 18; i++) map.putInt(i);
            map.force();
            var part = ByteBuffer.allocate(4);
            channel.read(part, 4000);
            System.out.println(part.getInt(0) + " " + channel.size());
            try (var lock = channel.tryLock()) { System.out.println("locked " + lock.isValid()); }
        }
        Files.move(file, folder.resolve("moved"), StandardCopyOption.ATOMIC_MOVE);
        Files.createSymbolicLink(folder.resolve("link"), Path.of("moved"));
        try (var watcher = FileSystems.getDefault().newWatchService()) {
            folder.register(watcher, StandardWatchEventKinds.ENTRY_CREATE);
            Files.writeString(folder.resolve("new"), "text");
            System.out.println(watcher.poll(20, TimeUnit.SECONDS).pollEvents().get(0).context());
        }
        try (var list = Files.walk(folder)) { System.out.println(list.map(p -> folder.relativize(p).toString()).sorted().toList()); }
        try { Files.readString(folder.resolve("none")); } catch (NoSuchFileException error) { System.out.println("no such file"); }
    }

    static void threads() throws Exception {
        System.out.println("== threads");
        var total = new LongAdder();
        var pool = Executors.newFixedThreadPool(16);
        var latch = new CountDownLatch(200);
        for (int i = 0; i < 200; i++) { int n = i; pool.submit(() -> { total.add(n); latch.countDown(); }); }
        latch.await();
        pool.shutdown();
        System.out.println(total + " " + pool.awaitTermination(10, TimeUnit.SECONDS));
        var queue = new SynchronousQueue<Integer>();
        var thread = new Thread(() -> { try { for (int i = 0; i < 1000; i++) queue.put(i); } catch (InterruptedException error) { } });
        thread.start();
        int sum = 0;
        for (int i = 0; i < 1000; i++) sum += queue.take();
        System.out.println(sum);
        var sleeping = new Thread(() -> { try { Thread.sleep(100000); } catch (InterruptedException error) { System.out.println("interrupted"); } });
        sleeping.start();
        sleeping.interrupt();
        sleeping.join();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
    }
}
