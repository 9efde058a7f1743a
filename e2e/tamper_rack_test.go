package e2e

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/source"
)

// Offsets in a BMC's flash (docs/sim-v1.md).
const (
	manifestA = 62914560
	manifestB = 62980096
)

// A rack is one that the racklet command runs in a state directory of its own,
// from a copy of the release.
type rack struct {
	bin, state, release string
	env                 []string
	sim                 http.Client

	// repository is held for writing while what is published (repository,
	// mirror) has a flipped byte, for reading by whoever needs it without.
	repository sync.RWMutex
}

func newRack(t *testing.T, bin string) *rack {
	t.Helper()
	r := &rack{bin: bin, state: filepath.Join(t.TempDir(), "state"), release: filepath.Join(t.TempDir(), "release")}
	if err := os.CopyFS(r.release, os.DirFS(filepath.Join(bin, "release"))); err != nil {
		t.Fatal(err)
	}
	runtime, err := os.MkdirTemp("", "racklet") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	r.env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtime, "XDG_CACHE_HOME="+cacheHome(), "NO_COLOR=1",
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=An Author", "GIT_AUTHOR_EMAIL=author@rack.example",
		"GIT_COMMITTER_NAME=An Author", "GIT_COMMITTER_EMAIL=author@rack.example")
	r.sim.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		found, err := filepath.Glob(filepath.Join(runtime, "*", "sim.sock"))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("sockets of the simulation: %q", found)
		}
		return new(net.Dialer).DialContext(ctx, "unix", found[0])
	}}
	t.Cleanup(r.sim.CloseIdleConnections)
	return r
}

// command runs a program in the rack's environment and returns what it prints.
func (r *rack) command(dir string, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, r.env, bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out, err
}

func (r *rack) racklet(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), append(args, "--state", r.state)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rack) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return r.gitWith(t, dir, nil, args...)
}

func (r *rack) gitWith(t *testing.T, dir string, stdin []byte, args ...string) string {
	t.Helper()
	out, err := r.command(dir, stdin, "git", args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (r *rack) clone() string { return filepath.Join(r.state, "repository") }
func (r *rack) hosted() string {
	return filepath.Join(r.state, "sim", "githost", "git", "rack.git")
}

// up starts the rack and waits until all units run.
func (r *rack) up(t *testing.T, units int, more ...string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), "down", "--state", r.state); err != nil {
			t.Logf("racklet down: %v\n%s", err, out)
		}
		if log, err := os.ReadFile(filepath.Join(r.state, "racklet.log")); err == nil && t.Failed() {
			t.Logf("racklet.log:\n%s", log)
		}
	})
	r.racklet(t, append([]string{"up", "--units", fmt.Sprint(units), "--release", r.release}, more...)...)
}

// An entry of a BMC's log, as `racklet unit log -o json` prints it.
type entry struct {
	ID, Created, Kind, Stage, Message string
	Boot                              int
	Reason, Expected, Seen            string
}

func lines(log []entry) string {
	var b strings.Builder
	for _, e := range log {
		fmt.Fprintf(&b, "%s  %-11s %s\n", e.Created, e.Kind, e.Message)
	}
	return b.String()
}

func reached(stage string) func(entry) bool {
	return func(e entry) bool { return e.Kind == "stage" && e.Stage == stage }
}

func refused(reason string) func(entry) bool {
	return func(e entry) bool { return e.Reason == reason }
}

// A unitStatus is what of `racklet status -o json` is looked at.
type unitStatus struct {
	Name, Power, State, Stage, Reason, BootSlot, Release string
	FallbackSlot                                         bool
}

func (r *rack) status(t *testing.T, u string) *unitStatus {
	t.Helper()
	var s struct{ Units []unitStatus }
	if err := json.Unmarshal(r.racklet(t, "status", "-o", "json"), &s); err != nil {
		t.Fatal(err)
	}
	for i := range s.Units {
		if s.Units[i].Name == u {
			return &s.Units[i]
		}
	}
	t.Fatalf("no unit %q", u)
	return nil
}

// patience is how long anything is waited for: only a rack that hangs takes so long.
const patience = 4 * time.Minute

