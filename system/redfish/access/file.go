package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// fileName is the file of accounts and rules in the state directory.
const fileName = "access.json"

// mostBytes bounds that file.
const mostBytes = 1 << 20

type document struct {
	Version  int
	Rules    Rules
	Accounts []*Account
}

func (s *Store) load() error {
	if s.o.Dir == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(s.o.Dir, fileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	defer f.Close()
	if err := s.parse(io.LimitReader(f, mostBytes)); err != nil {
		return fmt.Errorf("read accounts in %s: %w", f.Name(), err)
	}
	return nil
}

// parse reads the document, whole and right, or refuses it: a service that took a
// damaged file for no accounts would forget who was locked out.
func (s *Store) parse(r io.Reader) error {
	var d document
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return err
	}
	if d.Version != 1 {
		return fmt.Errorf("version %d: want 1", d.Version)
	}
	if err := d.Rules.Validate(); err != nil {
		return err
	}
	accounts := map[string]*Account{}
	for i, a := range d.Accounts {
		if a == nil || !validName.MatchString(a.Name) || accounts[a.Name] != nil || !slices.Contains(Roles, a.Role) || len(d.Accounts) > MaxAccounts || len(a.Certificates) > MaxCertificates {
			return fmt.Errorf("account %d is not one", i)
		}
		if _, _, _, err := parseHash(a.Hash); err != nil {
			return fmt.Errorf("account %s: %w", a.Name, err)
		}
		accounts[a.Name] = a
	}
	s.rules, s.accounts = d.Rules, accounts
	return nil
}

// save replaces the file. The lock is held.
func (s *Store) save() error {
	if s.o.Dir == "" {
		return nil
	}
	d := document{Version: 1, Rules: s.rules, Accounts: []*Account{}}
	for _, a := range s.accounts {
		d.Accounts = append(d.Accounts, a)
	}
	slices.SortFunc(d.Accounts, func(a, b *Account) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := Replace(filepath.Join(s.o.Dir, fileName), append(b, '\n')); err != nil {
		return fmt.Errorf("keep accounts: %w", err)
	}
	return nil
}

// Replace writes a private file whole or not at all, also when the power fails: the old
// content or the new one is there afterwards, the new one when it has returned.
func Replace(name string, data []byte) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
