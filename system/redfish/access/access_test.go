package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is moved by the test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var cheap = Cost{Time: 1, Memory: 8}

const (
	good  = "correct horse battery"
	other = "staple of the third kind"
	here  = "192.0.2.1:999"
)

func open(t testing.TB, dir string) (*Store, *clock) {
	t.Helper()
	c := &clock{t: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	s, err := Open(Options{Dir: dir, Clock: c, Cost: cheap})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func create(t testing.TB, s *Store, name string, r Role) {
	t.Helper()
	if err := s.Create(Account{Name: name, Role: r, Enabled: true}, good); err != nil {
		t.Fatal(err)
	}
}

func TestCreate(t *testing.T) {
	s, _ := open(t, "")
	create(t, s, "ada", Administrator)
	for _, c := range []struct {
		name     string
		role     Role
		password string
		want     error
	}{
		{"ada", Operator, good, ErrExists},
		{"ADA", Operator, good, ErrExists},
		{"", Operator, good, ErrName},
		{"../x", Operator, good, ErrName},
		{".x", Operator, good, ErrName},
		{"a b", Operator, good, ErrName},
		{strings.Repeat("x", 33), Operator, good, ErrName},
		{"bob", "Root", good, ErrRole},
		{"bob", Operator, "", ErrPassword},
		{"bob", Operator, "short", ErrPassword},
		{"bob", Operator, strings.Repeat("x", 20), ErrPassword},
		{"bob", Operator, strings.Repeat("abcdefgh", 17), ErrPassword},
		{"bob", Operator, "with\x00control chars", ErrPassword},
		{"bob", Operator, "not UTF-8 \xff\xfe\xfd", ErrPassword},
		{"bob", Operator, "Password1234", ErrPassword},
		{"robert", Operator, "RobertRobert1", ErrPassword},
		{"bob", Operator, "pässwörter wie diese", nil},
	} {
		err := s.Create(Account{Name: c.name, Role: c.role, Enabled: true}, c.password)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%q %s %q: %v, want %v", c.name, c.role, c.password, err, c.want)
		}
	}
	for i := len(s.Accounts()); i < MaxAccounts; i++ {
		create(t, s, fmt.Sprintf("u%d", i), ReadOnly)
	}
	if err := s.Create(Account{Name: "more", Role: ReadOnly}, good); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
}

// TestRestart holds that what was acknowledged is there afterwards, and that secrets are not.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	create(t, s, "ada", Administrator)
	create(t, s, "bob", Operator)
	create(t, s, "eve", ReadOnly)
	if err := s.SetPassword("bob", other, "", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("eve"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRules(func(r *Rules) { r.SessionTimeout = time.Minute; r.Basic = false }); err != nil {
		t.Fatal(err)
	}
	_, token, err := s.NewSession("ada", here)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{good, other, token} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the file has %q", secret)
		}
	}
	if info, _ := os.Stat(filepath.Join(dir, fileName)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	again, _ := open(t, dir)
	if n := len(again.Accounts()); n != 2 {
		t.Errorf("%d accounts", n)
	}
	if a, err := again.Check(t.Context(), "bob", other, here); err != nil || a.Role != Operator || !a.ChangeRequired {
		t.Errorf("bob: %+v %v", a, err)
	}
	if _, err := again.Check(t.Context(), "bob", good, here); err == nil {
		t.Error("bob's old password")
	}
	if r := again.Rules(); r.SessionTimeout != time.Minute || r.Basic {
		t.Errorf("rules %+v", r)
	}
	if _, _, err := again.Use(token); err == nil {
		t.Error("a session of another life")
	}
}

// TestUnkept: what cannot be written is not so.
func TestUnkept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, dir)
	create(t, s, "ada", Administrator)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(Account{Name: "bob", Role: Operator, Enabled: true}, good); err == nil {
		t.Error("created")
	}
	if err := s.SetPassword("ada", other, "", false); err == nil {
		t.Error("changed")
	}
	if err := s.Delete("ada"); err == nil {
		t.Error("deleted")
	}
	if err := s.SetRules(func(r *Rules) { r.Basic = false }); err == nil || !s.Rules().Basic {
		t.Error("rules changed")
	}
	if _, err := s.Check(t.Context(), "ada", good, here); err != nil || len(s.Accounts()) != 1 {
		t.Errorf("what was before is not any more: %v", err)
	}
}

func TestDamage(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"Version":1,"Rules"`, "version": `{"Version":2}`, "unknown": `{"Version":1,"Sudo":true}`, "rules": `{"Version":1}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: dir, Clock: &clock{}, Cost: cheap}); err == nil {
			t.Errorf("%s: taken for a state", name)
		}
	}
}

