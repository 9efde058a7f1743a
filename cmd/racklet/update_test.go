package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
)

func TestUnitUpdate(t *testing.T) {
	state := t.TempDir()
	_, r := managedRack(t, state)
	err := poll(t.Context(), 10*time.Millisecond, func() (bool, error) {
		var out bytes.Buffer
		return run(t.Context(), nil, &out, &out, []string{"status", "-o", "json", "--state", state}) == 0 && strings.Contains(out.String(), `"available": true`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Repeat([]byte("boot medium"), 6000)[:64<<10-512]
	m := trust.SlotManifest{Version: "v0.2.0", SecurityVersion: 2, ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize,
		Chunks: [][32]byte{sha256.Sum256(image[:trust.ChunkSize]), sha256.Sum256(image[trust.ChunkSize:])}}
	doc, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "update.img")
	good := append(trust.AppendSigned(doc, []trust.Signature{{}}), image...)
	update := func(b []byte, more ...string) (code int, out, problems string) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), nil, &stdout, &stderr, append([]string{"unit", "update", "unit-1", file, "--state", state}, more...))
		return code, stdout.String(), stderr.String()
	}
	if code, out, problems := update(good); code != 0 || out != "unit-1: written; boots at the next power cycle\n" || !strings.Contains(problems, "100 %") {
		t.Errorf("%d %q %q", code, out, problems)
	}
	var result updateResult
	if code, out, _ := update(good, "-o", "json"); code != 0 || json.Unmarshal([]byte(out), &result) != nil || result.State != "Completed" || result.Percent != 100 || len(result.Messages) < 4 {
		t.Errorf("%d %s", code, out)
	}
	if code, _, problems := update(good[:len(good)-1]); code != 1 || !strings.Contains(problems, "it ends within chunk 1 of 2") || !strings.Contains(problems, "hint: ") {
		t.Errorf("a short file: %d %s", code, problems)
	}
	f := wire.MakeFailure("slot.signature", "2 of 3 owners", "1 of them")
	r.BMCs[1].SetFaults(wiretest.Faults{Lie: func(h wire.Header, resp []byte) []byte {
		if h.Type == wire.TypeOEM && h.Command >= wire.CmdSlotErase && h.Command <= wire.CmdSlotCommit {
			return wire.AppendFailure(wire.AppendResponse(nil, h, wire.CodeRefused), &f)
		}
		return resp
	}})
	if code, _, problems := update(good); code != 1 || !strings.Contains(problems, "slot.signature: expected 2 of 3 owners, seen 1 of them") || !strings.Contains(problems, "hint: ") {
		t.Errorf("refused: %d %s", code, problems)
	}
	for _, args := range [][]string{{"unit", "update", "unit-1"}, {"unit", "update", "unit-1", file, "--now", "--detach"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), nil, &stdout, &stderr, append(args, "--state", state)); code == 0 {
			t.Errorf("%q: %s", args, stdout.String())
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, &stdout, &stderr, []string{"unit", "update", "unit-9", file, "--state", state}); code != 1 || !strings.Contains(stderr.String(), "unit-9") {
		t.Errorf("no such unit: %d %s", code, stderr.String())
	}
}
