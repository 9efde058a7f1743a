package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/gobuild"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/artifact/squashfs"
	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/source"
)

// TestMachine boots the real programs in an emulated unit: kernel, this stage
// 1, dm-verity, the operating system. Repository and mirror are real servers
// with TLS; the BMC is a fake at the other end of a virtio-serial port. What a
// rack does with the real BMC is tested in sim and e2e.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	l := newLab(t)
	t.Run("switch_root", func(t *testing.T) {
		w := l.world(t, nil)
		w.boots(t)
		w.want(t, "bootstrap", "network", "source", "verified", "fetch", "artifact", "handover", "os", "running", "stopping", "halted")
		w.says(t, "release   0.1.0, by switch_root", "root image of", w.spec.OS.RootHash)
		if w.bmc.floors.Sequence != 1 || w.bmc.hash == [32]byte{} {
			t.Errorf("floor %d, key register %x", w.bmc.floors.Sequence, w.bmc.hash)
		}
		if r := w.bmc.report; r.Release.String() != "0.1.0" || r.Commit == [20]byte{} || r.MemoryTotalKiB < 400_000 || r.Address != [4]byte{10, 0, 2, 15} {
			t.Errorf("report %+v", r)
		}
		// Again, with what is on the disk; then with one bit of it turned.
		w.boots(t)
		w.says(t, "on racklet-os-a already")
		w.machine.disk.flip(t, partitionAlign+200_000)
		w.boots(t)
		w.says(t, "REFUSED os.verity", "fetching the image anew", "running after")
	})
	t.Run("kexec", func(t *testing.T) {
		w := l.world(t, func(w *metal) { w.bootKernel = append(bytes.Clone(w.kernel), 0) }) // the same to gzip, another to SHA-256
		w.boots(t)
		w.says(t, "release   0.1.0, by kexec")
		w.want(t, "bootstrap", "network", "source", "verified", "fetch", "artifact", "handover", "os", "running", "stopping", "halted")
	})
	t.Run("staging", func(t *testing.T) {
		w := l.world(t, nil)
		w.bmc.slots[0].Digest = sha256.Sum256([]byte("older"))
		w.boots(t)
		w.want(t, "bootstrap", "network", "source", "verified", "fetch", "halted")
		w.says(t, "goes into the idle slot", "staged")
		if !bytes.Equal(w.bmc.staged, w.image) {
			t.Errorf("%d bytes staged, want %d", len(w.bmc.staged), len(w.image))
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := l.world(t, nil)
		w.mirror.Store(w.spec.OS.Digest, []byte("{}"))
		w.stopAt = wire.StageFailed
		w.boots(t)
		w.says(t, "REFUSED os.manifest", "expected "+string(w.spec.OS.Digest), "cure", "stopped; nothing was started", "the BMC asks to shut down")
		if last := w.bmc.failed(); last.Reason.String() != "os.manifest" || last.Expected.String() != string(w.spec.OS.Digest) {
			t.Errorf("the BMC heard %v", last)
		}
	})
}

// maxInit is the budget of the program, stripped and uncompressed: every byte
// of it is read from a boot medium, unpacked and kept in memory at each boot.
const maxInit = 14 << 20

