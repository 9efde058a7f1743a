package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Cost is what a password's hash costs whoever computes it (RFC 9106, 3.1).
type Cost struct {
	Time   uint32 // passes
	Memory uint32 // KiB
}

// DefaultCost suits a management computer with little memory: about 50 ms, and 32 MiB while it lasts.
var DefaultCost = Cost{Time: 2, Memory: 32 << 10}

// Bounds of a cost that is read from a file.
const (
	mostTime   = 16
	mostMemory = 256 << 10 // KiB
	saltLength = 16
	hashLength = 32
)

// MaxPassword bounds a password, in bytes.
const MaxPassword = 128

// hashPassword returns a hash in the PHC string format.
func hashPassword(password string, c Cost) string {
	salt := make([]byte, saltLength)
	rand.Read(salt)
	sum := argon2.IDKey([]byte(password), salt, c.Time, c.Memory, 1, hashLength)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, c.Memory, c.Time, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// parseHash takes a hash apart. It refuses costs that would stall the process.
func parseHash(text string) (c Cost, salt, sum []byte, err error) {
	bad := func() (Cost, []byte, []byte, error) {
		return Cost{}, nil, nil, fmt.Errorf("password hash: not Argon2id as written here")
	}
	f := strings.Split(text, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return bad()
	}
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=1", &c.Memory, &c.Time); n != 2 || err != nil {
		return bad()
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(f[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(f[5])
	if err1 != nil || err2 != nil || len(salt) != saltLength || len(sum) != hashLength ||
		c.Time < 1 || c.Time > mostTime || c.Memory < 8 || c.Memory > mostMemory {
		return bad()
	}
	return c, salt, sum, nil
}

func (s *Store) hash(password string) string {
	s.hashes <- struct{}{}
	defer func() { <-s.hashes }()
	return hashPassword(password, s.o.Cost)
}

// compare is told apart by nothing but its result.
func (s *Store) compare(hash, password string) bool {
	c, salt, want, err := parseHash(hash)
	if err != nil {
		return false
	}
	s.hashes <- struct{}{}
	defer func() { <-s.hashes }()
	got := argon2.IDKey([]byte(password), salt, c.Time, c.Memory, 1, hashLength)
	return subtle.ConstantTimeCompare(got, want) == 1
}

// guessed are what people take when they are asked for a long password.
var guessed = []string{"password", "passw0rd", "changeme", "racklet", "administrator", "123456789", "qwerty"}

// Policy says why a password is not good enough: ErrPassword with the reason, or nil.
func (s *Store) Policy(name, password string) error {
	least := s.Rules().MinPassword
	wrong := func(why string) error { return fmt.Errorf("%w: %s", ErrPassword, why) }
	switch {
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return wrong("it has characters that cannot be typed")
	case len(password) > MaxPassword:
		return wrong(fmt.Sprintf("it has more than %d bytes", MaxPassword))
	case utf8.RuneCountInString(password) < least:
		return wrong(fmt.Sprintf("it has less than %d characters", least))
	}
	different := map[rune]bool{}
	for _, r := range password {
		different[r] = true
	}
	if len(different) < 5 {
		return wrong("it has less than 5 different characters")
	}
	low := strings.ToLower(password)
	for _, g := range append([]string{strings.ToLower(name)}, guessed...) {
		if rest := strings.ReplaceAll(low, g, ""); len(g) > 2 && len(rest) < len(low) && utf8.RuneCountInString(rest) < least/2 {
			return wrong("it is little more than a name or a word that is guessed first")
		}
	}
	return nil
}

// Guidance is the policy in words.
func (s *Store) Guidance() string {
	return fmt.Sprintf("A password has %d to %d characters, 5 of them different, and is not built from the user name or a common word.", s.Rules().MinPassword, MaxPassword)
}

// Secret makes a password that no one chose: 26 letters and digits, 128 bits.
func Secret() string { return rand.Text() }

// Check verifies a name and a password that came from an address. The error is ErrRefused, or
// ErrTooFast when it was not even looked at.
func (s *Store) Check(ctx context.Context, name, password, from string) (Account, error) {
	if len(name) > 64 || len(password) > 4*MaxPassword {
		return Account{}, ErrRefused
	}
	key := s.verified.key(name, password)
	s.mu.Lock()
	a := s.accounts[name]
	now := s.o.Clock.Now()
	if a != nil && a.Enabled && !a.Locked(now) && s.verified.has(name, key, now) {
		defer s.mu.Unlock()
		return *a.clone(), nil
	}
	hash := s.decoy
	if a != nil {
		hash = a.Hash
	}
	s.mu.Unlock()
	if !s.limits.take(from, now) {
		return Account{}, ErrTooFast
	}
	right := s.compare(hash, password)
	if ctx.Err() != nil {
		return Account{}, ctx.Err()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	a = s.accounts[name]
	if a == nil || a.Hash != hash || !a.Enabled || a.Locked(now) {
		return Account{}, ErrRefused
	}
	if !right {
		s.failed(a, now)
		return Account{}, ErrRefused
	}
	delete(s.failures, name)
	s.limits.give(from)
	s.verified.add(name, key, now)
	return *a.clone(), nil
}

// failed counts a wrong password and locks the account when there were too many.
func (s *Store) failed(a *Account, now time.Time) {
	f := s.failures[a.Name]
	if now.Sub(f.last) >= s.rules.LockoutReset {
		f.count = 0
	}
	f.count, f.last = f.count+1, now
	s.failures[a.Name] = f
	if s.rules.LockoutThreshold == 0 || f.count < s.rules.LockoutThreshold {
		return
	}
	until := now.Add(s.rules.LockoutDuration)
	if s.rules.LockoutDuration == 0 {
		until = forever
	}
	delete(s.failures, a.Name)
	// A lock that could not be written holds until the process ends.
	if err := s.update(a.Name, func(a *Account) error { a.LockedUntil = until; return nil }); err != nil {
		c := a.clone()
		c.LockedUntil = until
		s.accounts[a.Name] = c
	}
}

// forever is the end of a lock that an administrator must take away.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// verified remembers for a short time, in memory, who has shown the right password, so
// that HTTP Basic does not cost a hash with each request. It holds keyed digests, the key of which
// ends with the process.
type verified struct {
	secret [32]byte
	known  map[string]seen
}

type seen struct {
	key   [32]byte
	until time.Time
}

const verifiedFor = 2 * time.Minute

func (v *verified) init() {
	rand.Read(v.secret[:])
	v.known = map[string]seen{}
}

func (v *verified) key(name, password string) (k [32]byte) {
	h := hmac.New(sha256.New, v.secret[:])
	fmt.Fprintf(h, "%d %s%s", len(name), name, password)
	h.Sum(k[:0])
	return k
}

func (v *verified) has(name string, key [32]byte, now time.Time) bool {
	k, ok := v.known[name]
	return ok && now.Before(k.until) && subtle.ConstantTimeCompare(k.key[:], key[:]) == 1
}

func (v *verified) add(name string, key [32]byte, now time.Time) {
	v.known[name] = seen{key, now.Add(verifiedFor)}
}

func (v *verified) forget(name string) { delete(v.known, name) }

func (v *verified) clear() { clear(v.known) }
