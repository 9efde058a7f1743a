package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/scale.svg and docs/scale.json from what BenchmarkScale measures")

var docs = filepath.Join("..", "..", "docs")

// childOf is set for the process that is measured, to the number of its units.
const childOf = "RACKLET_FLEET_UNITS"

func TestMain(m *testing.M) {
	if n := os.Getenv(childOf); n != "" {
		if err := serve(n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is the measured process: a fleet on a loopback port, which it prints, until it gets a signal or its parent goes.
func serve(units string) error {
	n, err := strconv.Atoi(units)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f, err := New(Options{Units: n, Seed: 1})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	defer server.Close()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	if err := f.Ready(ctx); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { io.Copy(io.Discard, os.Stdin); stop() }() // the parent went
	return <-done
}

// A point is what a fleet of so many units costs.
type point struct {
	Units        int
	RSS          float64 // MiB, after the load
	Idle         float64 // share of a core while nobody asks
	Expand       latency // Systems?$expand=., the racks by turns
	Sensor       latency // one sensor, the racks by turns
	OneExpand    latency // the same of one rack
	OneSensor    latency
	BytesAnswer  float64 // of an expanded collection
	ExpandCores  float64
	SensorCores  float64
	OneExpandCPU float64
	OneSensorCPU float64
}

// latency of requests at a constant rate, from when each was due.
type latency struct{ P50, P99, Worst float64 } // milliseconds

// rate is the number of requests per second that come whether or not those before were answered.
const rate = 1000

// BenchmarkScale measures one process with 10, 100 and 1,000 units behind it, on one core (GOMAXPROCS=1); this process is
// the client, on another. It takes about three minutes, whatever -benchtime says.
func BenchmarkScale(b *testing.B) {
	var points []point
	for _, n := range []int{10, 100, 1000} {
		points = append(points, measure(b, n))
		j, _ := json.Marshal(points[len(points)-1])
		b.Logf("%s", j)
	}
	last := points[len(points)-1]
	b.ReportMetric(last.RSS, "MiB@1000")
	b.ReportMetric(last.Idle, "cores-idle@1000")
	b.ReportMetric(points[0].OneExpand.P99, "ms-p99-expand@10")
	b.ReportMetric(points[0].OneSensor.P99, "ms-p99-sensor@10")
	if !*update {
		return
	}
	j, err := json.MarshalIndent(points, "", " ")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "scale.json"), append(j, '\n'), 0o644); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "scale.svg"), []byte(plot(points)), 0o644); err != nil {
		b.Fatal(err)
	}
}

func measure(b *testing.B, units int) point {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childOf+"="+strconv.Itoa(units), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("a fleet of %d: %v", units, err)
	}
	url := "http://" + strings.TrimSpace(line)
	pid := cmd.Process.Pid
	racks := (units + UnitsPerRack - 1) / UnitsPerRack
	v := point{Units: units}
	time.Sleep(12 * time.Second) // until nothing happens any more
	v.Idle = cores(b, pid, func() { time.Sleep(8 * time.Second) })
	const expand, sensor = "/redfish/v1/Systems?$expand=.", "/redfish/v1/Chassis/tray-1/Sensors/power"
	one := func(int) string { return Host(0) }
	turns := func(i int) string { return Host(i % racks) }
	v.OneExpandCPU = cores(b, pid, func() { v.OneExpand, v.BytesAnswer = load(b, url+expand, one) })
	v.OneSensorCPU = cores(b, pid, func() { v.OneSensor, _ = load(b, url+sensor, one) })
	v.ExpandCores = cores(b, pid, func() { v.Expand, _ = load(b, url+expand, turns) })
	v.SensorCores = cores(b, pid, func() { v.Sensor, _ = load(b, url+sensor, turns) })
	v.RSS = resident(b, pid)
	return v
}

// load asks at a constant rate for five seconds, over at most 64 connections, and measures from when each request was due.
func load(b *testing.B, url string, host func(int) string) (latency, float64) {
	const seconds, connections = 5, 64
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	ask := func(i int) (int64, error) {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		req.Host = host(i)
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s", resp.Status)
		}
		return io.Copy(io.Discard, resp.Body)
	}
	for i := range 8 {
		if _, err := ask(i); err != nil {
			b.Fatal(err)
		}
	}
	took := make([]float64, seconds*rate)
	size := make([]int64, len(took))
	work := make(chan int, len(took))
	start := time.Now()
	due := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second / rate) }
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for i := range work {
				n, err := ask(i)
				if err != nil {
					b.Error(err)
				}
				took[i], size[i] = float64(time.Since(due(i)).Microseconds())/1000, n
			}
		})
	}
	for i := range took {
		time.Sleep(time.Until(due(i)))
		work <- i
	}
	close(work)
	wg.Wait()
	slices.Sort(took)
	return latency{took[len(took)/2], took[len(took)*99/100], took[len(took)-1]}, float64(size[0])
}