func TestLockout(t *testing.T) {
	dir := t.TempDir()
	s, c := open(t, dir)
	create(t, s, "ada", Administrator)
	from := 0
	check := func(password string) error {
		from++ // from everywhere, so that the rate is not what refuses
		_, err := s.Check(t.Context(), "ada", password, fmt.Sprintf("192.0.2.%d:1", from%250))
		return err
	}
	wrong := func(n int) {
		t.Helper()
		for range n {
			if err := check("wrong"); !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			c.add(time.Second)
		}
	}
	wrong(4)
	if err := check(good); err != nil {
		t.Fatalf("after four: %v", err)
	}
	s.SetPassword("ada", other, "", false) // forgets who was seen
	s.SetPassword("ada", good, "", false)
	wrong(4)
	c.add(6 * time.Minute) // forgotten
	wrong(4)
	if a, _ := s.Account("ada"); a.Locked(c.Now()) {
		t.Error("locked too early")
	}
	wrong(1)
	if a, _ := s.Account("ada"); !a.Locked(c.Now()) {
		t.Error("not locked")
	}
	if err := check(good); !errors.Is(err, ErrRefused) {
		t.Errorf("locked, the right password: %v", err)
	}
	// A restart does not unlock.
	again, c2 := open(t, dir)
	c2.add(c.Now().Sub(c2.Now()))
	if _, err := again.Check(t.Context(), "ada", good, here); !errors.Is(err, ErrRefused) {
		t.Errorf("after a restart: %v", err)
	}
	c2.add(5 * time.Minute)
	if _, err := again.Check(t.Context(), "ada", good, here); err != nil {
		t.Errorf("after its time: %v", err)
	}
	// An administrator unlocks.
	if err := s.Update("ada", func(a *Account) error { a.LockedUntil = time.Time{}; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := check(good); err != nil {
		t.Errorf("unlocked: %v", err)
	}
	// Who is locked stays so until unlocked, if that is the rule.
	s.SetRules(func(r *Rules) { r.LockoutDuration = 0 })
	s.SetPassword("ada", other, "", false)
	wrong(5)
	c.add(1000 * time.Hour)
	if err := check(other); !errors.Is(err, ErrRefused) {
		t.Errorf("locked for good: %v", err)
	}
}

func TestRate(t *testing.T) {
	s, c := open(t, "")
	s.SetRules(func(r *Rules) { r.LockoutThreshold = 0 })
	create(t, s, "ada", Administrator)
	check := func(from, password string) error {
		_, err := s.Check(t.Context(), "ada", password, from)
		return err
	}
	for i := range burst {
		if err := check("[2001:db8::1]:1", "wrong"); !errors.Is(err, ErrRefused) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for _, from := range []string{"[2001:db8::1]:2", "[2001:db8::ffff]:2"} { // a site has many addresses
		if err := check(from, good); !errors.Is(err, ErrTooFast) {
			t.Errorf("%s: %v", from, err)
		}
	}
	if err := check(here, good); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	for range 3 * burst { // one who is known to be right is not slowed down
		if err := check(here, good); err != nil {
			t.Fatal(err)
		}
	}
	c.add(refill)
	if err := check("[2001:db8::1]:3", "wrong"); !errors.Is(err, ErrRefused) {
		t.Errorf("after a while: %v", err)
	}
	if err := check("[2001:db8::1]:3", "wrong"); !errors.Is(err, ErrTooFast) {
		t.Errorf("again: %v", err)
	}
	for i := range allBurst { // many addresses together
		check(fmt.Sprintf("198.51.100.%d:1", i), "wrong")
	}
	if err := check("203.0.113.1:1", "wrong"); !errors.Is(err, ErrTooFast) {
		t.Errorf("from one more: %v", err)
	}
}

func TestSessions(t *testing.T) {
	s, c := open(t, "")
	create(t, s, "ada", Administrator)
	create(t, s, "bob", Operator)
	e, token, err := s.NewSession("ada", here)
	if err != nil || len(token) < 43 {
		t.Fatal(token, err)
	}
	use := func(token string) error { _, _, err := s.Use(token); return err }
	for _, wrong := range []string{"", e.ID, token + "x", token[1:]} {
		if use(wrong) == nil {
			t.Errorf("token %q", wrong)
		}
	}
	for range 5 { // idle time begins anew with each use
		c.add(29 * time.Minute)
		if err := use(token); err != nil {
			t.Fatal(err)
		}
	}
	c.add(30 * time.Minute)
	if use(token) == nil {
		t.Error("used after it was idle")
	}
	_, token, _ = s.NewSession("ada", here)
	for range 24*6 - 1 {
		c.add(10 * time.Minute)
		if err := use(token); err != nil {
			t.Fatal(err)
		}
	}
	c.add(10 * time.Minute)
	if use(token) == nil {
		t.Error("used for more than a day")
	}
	for name, end := range map[string]func(string){
		"end":      func(id string) { s.EndSession(id) },
		"role":     func(string) { s.Update("bob", func(a *Account) error { a.Role = ReadOnly; return nil }) },
		"disable":  func(string) { s.Update("bob", func(a *Account) error { a.Enabled = false; return nil }) },
		"password": func(string) { s.SetPassword("bob", other, "", false); s.SetPassword("bob", good, "", false) },
		"delete":   func(string) { s.Delete("bob"); create(t, s, "bob", Operator) },
	} {
		s.Update("bob", func(a *Account) error { a.Role, a.Enabled = Operator, true; return nil })
		e, token, err := s.NewSession("bob", here)
		if err != nil || use(token) != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if end(e.ID); use(token) == nil {
			t.Errorf("%s: the session goes on", name)
		}
	}
	s.Update("bob", func(a *Account) error { a.Enabled = true; return nil })
	e, token, _ = s.NewSession("bob", here)
	if err := s.SetPassword("bob", other, e.ID, false); err != nil || use(token) != nil {
		t.Error("the session that changed the password ended")
	}
	for i := 1; i < MaxSessionsPerAccount; i++ {
		if _, _, err := s.NewSession("bob", here); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.NewSession("bob", here); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if _, _, err := s.NewSession("ada", here); err != nil {
		t.Errorf("another account: %v", err)
	}
}

func certificate(t *testing.T, now time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "ada"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificates(t *testing.T) {
	s, c := open(t, t.TempDir())
	create(t, s, "ada", Administrator)
	create(t, s, "bob", Operator)
	one, two := certificate(t, c.Now()), certificate(t, c.Now())
	id, err := s.AddCertificate("ada", one)
	if err != nil || !s.UsesCertificates() {
		t.Fatal(err)
	}
	if _, err := s.AddCertificate("bob", one); !errors.Is(err, ErrExists) {
		t.Errorf("one certificate, two accounts: %v", err)
	}
	if a, err := s.CheckCertificate(one); err != nil || a.Name != "ada" {
		t.Errorf("%v %v", a, err)
	}
	if _, err := s.CheckCertificate(two); err == nil { // the same subject
		t.Error("another certificate of that name")
	}
	again, _ := open(t, s.o.Dir)
	if _, err := again.CheckCertificate(one); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	s.Update("ada", func(a *Account) error { a.Enabled = false; return nil })
	if _, err := s.CheckCertificate(one); err == nil {
		t.Error("the account is disabled")
	}
	s.Update("ada", func(a *Account) error { a.Enabled = true; return nil })
	c.add(2 * time.Hour)
	if _, err := s.CheckCertificate(one); err == nil {
		t.Error("it has expired")
	}
	if _, err := s.AddCertificate("bob", two); !errors.Is(err, ErrCertificate) {
		t.Errorf("an expired one is added: %v", err)
	}
	c.add(-2 * time.Hour)
	if err := s.RemoveCertificate("ada", id); err != nil || s.UsesCertificates() {
		t.Error(err)
	}
	if _, err := s.CheckCertificate(one); err == nil {
		t.Error("it was taken away")
	}
}

func TestHash(t *testing.T) {
	h := hashPassword(good, cheap)
	if strings.Contains(h, good) || h == hashPassword(good, cheap) || !strings.HasPrefix(h, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("hash %s", h)
	}
	for _, bad := range []string{"", "$", strings.Replace(h, "m=8", "m=99999999", 1), strings.Replace(h, "t=1", "t=0", 1), strings.Replace(h, "argon2id", "argon2i", 1), h[:len(h)-1], h + "$"} {
		if _, _, _, err := parseHash(bad); err == nil {
			t.Errorf("%q is a hash", bad)
		}
	}
}

func FuzzState(f *testing.F) {
	s, _ := open(f, "")
	create(f, s, "ada", Administrator)
	b, _ := json.Marshal(document{Version: 1, Rules: s.rules, Accounts: []*Account{s.accounts["ada"]}})
	f.Add(string(b))
	f.Add(`{"Version":1,"Accounts":[null]}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := open(t, "")
		if s.parse(strings.NewReader(text)) != nil {
			return
		}
		for _, a := range s.Accounts() {
			if len(a.Role.Privileges()) == 0 || !validName.MatchString(a.Name) {
				t.Errorf("account %+v", a)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		hashPassword(good, DefaultCost)
	}
}
