// Package access knows who may use the management API: accounts with roles, their
// passwords, failed logins and lockout, and sessions. It keeps accounts and rules in one
// file of the state directory; sessions live as long as the process.
//
// It decides and remembers; it speaks no HTTP. Package redfish asks it for each request.
//
// There is no default account and no default password. Passwords are kept as Argon2id hashes
// (RFC 9106), session tokens of 256 random bits as SHA-256 digests. What an attacker
// learns from a refusal is the same for a wrong password, an unknown name, a disabled and a locked
// account, and takes as long.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Clock tells the time. Tests have their own.
type Clock interface{ Now() time.Time }

// A Privilege is one of the standard's (DSP0266, 13.2.8 "Privilege model").
type Privilege string

// The standard's privileges that are used here. NoAuth asks for no login at all;
// ConfigureSelf is for what is one's own: account and sessions.
const (
	NoAuth              Privilege = "NoAuth"
	Login               Privilege = "Login"
	ConfigureSelf       Privilege = "ConfigureSelf"
	ConfigureUsers      Privilege = "ConfigureUsers"
	ConfigureManager    Privilege = "ConfigureManager"
	ConfigureComponents Privilege = "ConfigureComponents"
)

// A Role is one of the standard's three.
type Role string

// The standard's roles (DSP0266, 13.2.7 "Roles").
const (
	Administrator Role = "Administrator"
	Operator      Role = "Operator"
	ReadOnly      Role = "ReadOnly"
)

// Roles lists all roles, the mightiest first.
var Roles = []Role{Administrator, Operator, ReadOnly}

// Privileges lists what a role may do; nothing for an unknown one.
func (r Role) Privileges() []Privilege {
	switch r {
	case Administrator:
		return []Privilege{Login, ConfigureSelf, ConfigureUsers, ConfigureManager, ConfigureComponents}
	case Operator:
		return []Privilege{Login, ConfigureSelf, ConfigureComponents}
	case ReadOnly:
		return []Privilege{Login, ConfigureSelf}
	}
	return nil
}

// Has reports whether a role has a privilege.
func (r Role) Has(p Privilege) bool { return slices.Contains(r.Privileges(), p) }

// Limits.
const (
	MaxAccounts           = 64
	MaxCertificates       = 8 // of one account
	MaxSessions           = 64
	MaxSessionsPerAccount = 16
)

// An Account is one who may log in.
type Account struct {
	Name           string
	Role           Role
	Enabled        bool
	ChangeRequired bool      // nothing but a change of the password is allowed
	Changed        time.Time // when the password was set
	LockedUntil    time.Time // after too many failed logins; zero: not locked
	Hash           string    // of the password (Argon2id, in the PHC string format)
	Certificates   []Certificate
}

// A Certificate is a client certificate that logs an account in.
type Certificate struct {
	ID  string
	DER []byte
}

// Locked reports whether failed logins have locked the account.
func (a *Account) Locked(now time.Time) bool { return now.Before(a.LockedUntil) }

func (a *Account) clone() *Account {
	c := *a
	c.Certificates = slices.Clone(a.Certificates)
	return &c
}

// Rules are what an administrator may set.
type Rules struct {
	MinPassword       int           // characters
	LockoutThreshold  int           // failed logins in a row that lock an account; 0: never
	LockoutDuration   time.Duration // how long; 0: until an administrator unlocks it
	LockoutReset      time.Duration // failures are forgotten after this time without one
	SessionTimeout    time.Duration // without a request
	AbsoluteTimeout   time.Duration // of a session in all
	AbsoluteTimeoutOn bool
	Basic             bool // HTTP Basic is accepted
}

// DefaultRules are in force until someone changes them.
func DefaultRules() Rules {
	return Rules{
		MinPassword: 12, LockoutThreshold: 5, LockoutDuration: 5 * time.Minute, LockoutReset: 5 * time.Minute,
		SessionTimeout: 30 * time.Minute, AbsoluteTimeout: 24 * time.Hour, AbsoluteTimeoutOn: true, Basic: true,
	}
}