// lab is what all machines of the test share.
type lab struct {
	qemu         string
	kernel       *kernel.Kernel
	gzip         []byte
	stage1, init artifact.File
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{qemu: racktest.Tool(t, "qemu-system-aarch64")}
	const root = "../.."
	lock, err := deb.ReadLock(filepath.Join(root, "tools/locks/trixie-arm64.lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := lock.Find("kernel")
	if err != nil {
		t.Fatal(err)
	}
	store, err := cache.User()
	if err != nil {
		t.Fatal(err)
	}
	name, err := (&deb.Fetcher{Cache: store, Mirrors: deb.AptMirrors("/etc/apt")}).Fetch(t.Context(), p)
	if errors.Is(err, deb.ErrNoMirror) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if l.kernel, err = kernel.Open(name, p); err != nil {
		t.Fatal(err)
	}
	l.gzip = l.kernel.Gzip()
	for file, program := range map[*artifact.File]string{&l.stage1: "./firmware/bootstrap/init", &l.init: "./system/hypervisor/init"} {
		if *file, err = gobuild.Build(t.Context(), gobuild.Program{Dir: root, Package: program, GOOS: "linux", GOARCH: "arm64", Version: "0.1.0"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.stage1.Data); n > maxInit {
		t.Errorf("stage 1 has %d bytes, the budget is %d", n, maxInit)
	}
	t.Logf("stage 1 has %d KiB, the operating system's init %d KiB", len(l.stage1.Data)>>10, len(l.init.Data)>>10)
	return l
}

// metal is a world whose computer is emulated.
type metal struct {
	*world
	lab        *lab
	bootKernel []byte // the file in the boot slot
	mirror     sync.Map
	stopAt     wire.Stage // when the BMC asks to shut down

	bmc  *wireBMC
	tape bytes.Buffer
}

func (l *lab) world(t *testing.T, edit func(*metal)) *metal {
	t.Helper()
	m := &metal{lab: l, bootKernel: l.gzip, stopAt: wire.StageRunning}
	dir := t.TempDir()
	s := m.serve(t, dir)
	m.world = newWorld(t, func(w *world) {
		w.dir = filepath.Join(dir, "rack")
		w.url = strings.Replace(s.URL, "127.0.0.1", "10.0.2.2", 1) + "/rack/.git" // QEMU's user network
		w.signed = time.Now()
		w.kernel = l.gzip
		own := artifact.Own("0.1.0")
		ram, err := initramfs.Stage1{Version: "0.1.0", SecurityVersion: 1, Init: l.stage1, Kernel: l.kernel, KernelDigest: rack.SHA256(l.gzip)}.Tree()
		if err != nil {
			t.Fatal(err)
		}
		if w.initramfs, err = initramfs.Archive(ram); err != nil {
			t.Fatal(err)
		}
		root := new(artifact.Tree)
		for _, name := range []string{"dev", "proc", "sys", "run", "tmp", "var"} {
			root.Dir(name, 0o755, own)
		}
		f := l.init
		f.Name, f.Mode = "sbin/init", 0o755
		root.Add(f)
		image, err := squashfs.Write(root)
		if err != nil {
			t.Fatal(err)
		}
		w.root, w.tree = verity.Append(image, []byte("salt"))
	})
	if edit != nil {
		edit(m)
	}
	m.config.Repository.TLSPins = []string{source.TLSPin(s.Certificate()), otherPin}
	m.config.Repository.URL = m.url
	m.bmc = &wireBMC{fakeBMC: m.world.bmc}
	m.bmc.now = time.Now()
	for d, b := range m.blobs {
		m.mirror.Store(d, b)
	}
	return m
}

// serve is the host of the repository and of the artefacts.
func (m *metal) serve(t *testing.T, dir string) *httptest.Server {
	t.Helper()
	git := racktest.Tool(t, "git")
	lib, err := exec.Command(git, "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(lib)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v2/") {
			backend.ServeHTTP(rw, r)
			return
		}
		b, ok := m.mirror.Load(rack.Digest(path.Base(r.URL.Path)))
		if !ok {
			http.NotFound(rw, r)
			return
		}
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(b.([]byte)))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// boots runs the machine until it powers off.
func (m *metal) boots(t *testing.T) {
	t.Helper()
	doc, err := m.config.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m.bmc.config = doc
	m.bmc.reset()
	m.bmc.stopAt = m.stopAt
	m.bmc.wanted = wire.HostNone
	m.tape.Reset()
	dir := t.TempDir()
	ram, err := initramfs.Stage1{Version: "0.1.0", SecurityVersion: 1, Init: m.lab.stage1, Kernel: m.lab.kernel, KernelDigest: rack.SHA256(m.bootKernel)}.Tree()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := initramfs.Archive(ram)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"kernel": m.bootKernel, "initramfs": archive} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s") // short: the path of a socket is
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = wiretest.Serve(c, wire.BMC(1), 0, wire.SideInBand, func() wiretest.Faults { return wiretest.Faults{} }, m.bmc.handle)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.lab.qemu, "-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi", "-smp", "1", "-m", "512",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", dir+"/kernel", "-initrd", dir+"/initramfs",
		"-append", "console=ttyAMA0 quiet", "-serial", "stdio",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=bmc,path="+socket, "-device", "virtserialport,chardev=bmc,name=racklet.bmc",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:52:4b:01",
		"-drive", "if=none,id=data,format=raw,file="+m.machine.disk.Name(), "-device", "virtio-blk-pci,drive=data,serial=racklet-data",
		"-device", "virtio-rng-pci")
	cmd.Stdin = strings.NewReader("")
	cmd.Stdout, cmd.Stderr = &m.tape, &m.tape
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("qemu: %v\n%s", err, m.tape.String())
	}
	l.Close()
	<-served
	t.Logf("%.1f s, %.1f s of processor time; to running: %.1f s", time.Since(start).Seconds(),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), m.bmc.took.Sub(start).Seconds())
	if t.Failed() || testing.Verbose() {
		t.Logf("console:\n%s", m.tape.String())
	}
}

// want compares the stages that the BMC heard of, failures left out.
func (m *metal) want(t *testing.T, stages ...string) {
	t.Helper()
	var got []string
	for _, r := range m.bmc.stages {
		if s := r.stage.String(); len(got) == 0 || got[len(got)-1] != s {
			got = append(got, s)
		}
	}
	if !slices.Equal(got, stages) {
		t.Fatalf("stages %q, want %q\n%s", got, stages, m.tape.String())
	}
}

