package netswitch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket/pcapgo"
)

// Stations of the tests: one letter, one address. "*" is broadcast, "m" a
// multicast group.
func station(name byte) MAC {
	switch name {
	case '*':
		return MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case 'm':
		return MAC{0x33, 0x33, 0, 0, 0, 1}
	}
	return MAC{0x52, 0x54, 0, 0, 0, name}
}

func frameOf(dst, src byte, payload int) []byte {
	d, s := station(dst), station(src)
	f := append(append([]byte{}, d[:]...), s[:]...)
	f = append(f, 0x08, 0x00)
	return append(f, make([]byte, payload)...)
}

// bench is a switch with a device at each port that notes what it hears.
type bench struct {
	sw     *Switch
	ports  []*Port
	mu     sync.Mutex
	heard  map[int]int
	frames map[int][][]byte
}

func newBench(t *testing.T, cfg Config, n int) *bench {
	b := &bench{sw: New(cfg), heard: map[int]int{}, frames: map[int][][]byte{}}
	for i := range n {
		p := b.sw.AddPort(fmt.Sprintf("p%d", i))
		unplug, err := p.Attach(func(f []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.heard[i]++
			b.frames[i] = append(b.frames[i], slices.Clone(f))
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unplug)
		b.ports = append(b.ports, p)
	}
	return b
}

// take returns which ports heard something since the last call, as "p0 p2".
func (b *bench) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for i := range b.ports {
		for range b.heard[i] {
			names = append(names, fmt.Sprintf("p%d", i))
		}
	}
	clear(b.heard)
	return strings.Join(names, " ")
}

// TestForwarding plays vectors: a step is "port src>dst" or a wait, and says
// which ports must hear it.
func TestForwarding(t *testing.T) {
	type step struct {
		do   string // "0 a>b", "wait 301s", "cut 1", "heal 1"
		want string
	}
	for _, tt := range []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"unknown unicast floods", Config{}, []step{{"0 a>b", "p1 p2"}}},
		{"broadcast floods", Config{}, []step{{"0 a>*", "p1 p2"}, {"2 c>*", "p0 p1"}}},
		{"multicast floods, also once seen", Config{}, []step{{"0 a>m", "p1 p2"}, {"1 b>m", "p0 p2"}}},
		{"learned unicast goes to one port", Config{}, []step{{"1 b>*", "p0 p2"}, {"0 a>b", "p1"}, {"1 b>a", "p0"}}},
		{"both behind one port: filtered", Config{}, []step{{"1 b>*", "p0 p2"}, {"1 c>b", ""}}},
		{"a station moves", Config{}, []step{{"1 b>*", "p0 p2"}, {"2 b>*", "p0 p1"}, {"0 a>b", "p2"}}},
		{"aged out at the default", Config{}, []step{{"1 b>*", "p0 p2"}, {"wait 299s", ""}, {"0 a>b", "p1"}, {"wait 2s", ""}, {"0 a>b", "p1 p2"}}},
		{"hearing again renews", Config{}, []step{{"1 b>*", "p0 p2"}, {"wait 299s", ""}, {"1 b>*", "p0 p2"}, {"wait 299s", ""}, {"0 a>b", "p1"}}},
		{"own ageing", Config{Ageing: time.Second}, []step{{"1 b>*", "p0 p2"}, {"wait 1s", ""}, {"0 a>b", "p1 p2"}}},
		{"a group is never learned as source", Config{}, []step{{"1 m>a", "p0 p2"}, {"0 a>m", "p1 p2"}}},
		{"table full: flooded, not wrong", Config{Table: 1}, []step{{"1 b>*", "p0 p2"}, {"2 c>*", "p0 p1"}, {"0 a>c", "p1 p2"}, {"0 a>b", "p1"}}},
		{"table full of old ones makes room", Config{Table: 1}, []step{{"1 b>*", "p0 p2"}, {"wait 301s", ""}, {"2 c>*", "p0 p1"}, {"0 a>c", "p2"}}},
		{"cut both ways forgets", Config{}, []step{{"1 b>*", "p0 p2"}, {"cut 1", ""}, {"0 a>b", "p2"}, {"heal 1", ""}, {"0 a>b", "p1 p2"}}},
		{"one-way cut still hears", Config{}, []step{{"cutin 1", ""}, {"0 a>b", "p1 p2"}, {"1 b>a", ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, tt.cfg, 3)
				for _, s := range tt.steps {
					var port int
					var src, dst byte
					var verb, arg string
					if _, err := fmt.Sscanf(s.do, "%d %c>%c", &port, &src, &dst); err == nil {
						b.ports[port].Send(frameOf(dst, src, 46))
					} else if fmt.Sscan(s.do, &verb, &arg); verb == "wait" {
						d, err := time.ParseDuration(arg)
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(d)
					} else {
						p := b.ports[arg[0]-'0']
						p.SetFault(FromDevice, Fault{Down: verb != "heal"})
						p.SetFault(ToDevice, Fault{Down: verb == "cut"})
					}
					synctest.Wait()
					if got := b.take(); got != s.want {
						t.Fatalf("%s: heard by %q, want %q", s.do, got, s.want)
					}
				}
			})
		})
	}
}