// Errors of a Store.
var (
	ErrRefused     = errors.New("wrong name or password, or the account is disabled or locked")
	ErrTooFast     = errors.New("too many logins from there")
	ErrUnknown     = errors.New("no such account")
	ErrExists      = errors.New("the account exists already")
	ErrFull        = errors.New("too many")
	ErrName        = errors.New("a name has 1 to 32 of a-z, A-Z, 0-9, '.', '_' and '-', and begins with a letter or digit")
	ErrRole        = errors.New("no such role")
	ErrPassword    = errors.New("the password does not meet the policy")
	ErrCertificate = errors.New("not a certificate that can log in")
)

// Options of a Store.
type Options struct {
	Dir   string // directory of the state; "": nothing is kept
	Clock Clock
	Cost  Cost // of a password's hash; zero: DefaultCost
}

// A Store holds accounts, rules and sessions. It is safe for concurrent use.
type Store struct {
	o      Options
	limits limiter
	hashes chan struct{} // a token per hash that may be computed at the same time
	decoy  string        // hash that nobody's password has

	mu       sync.Mutex
	accounts map[string]*Account
	rules    Rules
	failures map[string]failure
	sessions map[string]*Session // by ID
	verified verified
}

// failure counts an account's failed logins in a row.
type failure struct {
	count int
	last  time.Time
}

// Open reads the state, if there is any.
func Open(o Options) (*Store, error) {
	if o.Cost == (Cost{}) {
		o.Cost = DefaultCost
	}
	s := &Store{o: o, hashes: make(chan struct{}, 2), accounts: map[string]*Account{}, rules: DefaultRules(),
		failures: map[string]failure{}, sessions: map[string]*Session{}}
	s.verified.init()
	s.decoy = hashPassword(rand.Text(), o.Cost)
	return s, s.load()
}

// Rules returns the rules in force.
func (s *Store) Rules() Rules {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules
}

// SetRules changes the rules.
func (s *Store) SetRules(change func(*Rules)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.rules
	change(&s.rules)
	if err := s.save(); err != nil {
		s.rules = was
		return err
	}
	if !s.rules.Basic {
		s.verified.clear()
	}
	return nil
}

// Accounts returns all accounts by name.
func (s *Store) Accounts() []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Account
	for _, name := range slices.Sorted(maps.Keys(s.accounts)) {
		all = append(all, *s.accounts[name].clone())
	}
	return all
}

// Account finds one.
func (s *Store) Account(name string) (Account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[name]; a != nil {
		return *a.clone(), true
	}
	return Account{}, false
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)

// Create adds an account. Its names differ from others by more than case.
func (s *Store) Create(a Account, password string) error {
	if !validName.MatchString(a.Name) {
		return ErrName
	}
	if !slices.Contains(Roles, a.Role) {
		return ErrRole
	}
	if err := s.Policy(a.Name, password); err != nil {
		return err
	}
	a.Hash, a.Changed, a.LockedUntil, a.Certificates = s.hash(password), s.o.Clock.Now(), time.Time{}, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.accounts {
		if strings.EqualFold(name, a.Name) {
			return ErrExists
		}
	}
	if len(s.accounts) >= MaxAccounts {
		return fmt.Errorf("%w accounts", ErrFull)
	}
	s.accounts[a.Name] = &a
	if err := s.save(); err != nil {
		delete(s.accounts, a.Name)
		return err
	}
	return nil
}

// Update changes an account. Sessions of an account that may less or is disabled end.
func (s *Store) Update(name string, change func(*Account) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.update(name, change)
}

func (s *Store) update(name string, change func(*Account) error) error {
	was := s.accounts[name]
	if was == nil {
		return ErrUnknown
	}
	a := was.clone()
	if err := change(a); err != nil {
		return err
	}
	if !slices.Contains(Roles, a.Role) {
		return ErrRole
	}
	s.accounts[name] = a
	if err := s.save(); err != nil {
		s.accounts[name] = was
		return err
	}
	if a.LockedUntil.IsZero() {
		delete(s.failures, name)
	}
	s.verified.forget(name)
	if !a.Enabled || a.Role != was.Role {
		s.endSessions(name, "")
	}
	return nil
}