// cores is the processor time that a process took while f ran, per second.
func cores(b *testing.B, pid int, f func()) float64 {
	before, began := ticks(b, pid), time.Now()
	f()
	return math.Round((ticks(b, pid)-before)/100/time.Since(began).Seconds()*1000) / 1000
}

// ticks of user and system time (proc_pid_stat(5), fields 14 and 15), of which Linux has 100 a second.
func ticks(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("needs Linux: ", err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return user + system
}

func resident(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("needs Linux: ", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return math.Round(kib/102.4) / 10
}

// plot draws the growth on two logarithmic axes. A line that is as steep as the grey one is linear.
func plot(points []point) string {
	const width, height, left, right, top, bottom = 720, 420, 70, 200, 30, 50
	series := []struct {
		name, color string
		get         func(point) float64
	}{
		{"memory, MiB", "#1f77b4", func(p point) float64 { return p.RSS }},
		{"idle, % of a core", "#d62728", func(p point) float64 { return p.Idle * 100 }},
		{"$expand of one rack, CPU µs", "#2ca02c", func(p point) float64 { return (p.OneExpandCPU - p.Idle) / rate * 1e6 }},
		{"$expand, racks by turns, CPU µs", "#9467bd", func(p point) float64 { return (p.ExpandCores - p.Idle) / rate * 1e6 }},
	}
	const low, high = -1.0, 3.0 // powers of ten
	x := func(units float64) float64 { return left + (math.Log10(units)-1)/2*(width-left-right) }
	y := func(v float64) float64 {
		return height - bottom - (math.Log10(max(v, 0.1))-low)/(high-low)*(height-top-bottom)
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&s, `<text x="%d" y="18" font-size="14">The management API with 10, 100 and 1,000 units behind it, on one core</text>`+"\n", left)
	for p := low; p <= high; p++ {
		v := math.Pow(10, p)
		fmt.Fprintf(&s, `<path d="M%d %.0fH%d" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%g</text>`+"\n", left, y(v), width-right, left-8, y(v)+4, v)
	}
	for _, p := range points {
		fmt.Fprintf(&s, `<path d="M%.0f %dV%d" stroke="#ddd"/><text x="%.0f" y="%d" text-anchor="middle">%d</text>`+"\n", x(float64(p.Units)), top, height-bottom, x(float64(p.Units)), height-bottom+18, p.Units)
	}
	fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="middle">units</text>`+"\n", (left+width-right)/2, height-10)
	fmt.Fprintf(&s, `<path d="M%.0f %.0fL%.0f %.0f" stroke="#999" stroke-dasharray="4 4"/><text x="%d" y="%.0f" fill="#777">linear</text>`+"\n", x(10), y(1), x(1000), y(100), width-right+8, y(100)+4)
	at := map[int]bool{}
	for _, line := range series {
		var d strings.Builder
		for i, p := range points {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], x(float64(p.Units)), y(line.get(p)))
			fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(float64(p.Units)), y(line.get(p)), line.color)
		}
		label := int(y(line.get(points[len(points)-1]))) + 4
		for at[label/14] {
			label += 14
		}
		at[label/14] = true
		fmt.Fprintf(&s, `<path d="%s" stroke="%s" fill="none" stroke-width="2"/><text x="%d" y="%d" fill="%s">%s</text>`+"\n", d.String(), line.color, width-right+8, label, line.color, line.name)
	}
	return s.String() + "</svg>\n"
}

// TestPlot: the picture in docs is that of the figures beside it, and one of no figures is a picture too.
func TestPlot(t *testing.T) {
	j, err := os.ReadFile(filepath.Join(docs, "scale.json"))
	if err != nil {
		t.Fatal(err)
	}
	var points []point
	if err := json.Unmarshal(j, &points); err != nil || len(points) != 3 {
		t.Fatalf("scale.json: %v", err)
	}
	name := filepath.Join(docs, "scale.svg")
	if *update {
		if err := os.WriteFile(name, []byte(plot(points)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if svg, err := os.ReadFile(name); err != nil || string(svg) != plot(points) {
		t.Errorf("docs/scale.svg is out of date: go test -run TestPlot ./sim/fleet -update (%v)", err)
	}
	svg := plot([]point{{Units: 10, RSS: 30}, {Units: 100}, {Units: 1000}})
	if !strings.HasSuffix(svg, "</svg>\n") || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || strings.Count(svg, "<circle") != 12 {
		t.Errorf("%s", svg)
	}
}
