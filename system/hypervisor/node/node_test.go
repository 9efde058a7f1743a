package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/hypervisor"
)

func TestLook(t *testing.T) {
	part := func(change func([]byte)) []byte {
		b := make([]byte, 64<<10)
		change(b)
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want content
	}{
		"blank":                       {part(func([]byte) {}), blank},
		"ext4":                        {part(func(b []byte) { b[superAt+magicAt], b[superAt+magicAt+1] = 0x53, 0xef }), extends},
		"something in the superblock": {part(func(b []byte) { b[superAt+5] = 1 }), foreign},
		"something before it":         {part(func(b []byte) { copy(b, "LUKS") }), foreign},
		"begun and interrupted":       {part(func(b []byte) { b[9000] = 1 }), blank},
	} {
		got, err := look(bytes.NewReader(c.b))
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	if _, err := look(bytes.NewReader(make([]byte, 1500))); err == nil {
		t.Error("a partition of 1500 bytes was looked at")
	}
}

// TestPrepareState is about what is decided; TestStatePartition runs the programs.
func TestPrepareState(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	file := filepath.Join(t.TempDir(), "partition")
	for name, c := range map[string]struct {
		super  []byte // what stands at the superblock
		status int
		runs   string
		fine   bool
	}{
		"blank":           {nil, 0, mke2fs, true},
		"blank, broken":   {nil, 1, mke2fs, false},
		"clean":           {ext4, 0, e2fsck, true},
		"mended":          {ext4, 1, e2fsck, true},
		"mended, restart": {ext4, 3, e2fsck, true},
		"beyond mending":  {ext4, 4, e2fsck, false},
		"mended in part":  {ext4, 5, e2fsck, false},
		"check broke":     {ext4, 8, e2fsck, false},
		"somebody else's": {[]byte("DATA"), 0, "", false},
	} {
		b := make([]byte, 64<<10)
		copy(b[superAt:], c.super)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ran := ""
		err := prepareState(file, func(path string, args ...string) (int, error) {
			ran = path
			if args[len(args)-1] != file {
				t.Errorf("%s: %s runs on %q", name, path, args)
			}
			return c.status, nil
		}, log)
		if ran != c.runs || (err == nil) != c.fine {
			t.Errorf("%s: ran %q: %v", name, ran, err)
		}
		var refusal *hypervisor.Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Errorf("%s: %v is no refusal", name, err)
		} else if err != nil {
			if _, known := rack.LookupReason(refusal.Reason); !known {
				t.Errorf("%s: no reason %q", name, refusal.Reason)
			}
		}
	}
}

var ext4 = func() []byte {
	b := make([]byte, headBytes-superAt)
	b[magicAt], b[magicAt+1] = 0x53, 0xef
	return b
}()

func TestFindPartition(t *testing.T) {
	sys := t.TempDir()
	for dev, text := range map[string]string{"vda": "DEVTYPE=disk\n", "vda3": "PARTN=3\nPARTNAME=racklet-cache\n", "vda4": "PARTN=4\nPARTNAME=racklet-state\n", "vdb1": "PARTNAME=racklet-state-2\n"} {
		dir := filepath.Join(sys, "class", "block", dev)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uevent"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findPartition(sys, stateName); err != nil || got != "/dev/vda4" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := findPartition(t.TempDir(), stateName); err == nil {
		t.Error("found a partition where there is none")
	}
}

const goodCluster = `{"server":"https://10.78.0.254:6443","dns":"10.96.0.10","podCIDR":"10.42.1.0/24","clusterCIDR":"10.42.0.0/16","serviceCIDR":"10.96.0.0/16","tunnelAddress":"10.78.0.1","more":1}`

