package e2e

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/source"
)

// forge makes published metadata that no tool of Racklet would make:
//
//	forge strangers DIR SEQUENCE         strangers' signatures in place of the owners'
//	forge tree DIR SEQUENCE KEY KEY      the owners sign another tree than the commit's
//
// DIR is a clone; its branch racklet-metadata holds the forgery afterwards.
func forge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: forge strangers|tree DIR SEQUENCE [KEY...]")
	}
	dir, n := ts.MkAbs(args[1]), args[2]
	var keys []ed25519.PrivateKey
	for _, name := range args[3:] {
		k, err := source.LoadKey(ts.MkAbs(name))
		ts.Check(err)
		keys = append(keys, k.Key)
	}
	f := &forgery{ts: ts, dir: filepath.Join(ts.MkAbs("."), "forgery"), n: n}
	ts.Check(os.RemoveAll(f.dir))
	ts.Check(ts.Exec("git", "clone", "-q", "--branch", "racklet-metadata", dir, f.dir))
	switch args[0] {
	case "strangers":
		for range 2 {
			_, k, err := ed25519.GenerateKey(rand.Reader)
			ts.Check(err)
			keys = append(keys, k)
		}
		f.targets(keys, func(*metadata.TargetsType) {})
		f.snapshot(keys)
	case "tree":
		var wrong [32]byte
		_, _ = rand.Read(wrong[:])
		f.targets(keys, func(t *metadata.TargetsType) { f.tree(t, wrong) })
		f.floor(keys, wrong)
	default:
		ts.Fatalf("forge: %q", args[0])
	}
	ts.Check(ts.Exec("git", "-C", f.dir, "add", "-A"))
	ts.Check(ts.Exec("git", "-C", f.dir, "commit", "-q", "-m", "forged"))
	ts.Check(ts.Exec("git", "-C", dir, "fetch", "-q", f.dir, "+racklet-metadata:racklet-metadata"))
}

type forgery struct {
	ts     *testscript.TestScript
	dir, n string
}

func (f *forgery) file(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *forgery) targets(keys []ed25519.PrivateKey, change func(*metadata.TargetsType)) {
	name := f.file("metadata/" + f.n + ".targets.json")
	m, err := metadata.Targets().FromFile(name)
	f.ts.Check(err)
	change(&m.Signed)
	f.ts.Check(resign(m, keys))
	f.ts.Check(m.ToFile(name, false))
}

func (f *forgery) snapshot(keys []ed25519.PrivateKey) {
	name := f.file("metadata/" + f.n + ".snapshot.json")
	m, err := metadata.Snapshot().FromFile(name)
	f.ts.Check(err)
	f.ts.Check(resign(m, keys))
	f.ts.Check(m.ToFile(name, false))
}

// resign replaces all signatures.
func resign[T metadata.Roles](m *metadata.Metadata[T], keys []ed25519.PrivateKey) error {
	m.ClearSignatures()
	for _, k := range keys {
		s, err := signature.LoadSigner(k, crypto.Hash(0))
		if err != nil {
			return err
		}
		if _, err := m.Sign(s); err != nil {
			return err
		}
	}
	return nil
}

// tree makes rack.json say another tree digest.
func (f *forgery) tree(t *metadata.TargetsType, wrong [32]byte) {
	old := t.Targets["rack.json"]
	content, err := os.ReadFile(f.file("targets/" + old.Hashes["sha256"].String() + ".rack.json"))
	f.ts.Check(err)
	var doc map[string]any
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	f.ts.Check(d.Decode(&doc))
	doc["tree"] = fmt.Sprintf("sha256:%x", wrong)
	content, err = json.Marshal(doc)
	f.ts.Check(err)
	info, err := metadata.TargetFile().FromBytes("rack.json", content, "sha256")
	f.ts.Check(err)
	t.Targets["rack.json"] = info
	f.ts.Check(os.WriteFile(f.file(fmt.Sprintf("targets/%x.rack.json", sha256.Sum256(content))), content, 0o644))
}

// floor makes the floor statement agree with it.
func (f *forgery) floor(keys []ed25519.PrivateKey, wrong [32]byte) {
	name := f.file("floors/" + f.n + ".floor")
	signed, err := os.ReadFile(name)
	f.ts.Check(err)
	msg, _, err := trust.SplitSigned(signed)
	f.ts.Check(err)
	s, err := trust.ParseFloorStatement(msg)
	f.ts.Check(err)
	s.Tree = wrong
	msg, err = s.MarshalBinary()
	f.ts.Check(err)
	var sigs []trust.Signature
	for _, k := range keys {
		sigs = append(sigs, trust.Sign(trust.DomainFloor, k, msg))
	}
	f.ts.Check(os.WriteFile(name, trust.AppendSigned(msg, sigs), 0o644))
}

// expire DIR ONLINE-KEY publishes a timestamp that has expired an hour ago, as
// when whoever holds the online key has not been there for long. With "fresh"
// behind them it publishes one of now.
func expire(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: expire DIR ONLINE-KEY [fresh]")
	}
	key, err := source.LoadKey(ts.MkAbs(args[1]))
	ts.Check(err)
	now := time.Now()
	if len(args) == 2 {
		now = now.Add(-source.TimestampLifetime - time.Hour)
	}
	ts.Check(source.RefreshTimestamp(ts.MkAbs(args[0]), key, now))
}
