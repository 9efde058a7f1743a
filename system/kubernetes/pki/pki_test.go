package pki

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var leaves = []Leaf{
	{Name: "apiserver", CN: "kube-apiserver", DNS: []string{"kubernetes"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true},
	{Name: "admin", CN: "admin", Groups: []string{"racklet:administrators"}},
	{Name: "front-proxy", CN: "front-proxy", Signer: "front-proxy-ca"},
}

// verify holds a leaf against a bundle.
func verify(t *testing.T, f Folder, leaf, bundle string, usage x509.ExtKeyUsage) error {
	t.Helper()
	c, _, err := readPair(f.Path(leaf))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Path(bundle))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatalf("%s holds no certificate", bundle)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: f.Now(), KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestEnsure(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f := Folder{Dir: filepath.Join(t.TempDir(), "pki"), Now: func() time.Time { return now }}
	ensure := func(want ...string) {
		t.Helper()
		got, err := f.Ensure(leaves...)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %v wrote %v, want %v", now, got, want)
		}
	}
	ensure("ca-1.pem", "ca.crt", "apiserver.pem", "admin.pem", "front-proxy-ca-1.pem", "front-proxy-ca.crt", "front-proxy.pem")
	ensure()
	for _, c := range []struct {
		leaf, bundle string
		usage        x509.ExtKeyUsage
		ok           bool
	}{
		{"apiserver", "ca.crt", x509.ExtKeyUsageServerAuth, true},
		{"apiserver", "ca.crt", x509.ExtKeyUsageClientAuth, false},
		{"admin", "ca.crt", x509.ExtKeyUsageClientAuth, true},
		{"admin", "ca.crt", x509.ExtKeyUsageServerAuth, false},
		{"admin", "front-proxy-ca.crt", x509.ExtKeyUsageClientAuth, false},
		{"front-proxy", "front-proxy-ca.crt", x509.ExtKeyUsageClientAuth, true},
	} {
		if err := verify(t, f, c.leaf, c.bundle, c.usage); (err == nil) != c.ok {
			t.Errorf("%s by %s for %v: %v", c.leaf, c.bundle, c.usage, err)
		}
	}

	now = now.Add(LeafLife/2 - 10*time.Minute)
	ensure()
	now = now.Add(10 * time.Minute)
	ensure("apiserver.pem", "admin.pem", "front-proxy.pem")

	// Somebody else's wish: other names in a certificate.
	leaves[0].IPs = append(leaves[0].IPs, net.IPv4(10, 96, 0, 1))
	ensure("apiserver.pem")

	info, err := os.Stat(f.Path("admin"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(f.Path("admin"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Ensure(leaves...); err == nil {
		t.Error("a broken key file is passed over")
	}
}

// TestAuthorityRotation walks through 200 days in steps of twelve hours: at any time all leaves are valid
// by the bundle of now and by the one of a day ago, which somebody may still hold.
func TestAuthorityRotation(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f := Folder{Dir: t.TempDir(), Now: func() time.Time { return now }}
	var bundles [][]byte
	generations := map[string]bool{}
	for range 2 * 200 {
		if _, err := f.Ensure(leaves...); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(f.Path("ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, b)
		generations[string(b)] = true
		old := bundles[max(0, len(bundles)-3)]
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(old)
		c, _, err := readPair(f.Path("admin"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Fatalf("at %v a day-old bundle refuses: %v", now, err)
		}
		if err := verify(t, f, "admin", "ca.crt", x509.ExtKeyUsageClientAuth); err != nil {
			t.Fatalf("at %v: %v", now, err)
		}
		now = now.Add(12 * time.Hour)
	}
	if len(generations) < 5 {
		t.Errorf("%d different bundles in 200 days", len(generations))
	}
	if files, _ := filepath.Glob(filepath.Join(f.Dir, "ca-*.pem")); len(files) > 2 {
		t.Errorf("authorities pile up: %v", files)
	}
}

func TestKeys(t *testing.T) {
	f := Folder{Dir: t.TempDir(), Now: time.Now}
	a, err := f.SecretKey()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := f.SecretKey(); err != nil || a != b || len(a) != 44 {
		t.Errorf("%q, then %q, %v", a, b, err)
	}
	os.WriteFile(f.Path("secrets.key"), []byte("short"), 0o600)
	if _, err := f.SecretKey(); err == nil {
		t.Error("a broken key is replaced, and all secrets are lost")
	}
	if err := f.SigningKey(); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(f.Path("service-account"))
	if err := f.SigningKey(); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(f.Path("service-account")); string(first) != string(again) {
		t.Error("the signing key changes")
	}
}