// SetPassword changes an account's password. Its sessions end, but for keep.
func (s *Store) SetPassword(name, password, keep string, changeRequired bool) error {
	if err := s.Policy(name, password); err != nil {
		return err
	}
	a, ok := s.Account(name)
	if !ok {
		return ErrUnknown
	}
	if s.compare(a.Hash, password) {
		return fmt.Errorf("%w: it is the present one", ErrPassword)
	}
	hash := s.hash(password)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.update(name, func(a *Account) error {
		a.Hash, a.Changed, a.ChangeRequired, a.LockedUntil = hash, s.o.Clock.Now(), changeRequired, time.Time{}
		return nil
	})
	if err == nil {
		s.endSessions(name, keep)
	}
	return err
}

// Delete removes an account and ends its sessions.
func (s *Store) Delete(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.accounts[name]
	if was == nil {
		return ErrUnknown
	}
	delete(s.accounts, name)
	if err := s.save(); err != nil {
		s.accounts[name] = was
		return err
	}
	delete(s.failures, name)
	s.verified.forget(name)
	s.endSessions(name, "")
	return nil
}

// AddCertificate lets the holder of a client certificate's key log in as the account. A
// certificate stands for one account only.
func (s *Store) AddCertificate(name string, c *x509.Certificate) (id string, err error) {
	if c.IsCA && c.CheckSignatureFrom(c) != nil || !s.o.Clock.Now().Before(c.NotAfter) {
		return "", ErrCertificate
	}
	sum := sha256.Sum256(c.Raw)
	id = hex.EncodeToString(sum[:8])
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		for _, have := range a.Certificates {
			if have.ID == id {
				return "", ErrExists
			}
		}
	}
	return id, s.update(name, func(a *Account) error {
		if len(a.Certificates) >= MaxCertificates {
			return fmt.Errorf("%w certificates", ErrFull)
		}
		a.Certificates = append(a.Certificates, Certificate{id, c.Raw})
		return nil
	})
}

// RemoveCertificate takes that right away.
func (s *Store) RemoveCertificate(name, id string) error {
	return s.Update(name, func(a *Account) error {
		n := len(a.Certificates)
		if a.Certificates = slices.DeleteFunc(a.Certificates, func(c Certificate) bool { return c.ID == id }); len(a.Certificates) == n {
			return ErrUnknown
		}
		return nil
	})
}

// UsesCertificates reports whether any account has a client certificate.
func (s *Store) UsesCertificates() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if len(a.Certificates) > 0 {
			return true
		}
	}
	return false
}

// CheckCertificate finds the account of a client certificate, the possession of whose key
// the TLS handshake has proved.
func (s *Store) CheckCertificate(c *x509.Certificate) (Account, error) {
	now := s.o.Clock.Now()
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return Account{}, ErrRefused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		for _, have := range a.Certificates {
			if slices.Equal(have.DER, c.Raw) && a.Enabled && !a.Locked(now) {
				return *a.clone(), nil
			}
		}
	}
	return Account{}, ErrRefused
}

// Validate says which rule is out of its bounds.
func (r *Rules) Validate() error {
	for _, c := range []struct {
		name           string
		v, least, most int64
	}{
		{"MinPassword", int64(r.MinPassword), 8, 64},
		{"LockoutThreshold", int64(r.LockoutThreshold), 0, 100},
		{"LockoutDuration", int64(r.LockoutDuration / time.Second), 0, 86_400},
		{"LockoutReset", int64(r.LockoutReset / time.Second), 1, 86_400},
		{"SessionTimeout", int64(r.SessionTimeout / time.Second), 30, 86_400},
		{"AbsoluteTimeout", int64(r.AbsoluteTimeout / time.Second), 30, 30 * 86_400},
	} {
		if c.v < c.least || c.v > c.most {
			return fmt.Errorf("%s %d: want %d to %d", c.name, c.v, c.least, c.most)
		}
	}
	return nil
}
