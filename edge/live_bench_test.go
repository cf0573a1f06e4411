package edge

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"waitingroom/origin/queue"
)

// BenchmarkMemoryPerConnection reports what an idle live connection takes of this process: resident,
// and of that the heap and the stacks. The clients are sockets of the kernel and nothing else, so
// what grows is the edge's.
func BenchmarkMemoryPerConnection(b *testing.B) {
	const connections = 8000
	for _, kind := range liveKinds {
		b.Run(kind, func(b *testing.B) {
			o := newScripted(b)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: connections})
			e := startEdge(b, o, func(c *Config) { c.Limits.LiveUpgradesPerSecond = 1_000_000 })
			for range b.N {
				tickets := make([]string, connections)
				ids := make([]string, connections)
				for i := range tickets {
					tickets[i], ids[i] = o.ticketAt(b, uint64(i+1))
				}
				clients := make([]int, connections)
				before, heapBefore, stackBefore := settledMemory(b)
				for i := range clients {
					clients[i] = dialKernel(b, e.Addr().(*net.TCPAddr), liveRequest(kind, tickets[i], ids[i]))
				}
				waitFor(b, "the connections", func() bool { return e.hub.Open() == connections })
				raw := residentMemory(b)
				after, heapAfter, stackAfter := settledMemory(b)
				b.ReportMetric((raw-before)/connections, "unsettledRSS/conn")
				b.ReportMetric((after-before)/connections, "rss/conn")
				b.ReportMetric((heapAfter-heapBefore)/connections, "heap/conn")
				b.ReportMetric((stackAfter-stackBefore)/connections, "stack/conn")
				for _, fd := range clients {
					_ = syscall.Close(fd)
				}
				waitFor(b, "the connections to go", func() bool { return e.hub.Open() == 0 })
			}
		})
	}
}

func liveRequest(kind, token, id string) string {
	path, more := "/events", ""
	if kind == "ws" {
		path = "/ws"
		more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	}
	return "GET /tickets/" + id + path + " HTTP/1.1\r\nHost: wait.example\r\nAuthorization: Bearer " + token + "\r\n" + more + "\r\n"
}

// dialKernel connects a socket of which Go knows nothing, sends a request and reads the answer with
// the first event.
func dialKernel(b *testing.B, to *net.TCPAddr, request string) (fd int) {
	b.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	address := &syscall.SockaddrInet4{Port: to.Port}
	copy(address.Addr[:], to.IP.To4())
	if err := syscall.Connect(fd, address); err != nil {
		b.Fatal(err)
	}
	if _, err := syscall.Write(fd, []byte(request)); err != nil {
		b.Fatal(err)
	}
	var answer strings.Builder
	buffer := make([]byte, 2048)
	for !strings.Contains(answer.String(), `"stale":`) {
		n, err := syscall.Read(fd, buffer)
		if err != nil || n == 0 {
			b.Fatalf("read: %v after %q", err, answer.String())
		}
		answer.Write(buffer[:n])
	}
	return fd
}

func residentMemory(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, resident float64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * float64(os.Getpagesize())
}

// settledMemory is the memory after garbage was collected and given back.
func settledMemory(b *testing.B) (resident, heap, stacks float64) {
	b.Helper()
	for range 3 {
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return residentMemory(b), float64(m.HeapAlloc), float64(m.StackInuse)
}

// BenchmarkFanOut tells everybody at once and reports what it takes for each connection, from the
// mark to the client's kernel: rendering, framing and the write, and the client's read.
func BenchmarkFanOut(b *testing.B) {
	const connections = 2000
	for _, kind := range liveKinds {
		b.Run(kind, func(b *testing.B) {
			e, o := benchEdge(b)
			clients := make([]int, connections)
			for i := range clients {
				token, id := o.ticketAt(b, uint64(40*i+1))
				clients[i] = dialKernel(b, e.Addr().(*net.TCPAddr), liveRequest(kind, token, id))
			}
			defer func() {
				for _, fd := range clients {
					_ = syscall.Close(fd)
				}
			}()
			waitFor(b, "the connections", func() bool { return e.hub.Open() == connections })
			live := e.known.current.Load().lines["acme.sale"].live
			buffer := make([]byte, 1<<16)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				live.TellAll(false)
				for _, fd := range clients {
					if n, err := syscall.Read(fd, buffer); n <= 0 {
						b.Fatalf("read: %v", err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/conn")
		})
	}
}
