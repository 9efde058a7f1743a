package deb

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func TestCompareVersions(t *testing.T) {
	ordered := []string{
		"0.9~rc1-1", "0.9-1", "1.0~~", "1.0~", "1.0", "1.0-1~bpo13+1", "1.0-1", "1.0-1+b1", "1.0a-1", "1.0+dfsg-1",
		"1.9-1", "1.10-1", "6.12.107-1", "6.12.115-1", "6.12.115-2", "6.12.117-1", "7.0.4-1~bpo13+1", "1:0.1-1", "2:0",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			got := CompareVersions(a, b)
			if (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("CompareVersions(%s, %s) = %d", a, b, got)
			}
		}
	}
	if CompareVersions("1.01", "1.1") != 0 || CompareVersions("0:1", "1") != 0 {
		t.Error("leading zeros count")
	}
}

const goodLock = `{"format":1,"architecture":"arm64","requests":[],"packages":[{"name":"kernel","package":"linux","version":"1","suite":"trixie","path":"pool/l.deb","size":3,"sha256":"` +
	`ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]}`

func TestParseLock(t *testing.T) {
	l, err := ParseLock([]byte(goodLock))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseLock(l.Marshal())
	if err != nil || again.Packages[0] != l.Packages[0] {
		t.Errorf("marshalled lock: %+v, %v", again, err)
	}
	if _, err := l.Find("initramfs"); err == nil || !strings.Contains(err.Error(), "kernel") {
		t.Errorf("find of an absent role: %v", err)
	}
	for name, edit := range map[string][2]string{
		"unknown field":     {`"format":1`, `"format":1,"mirror":"x"`},
		"other format":      {`"format":1`, `"format":2`},
		"absolute path":     {"pool/l.deb", "/pool/l.deb"},
		"path upwards":      {"pool/l.deb", "../l.deb"},
		"path with a host":  {"pool/l.deb", "http://x/l.deb"},
		"upper-case hash":   {"ba7816", "BA7816"},
		"short hash":        {"ba7816", "7816"},
		"no size":           {`"size":3`, `"size":0`},
		"vast size":         {`"size":3`, `"size":9999999999`},
		"no version":        {`"version":"1"`, `"version":""`},
		"twice":             {`}]}`, `},{"name":"kernel","package":"linux","version":"1","suite":"trixie","path":"pool/l.deb","size":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]}`},
		"something follows": {`}]}`, `}]}{}`},
	} {
		s := strings.Replace(goodLock, edit[0], edit[1], 1)
		if _, err := ParseLock([]byte(s)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLocksOfTheRepository keeps the checked-in locks well formed, complete, and free of host names.
func TestLocksOfTheRepository(t *testing.T) {
	files, err := filepath.Glob("../../tools/locks/*.lock.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lock files: %v", err)
	}
	for _, name := range files {
		l, err := ReadLock(name)
		if err != nil {
			t.Error(err)
			continue
		}
		b, _ := os.ReadFile(name)
		if !bytes.Equal(b, l.Marshal()) {
			t.Errorf("%s is not in the form that make update-locks writes", name)
		}
		if strings.Contains(string(b), "://") {
			t.Errorf("%s names a host", name)
		}
		for _, r := range l.Requests {
			if _, err := l.Find(r.Name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestAptMirrors(t *testing.T) {
	etc := t.TempDir()
	write := func(name, text string) {
		os.MkdirAll(filepath.Dir(filepath.Join(etc, name)), 0o755)
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sources.list", `# deb http://commented.example/debian trixie main
deb [arch=amd64 signed-by=/x.gpg] http://one.example/debian/ bookworm main contrib
deb-src http://source.example/debian bookworm main
deb http://vendor.example/packages nodistro main
deb cdrom:[Debian]/ bookworm main
deb http://sec.example/debian-security bookworm-security main
`)
	write("sources.list.d/a.sources", `Types: deb deb-src
URIs: https://two.example/debian
 http://one.example/debian
Suites: trixie trixie-updates
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: trixie
`)
	write("sources.list.d/off.list.disabled", "deb http://disabled.example/debian trixie main\n")
	m := AptMirrors(etc)
	if want := []string{"http://one.example/debian", "https://two.example/debian", "http://sec.example/debian"}; !slices.Equal(m.Archive, want) {
		t.Errorf("archive %q, want %q", m.Archive, want)
	}
	if want := []string{"http://sec.example/debian-security", "http://one.example/debian-security", "https://two.example/debian-security"}; !slices.Equal(m.Security, want) {
		t.Errorf("security %q, want %q", m.Security, want)
	}
	if got := m.For("trixie-security"); !slices.Equal(got, m.Security) {
		t.Errorf("mirrors for trixie-security: %q", got)
	}
	if !AptMirrors(t.TempDir()).Empty() {
		t.Error("a machine without apt has mirrors")
	}
	for _, bad := range []string{"ftp://x/debian", "debian", "http:///x"} {
		if _, err := NamedMirrors(bad); err == nil {
			t.Errorf("mirror %q is accepted", bad)
		}
	}
}

// signer makes an archive key.
func signer(t *testing.T) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("archive", "", "archive@example", &packet.Config{DefaultHash: crypto.SHA256, Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func inRelease(t *testing.T, e *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestResolve(t *testing.T) {
	key, stranger := signer(t), signer(t)
	stanza := func(name, version, letter string) string {
		return fmt.Sprintf("Package: %s\nVersion: %s\nFilename: pool/%s_%s.deb\nSize: 5\nSHA256: %s\nDescription: x\n more\n\n", name, version, name, version, strings.Repeat(letter, 64))
	}
	stable := compress(t, []byte(stanza("linux-image-6.12.94-cloud", "6.12.94-1", "a")+stanza("linux-image-6.12.107-cloud", "6.12.107-1", "b")+stanza("linux-image-6.12.107-cloud-unsigned", "6.12.107-1", "f")))
	security := compress(t, []byte(stanza("linux-image-6.12.117-cloud", "6.12.117-1", "c")))
	release := func(suite string, packages []byte, extra string) string {
		s := sha256.Sum256(packages)
		return fmt.Sprintf("Origin: Debian\nSuite: stable\nCodename: %s\n%sSHA256:\n %x %d main/binary-arm64/Packages.xz\n", suite, extra, s, len(packages))
	}
	files := func() map[string][]byte {
		return map[string][]byte{
			"/debian/dists/trixie/InRelease":                                       inRelease(t, key, release("trixie", stable, "")),
			"/debian/dists/trixie/main/binary-arm64/Packages.xz":                   stable,
			"/debian-security/dists/trixie-security/InRelease":                     inRelease(t, key, release("trixie-security", security, "Valid-Until: Mon, 30 Nov 2026 00:00:00 UTC\n")),
			"/debian-security/dists/trixie-security/main/binary-arm64/Packages.xz": security,
		}
	}
	lock := &Lock{Format: 1, Architecture: "arm64", Requests: []Request{
		{Name: "kernel", Package: "linux-image-6.12.*-cloud", Suites: []string{"trixie", "trixie-security"}},
		{Name: "other", Package: "linux-image-6.12.*-cloud", Suites: []string{"trixie"}, DiffersFrom: "kernel"},
		{Name: "third", Package: "linux-image-6.12.*-cloud", Suites: []string{"trixie", "trixie-security"}, DiffersFrom: "other"},
	}}
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	resolve := func(files map[string][]byte) (*Lock, error) {
		_, url := serve(t, files)
		m, err := NamedMirrors(url + "/debian")
		if err != nil {
			t.Fatal(err)
		}
		a := &Archive{Mirrors: m, Keyring: openpgp.EntityList{key}, Now: func() time.Time { return now }}
		return a.Resolve(t.Context(), lock)
	}
	got, err := resolve(files())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"kernel 6.12.117-1 trixie-security", "other 6.12.107-1 trixie", "third 6.12.117-1 trixie-security"} {
		p := got.Packages[i]
		if s := p.Name + " " + p.Version + " " + p.Suite; s != want {
			t.Errorf("package %d is %s, want %s", i, s, want)
		}
	}

	// A suite without Valid-Until, once of another day: the lock keeps the day.
	dated := func(day string) map[string][]byte {
		f := files()
		f["/debian/dists/trixie/InRelease"] = inRelease(t, key, release("trixie", stable, day))
		return f
	}
	for _, step := range []struct {
		date string
		good bool
	}{
		{"Date: Sat, 10 Oct 2026 08:00:00 UTC\n", true},
		{"Date: Sat, 10 Oct 2026 08:00:00 UTC\n", true},
		{"Date: Sat, 14 Nov 2026 08:00:00 UTC\n", true},
		{"Date: Sat, 10 Oct 2026 08:00:00 UTC\n", false}, // signed, and old
		{"", false},
		{"Date: soon\n", false},
		{"Date: Sun, 15 Nov 2026 08:00:00 UTC\n", true},
	} {
		next, err := resolve(dated(step.date))
		if (err == nil) != step.good {
			t.Errorf("%q after %v: %v", step.date, lock.Dates, err)
		}
		if err == nil {
			if lock, err = ParseLock(next.Marshal()); err != nil {
				t.Fatal(err)
			}
		}
	}
	lock.Dates = nil

	for name, edit := range map[string]func(map[string][]byte){
		"signed by a stranger": func(f map[string][]byte) {
			f["/debian/dists/trixie/InRelease"] = inRelease(t, stranger, release("trixie", stable, ""))
		},
		"not signed": func(f map[string][]byte) { f["/debian/dists/trixie/InRelease"] = []byte(release("trixie", stable, "")) },
		"changed after signing": func(f map[string][]byte) {
			f["/debian/dists/trixie/InRelease"] = bytes.Replace(f["/debian/dists/trixie/InRelease"], []byte("Origin: Debian"), []byte("Origin: Debiam"), 1)
		},
		"text before the message": func(f map[string][]byte) {
			f["/debian/dists/trixie/InRelease"] = append([]byte("SHA256:\n"), f["/debian/dists/trixie/InRelease"]...)
		},
		"text after the message": func(f map[string][]byte) {
			f["/debian/dists/trixie/InRelease"] = append(f["/debian/dists/trixie/InRelease"], "SHA256:\n"...)
		},
		"other suite": func(f map[string][]byte) {
			f["/debian/dists/trixie/InRelease"] = f["/debian-security/dists/trixie-security/InRelease"]
		},
		"expired": func(f map[string][]byte) {
			f["/debian-security/dists/trixie-security/InRelease"] = inRelease(t, key, release("trixie-security", security, "Valid-Until: Sun, 22 Nov 2026 00:00:00 UTC\n"))
		},
		"other index": func(f map[string][]byte) { f["/debian/dists/trixie/main/binary-arm64/Packages.xz"] = security },
		"no index":    func(f map[string][]byte) { delete(f, "/debian/dists/trixie/main/binary-arm64/Packages.xz") },
	} {
		f := files()
		edit(f)
		if _, err := resolve(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// pack makes a package with the files of a tar archive.
func pack(t *testing.T, ext string, headers ...tar.Header) []byte {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, h := range headers {
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			content = []byte("content of " + h.Name)
			h.Size = int64(len(content))
		}
		h.Mode = 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	w.Close()
	body := data.Bytes()
	switch ext {
	case ".xz":
		body = compress(t, body)
	case ".zst":
		e, _ := zstd.NewWriter(nil)
		body = e.EncodeAll(body, nil)
	}
	var out bytes.Buffer
	out.WriteString(arMagic)
	member := func(name string, b []byte) {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, len(b))
		out.Write(b)
		if len(b)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar.xz", []byte("odd"))
	member("data.tar"+ext, body)
	return out.Bytes()
}

func TestUnpack(t *testing.T) {
	for _, ext := range []string{"", ".xz", ".zst"} {
		dir := t.TempDir()
		b := pack(t, ext,
			tar.Header{Typeflag: tar.TypeDir, Name: "./usr/bin/"},
			tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/qemu"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "./usr/lib/liba.so", Linkname: "liba.so.1"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "./lib/abs", Linkname: "/usr/bin/qemu"},
			tar.Header{Typeflag: tar.TypeLink, Name: "./usr/bin/hard", Linkname: "./usr/bin/qemu"})
		if err := Unpack(bytes.NewReader(b), dir); err != nil {
			t.Fatalf("%q: %v", ext, err)
		}
		for _, name := range []string{"usr/bin/qemu", "usr/bin/hard", "lib/abs"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != "content of ./usr/bin/qemu" {
				t.Errorf("%q: %s: %q, %v", ext, name, got, err)
			}
		}
	}
	outside := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"link upwards":         {{Typeflag: tar.TypeSymlink, Name: "./a", Linkname: "../../etc/passwd"}},
		"write through a link": {{Typeflag: tar.TypeSymlink, Name: "./a", Linkname: "b/../../x"}, {Typeflag: tar.TypeReg, Name: "./a/b"}},
		"hard link outside":    {{Typeflag: tar.TypeLink, Name: "./a", Linkname: outside + "/x"}},
	} {
		if err := Unpack(bytes.NewReader(pack(t, "", headers...)), t.TempDir()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	dir := t.TempDir()
	if err := Unpack(bytes.NewReader(pack(t, "", tar.Header{Typeflag: tar.TypeReg, Name: "../../up"})), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "up")); err != nil {
		t.Errorf("a name with dots is not kept below the directory: %v", err)
	}
}

func TestClosure(t *testing.T) {
	pkg := func(name, version, depends, provides string) map[string]string {
		return map[string]string{"Package": name, "Version": version, "Depends": depends, "Provides": provides, "Filename": "pool/" + name, "Size": "1", "SHA256": strings.Repeat("0", 64)}
	}
	idx := map[string][]map[string]string{
		"s":          {pkg("qemu", "1", "libc6 (>= 2), liba:any | libx, virtual, loop", ""), pkg("liba", "1", "libc6", ""), pkg("real", "1", "", "virtual (= 1)"), pkg("loop", "1", "qemu", ""), pkg("libc6", "1", "", "")},
		"s-security": {pkg("liba", "2", "libc6, gone | present", ""), pkg("present", "1", "", "")},
	}
	got, err := Closure(idx, map[string]bool{"libc6": true}, "qemu")
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, p := range got {
		s = append(s, p.Package+"="+p.Version+"@"+p.Suite)
	}
	if want := "liba=2@s-security loop=1@s present=1@s-security qemu=1@s real=1@s"; strings.Join(s, " ") != want {
		t.Errorf("got %s, want %s", s, want)
	}
	delete(idx, "s-security")
	idx["s"] = append(idx["s"], pkg("broken", "1", "nowhere | nobody", ""))
	if _, err := Closure(idx, nil, "broken"); err == nil || !strings.Contains(err.Error(), "nowhere or nobody") {
		t.Errorf("unsatisfiable: %v", err)
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte(goodLock))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock(b)
		if err != nil {
			return
		}
		for _, p := range l.Packages {
			if !filepath.IsLocal(p.Path) {
				t.Errorf("path %q leaves the mirror", p.Path)
			}
		}
		if _, err := ParseLock(l.Marshal()); err != nil {
			t.Errorf("marshalled lock is refused: %v", err)
		}
	})
}

func FuzzWalk(f *testing.F) {
	t := new(testing.T)
	f.Add(pack(t, "", tar.Header{Typeflag: tar.TypeReg, Name: "./a"}))
	f.Add(pack(t, ".xz", tar.Header{Typeflag: tar.TypeReg, Name: "./a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		Walk(bytes.NewReader(b), func(h *tar.Header, r io.Reader) error {
			if h.Name == "" || !filepath.IsLocal(h.Name) {
				t.Errorf("name %q", h.Name)
			}
			_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<16))
			return err
		})
	})
}

func FuzzControl(f *testing.F) {
	f.Add("Package: a\nSHA256:\n "+strings.Repeat("a", 64)+" 1 x\n\nPackage: b\n", "1:2.0~rc1-1", "2.0-1")
	f.Fuzz(func(t *testing.T, text, a, b string) {
		for _, s := range parseStanzas(text) {
			parseHashes(s["SHA256"])
			relations(s["Depends"])
		}
		parseOneLine(text)
		parseSources(text)
		if x, y := CompareVersions(a, b), CompareVersions(b, a); (x < 0) != (y > 0) || (x == 0) != (y == 0) {
			t.Errorf("order of %q and %q: %d and %d", a, b, x, y)
		}
	})
}
