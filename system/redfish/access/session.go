package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Session is a login that lasts.
type Session struct {
	ID      string
	Account string
	From    string // address of the client that made it
	Created time.Time
	Used    time.Time // last request
	digest  [32]byte  // of the token
}

// NewSession opens a session for an account that has logged in. The token is
// told once and not kept.
func (s *Store) NewSession(account, from string) (Session, string, error) {
	var id [8]byte
	var token [32]byte
	rand.Read(id[:])
	rand.Read(token[:])
	text := base64.RawURLEncoding.EncodeToString(token[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	now := s.o.Clock.Now()
	a := s.accounts[account]
	if a == nil || !a.Enabled {
		return Session{}, "", ErrRefused
	}
	own := 0
	for _, e := range s.sessions {
		if e.Account == account {
			own++
		}
	}
	if len(s.sessions) >= MaxSessions || own >= MaxSessionsPerAccount {
		return Session{}, "", fmt.Errorf("%w sessions", ErrFull)
	}
	e := &Session{ID: hex.EncodeToString(id[:]), Account: account, From: from, Created: now, Used: now, digest: sha256.Sum256([]byte(text))}
	s.sessions[e.ID] = e
	return *e, text, nil
}

// Use finds the session of a token and its account, and counts as a request.
func (s *Store) Use(token string) (Session, Account, error) {
	digest := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var found *Session
	for _, e := range s.sessions { // all of them, so that the time tells nothing
		if subtle.ConstantTimeCompare(e.digest[:], digest[:]) == 1 {
			found = e
		}
	}
	if found == nil {
		return Session{}, Account{}, ErrRefused
	}
	a := s.accounts[found.Account]
	if a == nil || !a.Enabled {
		return Session{}, Account{}, ErrRefused
	}
	found.Used = s.o.Clock.Now()
	return *found, *a.clone(), nil
}

// Sessions lists the sessions, oldest first.
func (s *Store) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var all []Session
	for _, e := range s.sessions {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Session) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// Session finds one by its ID.
func (s *Store) Session(id string) (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if e := s.sessions[id]; e != nil {
		return *e, true
	}
	return Session{}, false
}

// EndSession ends a session and reports whether there was one.
func (s *Store) EndSession(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sessions[id]
	delete(s.sessions, id)
	return ok
}

// expire ends sessions whose time is over.
func (s *Store) expire() {
	now := s.o.Clock.Now()
	for id, e := range s.sessions {
		if now.Sub(e.Used) >= s.rules.SessionTimeout || s.rules.AbsoluteTimeoutOn && now.Sub(e.Created) >= s.rules.AbsoluteTimeout {
			delete(s.sessions, id)
		}
	}
}

// endSessions ends the sessions of an account but for one.
func (s *Store) endSessions(account, keep string) {
	for id, e := range s.sessions {
		if e.Account == account && id != keep {
			delete(s.sessions, id)
		}
	}
}