func TestSizes(t *testing.T) {
	tagged := func(payload int) []byte {
		f := frameOf('b', 'a', 4+payload)
		f[12], f[13] = 0x81, 0x00
		return f
	}
	for _, tt := range []struct {
		name  string
		mtu   int
		frame []byte
		want  Counters
	}{
		{"header alone", 0, frameOf('b', 'a', 0), Counters{ReceivedFrames: 1, ReceivedBytes: 14}},
		{"runt", 0, frameOf('b', 'a', 0)[:13], Counters{Runts: 1}},
		{"empty", 0, nil, Counters{Runts: 1}},
		{"full", 0, frameOf('b', 'a', 1500), Counters{ReceivedFrames: 1, ReceivedBytes: 1514}},
		{"one too long", 0, frameOf('b', 'a', 1501), Counters{Oversize: 1}},
		{"tagged full", 0, tagged(1500), Counters{ReceivedFrames: 1, ReceivedBytes: 1518}},
		{"tagged too long", 0, tagged(1501), Counters{Oversize: 1}},
		{"jumbo", 9000, frameOf('b', 'a', 9000), Counters{ReceivedFrames: 1, ReceivedBytes: 9014}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, Config{MTU: tt.mtu}, 2)
				b.ports[0].Send(tt.frame)
				synctest.Wait()
				if got := b.ports[0].Counters(); got != tt.want {
					t.Errorf("counters %+v, want %+v", got, tt.want)
				}
				// A VLAN tag, and every other byte, passes as it came.
				if tt.want.ReceivedFrames == 1 && !bytes.Equal(b.frames[1][0], tt.frame) {
					t.Errorf("frame changed on its way")
				}
			})
		})
	}
}

func TestFaults(t *testing.T) {
	const n = 400
	run := func(t *testing.T, f Fault, seed uint64, gap time.Duration) (order []int, last time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Config{Seed: seed}, 2)
			if err := b.ports[0].SetFault(FromDevice, f); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for i := range n {
				frame := frameOf('b', 'a', 100)
				binary.BigEndian.PutUint32(frame[14:], uint32(i))
				b.ports[0].Send(frame)
				time.Sleep(gap)
			}
			for range 10000 {
				synctest.Wait()
				b.mu.Lock()
				frames := slices.Clone(b.frames[1])
				b.mu.Unlock()
				if len(frames) > len(order) {
					last = time.Since(start)
				}
				order = order[:0]
				for _, fr := range frames {
					order = append(order, int(binary.BigEndian.Uint32(fr[14:])))
				}
				if len(order) == n {
					break
				}
				time.Sleep(time.Millisecond)
			}
		})
		return order, last
	}
	sorted := func(o []int) bool { return slices.IsSorted(o) }

	if o, d := run(t, Fault{}, 1, 0); len(o) != n || !sorted(o) || d != 0 {
		t.Errorf("good cable: %d frames, sorted %v, %v", len(o), sorted(o), d)
	}
	if o, _ := run(t, Fault{Down: true}, 1, 0); len(o) != 0 {
		t.Errorf("cut cable passed %d frames", len(o))
	}
	if o, _ := run(t, Fault{Loss: 0.25}, 1, 0); len(o) < n/2 || len(o) > n*9/10 || !sorted(o) {
		t.Errorf("a quarter lost: %d of %d passed, sorted %v", len(o), n, sorted(o))
	}
	if o, d := run(t, Fault{Delay: 50 * time.Millisecond}, 1, 0); len(o) != n || !sorted(o) || d != 50*time.Millisecond {
		t.Errorf("delay: %d frames, sorted %v, %v", len(o), sorted(o), d)
	}
	if o, d := run(t, Fault{Jitter: 30 * time.Millisecond}, 1, time.Millisecond); len(o) != n || !sorted(o) || d < n*time.Millisecond {
		t.Errorf("jitter: %d frames, sorted %v, %v", len(o), sorted(o), d)
	}
	if o, _ := run(t, Fault{Reorder: 0.2}, 1, time.Millisecond); len(o) != n || sorted(o) {
		t.Errorf("reorder: %d frames, sorted %v", len(o), sorted(o))
	}
	// 400 frames of 114 bytes at 364800 bit/s take one second.
	if o, d := run(t, Fault{Bandwidth: n * 114 * 8}, 1, 0); len(o) != n || !sorted(o) || d < 999*time.Millisecond || d > 1001*time.Millisecond {
		t.Errorf("bandwidth: %d frames, sorted %v, %v", len(o), sorted(o), d)
	}
	// The same seed gives the same losses, another seed others.
	a, _ := run(t, Fault{Loss: 0.5}, 7, 0)
	b, _ := run(t, Fault{Loss: 0.5}, 7, 0)
	c, _ := run(t, Fault{Loss: 0.5}, 8, 0)
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("seeded loss: same seed equal %v, other seed equal %v", slices.Equal(a, b), slices.Equal(a, c))
	}
	for _, bad := range []Fault{{Loss: -0.1}, {Loss: 1.1}, {Reorder: 2}, {Delay: -1}, {Jitter: -1}, {Bandwidth: -1}} {
		if err := New(Config{}).AddPort("x").SetFault(ToDevice, bad); err == nil {
			t.Errorf("fault %+v accepted", bad)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Queue: 8})
		a, b := s.AddPort("a"), s.AddPort("b")
		gate := make(chan struct{})
		var got int
		ua, _ := a.Attach(func([]byte) {})
		ub, _ := b.Attach(func([]byte) { <-gate; got++ })
		for range 20 { // one is with the device, eight wait
			a.Send(frameOf('b', 'a', 46))
			synctest.Wait()
		}
		if c := b.Counters(); c.SentFull != 11 {
			t.Errorf("dropped %d, want 11", c.SentFull)
		}
		close(gate)
		synctest.Wait()
		if got != 9 {
			t.Errorf("delivered %d, want 9", got)
		}
		ua()
		ub()
		if _, err := b.Attach(func([]byte) {}); err != nil {
			t.Errorf("plug in again: %v", err)
		} else if _, err := b.Attach(func([]byte) {}); !errors.Is(err, ErrPlugged) {
			t.Errorf("second cable in one port: %v", err)
		}
		a.Send(frameOf('b', 'a', 46)) // unplugged: goes nowhere
		b.in.stop()
		b.out.stop()
	})
}