func TestCluster(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cluster.json", goodCluster)
	for _, name := range identityFiles { // not before the last one is there
		if _, err := configure(dir, dir); err == nil {
			t.Errorf("an identity without %s is taken for whole", name)
		}
		write(name, "PEM")
	}
	c, err := configure(dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Tunnel.String() != "10.78.0.1" {
		t.Errorf("tunnel %v", c.Tunnel)
	}
	for name, want := range map[string]string{"kubelet.yaml": `clusterDNS: ["10.96.0.10"]`, "kube-proxy.yaml": "clusterCIDR: 10.42.0.0/16", "kubeconfig": `server: "https://10.78.0.254:6443"`} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), want) || strings.Contains(string(b), "${") {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
	for _, bad := range []string{
		``, `{}`, `[]`,
		strings.Replace(goodCluster, "https:", "http:", 1),
		strings.Replace(goodCluster, "6443", `6443\"\nusers: []`, 1),
		strings.Replace(goodCluster, "10.96.0.10", "dns", 1),
		strings.Replace(goodCluster, "10.78.0.1\"", "\"", 1),
		strings.Replace(goodCluster, "10.42.0.0/16", "10.42.0.0", 1),
		strings.Replace(goodCluster, `"10.78.0.1"`, `"fe80::1%eth0\"x"`, 1),
	} {
		if c, err := parseCluster([]byte(bad)); err == nil {
			t.Errorf("%s: accepted as %+v", bad, c)
		}
	}
}

func FuzzCluster(f *testing.F) {
	f.Add([]byte(goodCluster))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCluster(b)
		if err != nil {
			return
		}
		// What comes from outside stays one word of the configuration.
		if lines := strings.Count(c.fill(kubeletConfig+proxyConfig+kubeconfig), "\n"); lines != strings.Count(kubeletConfig+proxyConfig+kubeconfig, "\n") {
			t.Errorf("%q adds lines to the configuration", b)
		}
	})
}

func TestKeyRegister(t *testing.T) {
	var got [32]byte
	fail := error(nil)
	h := bmcHandler(func(_ context.Context, d [32]byte) error { got = d; return fail })
	put := func(method, path, body string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code
	}
	good := `{"digest":"sha256:` + strings.Repeat("0a", 32) + `"}`
	if code := put("PUT", "/v1/key-register", good); code != http.StatusNoContent || got[31] != 10 {
		t.Errorf("%d, %x", code, got)
	}
	fail = errors.New("silent")
	if code := put("PUT", "/v1/key-register", good); code != http.StatusBadGateway {
		t.Errorf("a silent BMC gives %d", code)
	}
	got = [32]byte{}
	for _, bad := range []string{"", "{}", `{"digest":"sha256:00"}`, `{"digest":"` + strings.Repeat("0a", 32) + `"}`, `{"digest":"sha512:` + strings.Repeat("0a", 32) + `"}`, good[:len(good)-1] + `,"x":1}`, strings.Repeat(" ", 8192) + good} {
		if code := put("PUT", "/v1/key-register", bad); code != http.StatusBadRequest || got != [32]byte{} {
			t.Errorf("%q: %d", bad, code)
		}
	}
	if code := put("GET", "/v1/key-register", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
	if code := put("PUT", "/v1/stage", good); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
}

// TestBMCSocket: only its owner may open it.
func TestBMCSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveUnix(ctx, socket, bmcHandler(nil)) }()
	for {
		if st, err := os.Stat(socket); err == nil && st.Mode().Perm() == 0o600 {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.log")
	l, err := openLog(name, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 29) + "\n"
	for i := range 10 {
		if _, err := io.WriteString(l, line); err != nil {
			t.Fatal(err)
		}
		if i == 4 { // goes on after a restart where it was
			l.Close()
			if l, err = openLog(name, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.Close()
	for file, want := range map[string]int{name: 30, name + ".1": 90} {
		if b, err := os.ReadFile(file); err != nil || len(b) != want {
			t.Errorf("%s: %d bytes, %v, want %d", filepath.Base(file), len(b), err, want)
		}
	}
}