// until waits for a condition of a unit's status.
func (r *rack) until(t *testing.T, u, what string, ok func(*unitStatus) bool) *unitStatus {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		s := r.status(t, u)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %v for %s; it is %+v", u, patience, what, s)
		}
	}
}

// A boot is one power-on of a unit, up to the next.
type boot struct {
	rack   *rack
	unit   string
	before map[string]bool // IDs of the log's entries from before
}

// log returns what the BMC has logged since the power-on.
func (b *boot) log(t *testing.T) []entry {
	t.Helper()
	var all, log []entry
	if err := json.Unmarshal(b.rack.racklet(t, "unit", "log", b.unit, "-o", "json"), &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !b.before[e.ID] {
			log = append(log, e)
		}
	}
	return log
}

// await waits for an entry in the log of the boot.
func (b *boot) await(t *testing.T, what string, ok func(entry) bool) entry {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(250 * time.Millisecond) {
		log := b.log(t)
		for _, e := range log {
			if ok(e) {
				return e
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %v for %s\n%s", b.unit, patience, what, lines(log))
		}
	}
}

// off cuts a unit's power.
func (r *rack) off(t *testing.T, u string) {
	t.Helper()
	r.racklet(t, "unit", "power", "off", "--force", u)
	r.until(t, u, "power off", func(s *unitStatus) bool { return s.Power == "Off" })
}

// on switches a unit that is off on again, with its network cable out.
func (r *rack) on(t *testing.T, u string) *boot {
	t.Helper()
	r.cable(t, u, false)
	b := &boot{rack: r, unit: u, before: map[string]bool{}}
	for _, e := range b.log(t) {
		b.before[e.ID] = true
	}
	r.racklet(t, "unit", "power", "on", u)
	return b
}

// fetch lets a unit to a repository and a mirror without flipped bytes, until it has all it needs from there.
func (r *rack) fetch(t *testing.T, b *boot) {
	t.Helper()
	b.await(t, "the network", reached("network"))
	r.repository.RLock()
	defer r.repository.RUnlock()
	r.cable(t, b.unit, true)
	b.await(t, "its artefacts", reached("artifact"))
}

// settled waits until a boot has come to its end.
func (r *rack) settled(t *testing.T, b *boot, e end) *unitStatus {
	t.Helper()
	switch e {
	case stops:
		return r.until(t, b.unit, "stage failed", func(s *unitStatus) bool { return s.Stage == "failed" })
	case faulted:
		return r.until(t, b.unit, "state faulted", func(s *unitStatus) bool { return s.State == "faulted" })
	}
	b.await(t, "running", reached("running"))
	return r.until(t, b.unit, "running", func(s *unitStatus) bool { return s.Stage == "running" })
}

// physics calls /sim/v1.
func (r *rack) physics(t *testing.T, method, path string, body any) {
	t.Helper()
	doc, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://sim/sim/v1/"+path, bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.sim.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
}

// cable puts a unit's network cable in or pulls it out.
func (r *rack) cable(t *testing.T, u string, in bool) {
	t.Helper()
	way := map[string]bool{"down": !in}
	r.physics(t, http.MethodPut, "ports/"+u, map[string]any{"fromDevice": way, "toDevice": way})
}

// flip flips a bit of a unit's flash or disk.
func (r *rack) flip(t *testing.T, slot int, memory string, offset int64, bit int) {
	t.Helper()
	r.physics(t, http.MethodPost, fmt.Sprintf("slots/%d/%s/flip", slot, memory), map[string]any{"offset": offset, "bit": bit})
}

func (r *rack) disk(slot int) string {
	return filepath.Join(r.state, "sim", fmt.Sprintf("slot-%d", slot), "data.img")
}

// blankDisk gives a unit that is off a new data disk.
func (r *rack) blankDisk(t *testing.T, u string) {
	t.Helper()
	var slot int
	if _, err := fmt.Sscanf(u, "unit-%d", &slot); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.disk(slot)); err != nil {
		t.Fatal(err)
	}
}

