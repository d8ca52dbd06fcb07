// HTTP, a storm of goroutines, processes, signals, files and sockets; a static program built by Debian's Go.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func web() {
	fmt.Println("== net/http")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d", r.URL.Path, n)
	})}
	go server.Serve(listener)
	answers := make([]string, 50)
	var group sync.WaitGroup
	for i := range answers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			r, err := http.Post(fmt.Sprintf("http://%s/%d", listener.Addr(), i), "", strings.NewReader(strings.Repeat("x", i*1000)))
			check(err)
			text, err := io.ReadAll(r.Body)
			check(err)
			r.Body.Close()
			answers[i] = string(text)
		}(i)
	}
	group.Wait()
	fmt.Println(answers[7], answers[49], len(answers))
	check(server.Shutdown(context.Background()))
	_, err = http.Get("http://" + listener.Addr().String())
	fmt.Println(err != nil && strings.Contains(err.Error(), "refused"))
}

func storm() {
	fmt.Println("== goroutines")
	var count atomic.Int64
	var group sync.WaitGroup
	channel := make(chan int)
	for i := 0; i < 10000; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			count.Add(int64(<-channel))
			runtime.Gosched()
		}()
	}
	for i := 0; i < 10000; i++ {
		channel <- i
	}
	group.Wait()
	fmt.Println(count.Load())
	stop := make(chan bool)
	for i := 0; i < 3; i++ {
		go func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	var rubbish [][]byte
	for i := 0; i < 300; i++ {
		rubbish = append(rubbish[max(0, len(rubbish)-20):], make([]byte, 100000))
	}
	runtime.GC()
	close(stop)
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("timer", len(rubbish) > 0)
	}
	defer func() { fmt.Println("recovered:", recover()) }()
	var none *atomic.Int64
	none.Load()
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func processes() {
	fmt.Println("== os/exec")
	command := exec.Command("sh", "-c", "cat; echo err >&2; exit 6")
	command.Stdin = strings.NewReader("given ")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	fmt.Println(strings.TrimSpace(out.String()), err)
	limit, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fmt.Println(exec.CommandContext(limit, "sleep", "100").Run())
	_, err = exec.Command("no-such-program").Output()
	fmt.Println(err)
	var group sync.WaitGroup
	for i := 0; i < 20; i++ {
		group.Add(1)
		go func() { defer group.Done(); check(exec.Command("true").Run()) }()
	}
	group.Wait()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println(<-signals)
	check(syscall.Kill(os.Getpid(), syscall.SIGTERM))
	fmt.Println(<-signals)
}

func files() {
	fmt.Println("== files")
	folder, err := os.MkdirTemp("", "go")
	check(err)
	defer os.RemoveAll(folder)
	for i := 0; i < 5; i++ {
		check(os.WriteFile(filepath.Join(folder, fmt.Sprint("f", i)), bytes.Repeat([]byte("x"), i*100), 0o640))
	}
	check(os.Mkdir(filepath.Join(folder, "d"), 0o755))
	check(os.Symlink("f1", filepath.Join(folder, "link")))
	var found []string
	check(filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		info, err := entry.Info()
		check(err)
		found = append(found, fmt.Sprint(filepath.Base(path)[:1], info.Mode()))
		return nil
	}))
	sort.Strings(found)
	fmt.Println(found)
	source, err := os.Open("/proc/self/exe")
	check(err)
	target, err := os.Create(filepath.Join(folder, "copy"))
	check(err)
	_, err = io.Copy(target, source)
	check(err)
	one, _ := os.ReadFile("/proc/self/exe")
	two, _ := os.ReadFile(target.Name())
	fmt.Println(sha256.Sum256(one) == sha256.Sum256(two), len(two) > 1000000)
	_, err = os.Stat(filepath.Join(folder, "none"))
	fmt.Println(os.IsNotExist(err))
	data, err := syscall.Mmap(int(target.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	check(err)
	fmt.Println(string(data[1:4]))
	check(syscall.Munmap(data))
}

func sockets() {
	fmt.Println("== sockets")
	path := filepath.Join(os.TempDir(), "go.sock")
	listener, err := net.Listen("unix", path)
	check(err)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go io.Copy(connection, connection)
		}
	}()
	connection, err := net.Dial("unix", path)
	check(err)
	connection.Write([]byte("echo"))
	buffer := make([]byte, 10)
	n, err := connection.Read(buffer)
	check(err)
	connection.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = connection.Read(buffer)
	fmt.Println(string(buffer[:n]), os.IsTimeout(err))
	listener.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	_, err = udp.WriteTo([]byte("datagram"), udp.LocalAddr())
	check(err)
	n, from, err := udp.ReadFrom(buffer)
	check(err)
	fmt.Println(string(buffer[:n]), from.String() == udp.LocalAddr().String())
	names, err := net.LookupHost("localhost")
	sort.Strings(names)
	fmt.Println(names[len(names)-1] != "", err)
	interfaces, err := net.Interfaces()
	check(err)
	fmt.Println(interfaces[0].Name, interfaces[0].Flags&net.FlagLoopback != 0)
}

func main() {
	web()
	storm()
	processes()
	files()
	sockets()
}