func (m *metal) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !strings.Contains(m.tape.String(), s) {
			t.Fatalf("the console does not say %q:\n%s", s, m.tape.String())
		}
	}
}

// wireBMC puts the fake BMC on the wire.
type wireBMC struct {
	*fakeBMC
	mu     sync.Mutex
	stopAt wire.Stage
	wanted wire.HostRequest
	report wire.Report
	hash   [32]byte // key register
	took   time.Time

	image, signed []byte
}

func (b *wireBMC) failed() (f wire.Failure) {
	for _, r := range b.stages {
		if r.stage == wire.StageFailed {
			f = r.failure
		}
	}
	return f
}

func (b *wireBMC) handle(_ wire.Side, req, resp []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, p, err := wire.ParseHeader(req)
	if err != nil || h.Type != wire.TypeOEM {
		return nil
	}
	out, err := b.answer(h.Command, p)
	var f *Failure
	switch {
	case errors.As(err, &f):
		w := wire.MakeFailure(f.Reason, f.Expected, f.Seen)
		return wire.AppendFailure(wire.AppendResponse(resp, h, wire.CodeRefused), &w)
	case err != nil:
		return wire.AppendResponse(resp, h, wire.CodeInvalidData)
	}
	return append(wire.AppendResponse(resp, h, wire.CodeSuccess), out...)
}

func (b *wireBMC) answer(command uint8, p []byte) ([]byte, error) {
	ctx := context.Background()
	switch command {
	case wire.CmdGetBootConfig:
		off, err := wire.ParseOffset(p)
		if err != nil || int(off) > len(b.config) {
			return nil, wire.ErrValue
		}
		part := b.config[off:min(len(b.config), int(off)+wire.MaxBootConfigPart)]
		return wire.AppendBootConfigPart(nil, uint32(len(b.config)), part), nil
	case wire.CmdReportStage:
		s, f, err := wire.ParseReportStage(p)
		if err != nil {
			return nil, err
		}
		if s == wire.StageRunning {
			b.took = time.Now()
		}
		if s == b.stopAt {
			b.wanted = wire.HostShutdown
		}
		return nil, b.ReportStage(ctx, s, f)
	case wire.CmdExtendMeasurement:
		n, d, label, err := wire.ParseExtendMeasurement(p)
		if err != nil {
			return nil, err
		}
		return nil, b.Extend(ctx, n, d, string(label))
	case wire.CmdSetKeyRegister:
		var err error
		b.hash, err = wire.ParseDigest(p)
		return nil, err
	case wire.CmdRaiseFloors:
		signed, err := wire.ParseBytes(p, wire.MaxSignedFloors)
		if err != nil {
			return nil, err
		}
		if err := b.RaiseFloors(ctx, signed); err != nil {
			return nil, err
		}
		fallthrough
	case wire.CmdGetFloors:
		f := wire.Floors(b.floors)
		return wire.AppendFloors(nil, &f, &b.rackID), nil
	case wire.CmdGetTime:
		return wire.AppendTime(nil, uint64(b.now.UnixMilli())), nil
	case wire.CmdGetUnitState:
		return wire.AppendUnitState(nil, &wire.UnitState{Slot: 1, BootSlot: b.booted, BootOverride: wire.SlotNone}), nil
	case wire.CmdGetSlots:
		return wire.AppendSlots(nil, &b.slots), nil
	case wire.CmdHeartbeat:
		r, err := wire.ParseReport(p)
		if err != nil {
			return nil, err
		}
		b.report = r
		return wire.AppendHostRequest(nil, b.wanted), nil
	case wire.CmdSlotErase:
		b.image, b.signed = nil, nil
		return b.progress(wire.SlotWriting), nil
	case wire.CmdSlotWrite:
		off, data, err := wire.ParseSlotWrite(p)
		if err != nil {
			return nil, err
		}
		if int(off) == len(b.image) { // else: a repetition
			b.image = append(b.image, data...)
		}
		return b.progress(wire.SlotWriting), nil
	case wire.CmdSlotCommit:
		total, off, part, err := wire.ParseSlotCommit(p)
		if err != nil {
			return nil, err
		}
		if int(off) == len(b.signed) {
			b.signed = append(b.signed, part...)
		}
		if len(b.signed) < int(total) {
			return b.progress(wire.SlotWriting), nil
		}
		if err := b.Stage(ctx, b.image, b.signed); err != nil {
			return nil, err
		}
		return b.progress(wire.SlotValid), nil
	}
	return nil, fmt.Errorf("command 0x%02x", command)
}

func (b *wireBMC) progress(s wire.SlotState) []byte {
	return wire.AppendSlotProgress(nil, &wire.SlotProgress{Slot: 1 - b.booted, State: s, Capacity: trust.MaxImageSize, Next: uint32(len(b.image))})
}