// flipByte flips one bit of a file and returns what flips it back.
func flipByte(t *testing.T, name string, offset int64) (undo func()) {
	t.Helper()
	flip := func() {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		_, err = f.ReadAt(b[:], offset)
		if err == nil {
			b[0] ^= 1
			_, err = f.WriteAt(b[:], offset)
		}
		if cerr := f.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	flip()
	return flip
}

// Offsets in the image of slot A of one byte in each of its files.
type volume struct{ kernel, initramfs, cmdline int64 }

func (r *rack) volume(t *testing.T) (v volume) {
	t.Helper()
	image, err := os.ReadFile(r.blob(t, "racklet/boot", "", "application/vnd.racklet.boot.image.v1"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := fat.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]*int64{"kernel": &v.kernel, "initramfs": &v.initramfs, "cmdline.txt": &v.cmdline} {
		content, err := files.ReadFile(name, int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(image, content)
		if i < 0 {
			t.Fatalf("%s does not lie in one piece in the boot image", name)
		}
		*at = int64(i + len(content)/2)
	}
	return v
}

// blob returns the file of an artefact's layer: by its media type, or "config" or "manifest".
func (r *rack) blob(t *testing.T, repository, tag, layer string) string {
	t.Helper()
	l := oci.Layout{Dir: r.release}
	index, err := l.Index()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[oci.AnnotationRepository] != repository || tag != "" && d.Annotations[v1.AnnotationRefName] != tag {
			continue
		}
		if layer == "manifest" {
			return l.Path(d.Digest)
		}
		m, err := l.Manifest(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range m.Layers {
			if b.MediaType == layer {
				return l.Path(b.Digest)
			}
		}
	}
	t.Fatalf("no %s:%s with %s", repository, tag, layer)
	return ""
}

// kexecTag names the release whose kernel is not the boot slot's.
const kexecTag = "kexec"

// blobFlip flips a byte in the middle of what the mirror serves.
func blobFlip(tag, layer string) func(*testing.T, *rack) func() {
	return func(t *testing.T, r *rack) func() {
		name := r.blob(t, "racklet/os", tag, layer)
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return flipByte(t, name, info.Size()/2)
	}
}

// diskFlip flips a byte in the middle of the root image on a unit's data disk.
func diskFlip(slot int) func(*testing.T, *rack) func() {
	return func(t *testing.T, r *rack) func() {
		root, err := os.ReadFile(r.blob(t, "racklet/os", "", layerRoot))
		if err != nil {
			t.Fatal(err)
		}
		disk, err := os.Open(r.disk(slot))
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		const align, blocks = 1 << 20, 1024
		start := make([]byte, 4096)
		for i := range int64(blocks) { // partitions begin at whole MiB
			if _, err := disk.ReadAt(start, i*align); err != nil {
				break
			}
			if bytes.Equal(start, root[:len(start)]) {
				r.flip(t, slot, "disk", i*align+int64(len(root))/2, 0)
				return func() {} // stage 1 has written a good image over it
			}
		}
		t.Fatal("no root image on the data disk")
		return nil
	}
}

const (
	layerRoot      = "application/vnd.racklet.os.root.v1"
	layerKernel    = "application/vnd.racklet.os.kernel.v1"
	layerInitramfs = "application/vnd.racklet.os.initramfs.v1"
)

// publishMore publishes what the rack of `racklet up` lacks: a release with a
// kernel of its own, which unit-3 takes, and a second root.
func (r *rack) publishMore(t *testing.T) {
	t.Helper()
	r.kexecRelease(t)
	keys := filepath.Join(r.state, "keys")
	r.git(t, r.clone(), "add", "rack")
	r.git(t, r.clone(), "commit", "-q", "-m", "kexec on unit-3")
	var owners []source.OwnerKey
	for _, n := range []string{"owner-1.pem", "owner-2.pem"} {
		r.racklet(t, "sign", r.clone(), "--key", filepath.Join(keys, n))
		k, err := source.LoadKey(filepath.Join(keys, n))
		if err != nil {
			t.Fatal(err)
		}
		owners = append(owners, k)
	}
	if _, err := source.ProposeRoot(r.clone(), owners[0], source.RootChange{}, source.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	if done, err := source.SignRoot(r.clone(), owners[1], source.SignOptions{}); err != nil || !done {
		t.Fatalf("second root: %v, %v", done, err)
	}
	r.git(t, r.clone(), "push", "-q", "origin", "main", "racklet-metadata")

	// Objects by themselves, not in packs: a byte of one can be flipped alone.
	packs, err := filepath.Glob(filepath.Join(r.hosted(), "objects", "pack", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range packs {
		pack, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, ext := range []string{".idx", ".rev", ".pack"} { // git unpacks no object that it has
			if err := os.Remove(strings.TrimSuffix(name, ".pack") + ext); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		r.gitWith(t, r.hosted(), pack, "unpack-objects", "-q")
	}
	r.git(t, r.hosted(), "fsck", "--strict")
}

// kexecRelease adds an OS artefact whose kernel file is another than that of
// the boot slot (the same kernel under another gzip header), and a release of it.
func (r *rack) kexecRelease(t *testing.T) {
	t.Helper()
	l := oci.Layout{Dir: r.release}
	index, err := l.Index()
	if err != nil {
		t.Fatal(err)
	}
	base := index.Manifests[1]
	for _, d := range index.Manifests {
		if d.Annotations[oci.AnnotationRepository] == "racklet/os" {
			base = d
		}
	}
	m, err := l.Manifest(base.Digest)
	if err != nil {
		t.Fatal(err)
	}
	read := func(d digest.Digest) []byte {
		b, err := l.Read(d, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := oci.Artifact{Repository: "racklet/os", Tag: kexecTag, Type: m.ArtifactType}
	var before, after digest.Digest
	for _, d := range m.Layers {
		b := oci.Blob{MediaType: d.MediaType, Data: read(d.Digest), Annotations: d.Annotations}
		if d.MediaType == layerKernel {
			b.Data[4] ^= 1 // MTIME (RFC 1952, 2.3.1)
			before, after = d.Digest, digest.FromBytes(b.Data)
		}
		a.Layers = append(a.Layers, b)
	}
	config := bytes.ReplaceAll(read(m.Config.Digest), []byte(before), []byte(after))
	a.Config = oci.Blob{MediaType: m.Config.MediaType, Data: config}
	added, err := oci.Write(r.release, a)
	if err != nil {
		t.Fatal(err)
	}
	index.Manifests = append(index.Manifests, added...)
	doc, err := json.Marshal(index)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.release, v1.ImageIndexFile), doc, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}

	files, err := filepath.Glob(filepath.Join(r.clone(), "rack", "releases", "*.yaml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("releases %q: %v", files, err)
	}
	name := strings.TrimSuffix(filepath.Base(files[0]), ".yaml")
	text, osPart, _ := strings.Cut(readFile(t, files[0]), "\n  os:\n")
	text = strings.Replace(text, "name: "+name, "name: "+kexecTag, 1)
	osPart = strings.Replace(osPart, string(base.Digest), string(added[0].Digest), 1)
	osPart = strings.Replace(osPart, string(before), string(after), 1)
	writeFile(t, filepath.Join(r.clone(), "rack", "releases", kexecTag+".yaml"), text+"\n  os:\n"+osPart)
	unit := filepath.Join(r.clone(), "rack", "units", "unit-3.yaml")
	writeFile(t, unit, strings.Replace(readFile(t, unit), "release: "+name, "release: "+kexecTag, 1))
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// roleFlip flips a byte of a file of TUF metadata, such that it stays well-formed.
func roleFlip(file, kind, reason string) tampering {
	return metadataFlip(kind, file, reason, behind(`"spec_version":\s*"1\.0\.`))
}

// behind finds the byte behind what a regular expression matches; -1: nowhere.
func behind(expression string) func([]byte) int {
	re := regexp.MustCompile(expression)
	return func(b []byte) int {
		loc := re.FindIndex(b)
		if loc == nil {
			return -1
		}
		return loc[1]
	}
}

// metadataFlip flips the byte of a file of the metadata branch that at chooses,
// as a dishonest Git host would: it publishes a commit with it. The file may be
// a pattern of path.Match that fits the newest of its kind.
func metadataFlip(kind, file, reason string, at func([]byte) int) tampering {
	const ref = "refs/heads/racklet-metadata"
	return tampering{kind: kind, reason: reason, published: true, spoil: func(t *testing.T, r *rack) func() {
		t.Helper()
		good := r.git(t, r.hosted(), "rev-parse", ref)
		name := ""
		for _, f := range strings.Fields(r.git(t, r.hosted(), "ls-tree", "-r", "--name-only", good)) {
			if ok, err := path.Match(file, f); ok && err == nil {
				b, err := r.command(r.hosted(), nil, "git", "cat-file", "blob", good+":"+f)
				if err != nil {
					t.Fatal(err)
				}
				if i := at(b); i >= 0 {
					name = f
					b[i] ^= 1
					r.publishFile(t, ref, good, name, b)
					break
				}
			}
		}
		if name == "" {
			t.Fatalf("no %s on %s to flip a byte of", file, ref)
		}
		return func() { r.git(t, r.hosted(), "update-ref", ref, good) }
	}}
}

// publishFile moves ref to a child of a commit in which one file is another.
func (r *rack) publishFile(t *testing.T, ref, parent, name string, content []byte) {
	t.Helper()
	id := r.gitWith(t, r.hosted(), content, "hash-object", "-w", "--stdin")
	index := filepath.Join(t.TempDir(), "index")
	git := func(args ...string) string {
		out, err := r.command(r.hosted(), nil, "env", append([]string{"GIT_INDEX_FILE=" + index, "git"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	git("read-tree", parent)
	git("update-index", "--add", "--cacheinfo", "100644,"+id+","+name)
	git("update-ref", ref, git("commit-tree", "-p", parent, "-m", "a flipped byte", git("write-tree")))
}

// objectFlip flips a byte of a tree or blob of the rack repository where it is
// stored, under its old name: Git serves it all the same.
func objectFlip(kind, revision, good, bad, reason string) tampering {
	return tampering{kind: kind, reason: reason, published: true, spoil: func(t *testing.T, r *rack) func() {
		t.Helper()
		id := r.git(t, r.hosted(), "rev-parse", revision)
		name := filepath.Join(r.hosted(), "objects", id[:2], id[2:])
		packed := readFile(t, name)
		z, err := zlib.NewReader(strings.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := bytes.Replace(content, []byte(good), []byte(bad), 1)
		if n := different(content, spoilt); n != 1 {
			t.Fatalf("%s %s: %d bytes would differ", kind, id, n)
		}
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		if _, err := w.Write(spoilt); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		replaceFile(t, name, b.String())
		return func() { replaceFile(t, name, packed) }
	}}
}

// commitFlip flips a byte of the commit that the branch is on. Git looks at what
// a branch names before it serves that, so the host moves the branch along.
func commitFlip(good, bad string) tampering {
	const ref = "refs/heads/main"
	return tampering{kind: "commit", reason: "rack.commit", published: true, spoil: func(t *testing.T, r *rack) func() {
		t.Helper()
		id := r.git(t, r.hosted(), "rev-parse", ref)
		content, err := r.command(r.hosted(), nil, "git", "cat-file", "commit", id)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := bytes.Replace(content, []byte(good), []byte(bad), 1)
		if n := different(content, spoilt); n != 1 {
			t.Fatalf("commit %s: %d bytes would differ", id, n)
		}
		r.git(t, r.hosted(), "update-ref", ref, r.gitWith(t, r.hosted(), spoilt, "hash-object", "-t", "commit", "-w", "--stdin"))
		return func() { r.git(t, r.hosted(), "update-ref", ref, id) }
	}}
}

// different counts the bytes in which a and b differ; -1: their lengths do.
func different(a, b []byte) int {
	if len(a) != len(b) {
		return -1
	}
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// replaceFile replaces a file that may be read-only.
func replaceFile(t *testing.T, name, text string) {
	t.Helper()
	tmp := name + ".new"
	writeFile(t, tmp, text)
	if err := os.Rename(tmp, name); err != nil {
		t.Fatal(err)
	}
}