func TestStream(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Config{})
	served := make(chan error, 2)
	var far []net.Conn
	for _, name := range []string{"a", "b"} {
		near, f := net.Pipe()
		far = append(far, f)
		p := s.AddPort(name)
		go func() { served <- p.ServeStream(ctx, near) }()
		for !p.Plugged() {
			time.Sleep(time.Millisecond)
		}
	}
	frame := frameOf('*', 'a', 1500)
	go far[0].Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	got, err := readRecord(far[1])
	if err != nil || !bytes.Equal(got, frame) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	cancel()
	for range 2 {
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
	}
	// A peer with bad framing is cut off.
	near, f := net.Pipe()
	go f.Write([]byte{0xff, 0, 0, 0})
	if err := s.AddPort("c").ServeStream(t.Context(), near); !errors.Is(err, ErrRecord) {
		t.Errorf("bad framing: %v", err)
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 2})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readRecord(bytes.NewReader(b))
		if err == nil && (len(frame) == 0 || len(frame) > maxRecord || !bytes.Equal(frame, b[4:4+len(frame)])) {
			t.Errorf("%d bytes from %d", len(frame), len(b))
		}
	})
}

func TestCapture(t *testing.T) {
	s := New(Config{})
	a, b := s.AddPort("alpha"), s.AddPort("beta")
	ua, _ := a.Attach(func([]byte) {})
	ub, _ := b.Attach(func([]byte) {})
	defer ua()
	defer ub()
	for _, tt := range []struct {
		name string
		port *Port
		want []int // interfaces of the captured packets
	}{
		{"all ports, each frame once", nil, []int{0, 1}},
		{"one port, both ways", b, []int{1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			pr, pw := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- s.Capture(ctx, pw, tt.port); pw.Close() }()
			r, err := pcapgo.NewNgReader(pr, pcapgo.NgReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			first, second := frameOf('*', 'a', 60), frameOf('a', 'b', 61)
			before := b.Counters().SentFrames
			go func() {
				a.Send(first)
				for b.Counters().SentFrames == before {
					time.Sleep(time.Millisecond)
				}
				b.Send(second)
			}()
			for i, want := range tt.want {
				data, ci, err := r.ReadPacketData()
				if err != nil {
					t.Fatal(err)
				}
				if wantData := [][]byte{first, second}[i]; !bytes.Equal(data, wantData) || ci.InterfaceIndex != want || time.Since(ci.Timestamp).Abs() > time.Minute {
					t.Errorf("packet %d: %d bytes on interface %d at %v", i, len(data), ci.InterfaceIndex, ci.Timestamp)
				}
			}
			if in, err := r.Interface(0); err != nil || in.Name != "alpha" {
				t.Errorf("interface %q, %v", in.Name, err)
			}
			cancel()
			go io.Copy(io.Discard, pr)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
