package rack

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestParseQuantity(t *testing.T) {
	for _, c := range []struct {
		text  string
		parse func(string) (any, error)
		want  any // nil: refused
	}{
		{"30W", parser(ParseWatts), Watts(30)},
		{"0W", parser(ParseWatts), Watts(0)},
		{"0.25W", parser(ParseWatts), Watts(0.25)},
		{"-1W", parser(ParseWatts), nil},
		{"30", parser(ParseWatts), nil},
		{"W", parser(ParseWatts), nil},
		{"", parser(ParseWatts), nil},
		{"30 W", parser(ParseWatts), nil},
		{"30w", parser(ParseWatts), nil},
		{"3e1W", parser(ParseWatts), nil},
		{"+30W", parser(ParseWatts), nil},
		{".5W", parser(ParseWatts), nil},
		{"5.W", parser(ParseWatts), nil},
		{"0x1W", parser(ParseWatts), nil},
		{"1_0W", parser(ParseWatts), nil},
		{"InfW", parser(ParseWatts), nil},
		{"NaNW", parser(ParseWatts), nil},
		{"30mW", parser(ParseWatts), nil},
		{"9999999999999W", parser(ParseWatts), nil},
		{strings.Repeat("0", 30) + "W", parser(ParseWatts), nil},
		{"45C", parser(ParseCelsius), Celsius(45)},
		{"-10.5C", parser(ParseCelsius), Celsius(-10.5)},
		{"-0C", parser(ParseCelsius), Celsius(0)},
		{"-274C", parser(ParseCelsius), nil},
		{"45°C", parser(ParseCelsius), nil},
		{"1200rpm", parser(ParseRPM), RPM(1200)},
		{"-1rpm", parser(ParseRPM), nil},
		{"12J", parser(ParseJoules), Joules(12)},
		{"12kJ", parser(ParseJoules), nil},
		{"5.1V", parser(ParseVolts), Volts(5.1)},
		{"5.1A", parser(ParseVolts), nil},
		{"2.5A", parser(ParseAmperes), Amperes(2.5)},
		{"250ms", parser(ParseDuration), Duration(250e6)},
		{"1m30s", parser(ParseDuration), Duration(90e9)},
		{"0s", parser(ParseDuration), Duration(0)},
		{"0", parser(ParseDuration), nil},
		{"", parser(ParseDuration), nil},
		{"250", parser(ParseDuration), nil},
		{"-1s", parser(ParseDuration), nil},
		{"+1s", parser(ParseDuration), nil},
		{".5s", parser(ParseDuration), nil},
		{"25h", parser(ParseDuration), nil},
		{"100us", parser(ParseDuration), nil},
		{"1.5ms", parser(ParseDuration), nil},
		{"1.5s", parser(ParseDuration), Duration(15e8)},
	} {
		got, err := c.parse(c.text)
		if c.want != nil {
			if err != nil || got != c.want {
				t.Errorf("%q = %v, %v, want %v", c.text, got, err, c.want)
			}
			continue
		}
		var bad *QuantityError
		if !errors.As(err, &bad) {
			t.Errorf("%q = %v, %v, want a QuantityError", c.text, got, err)
		} else if _, err := c.parse(bad.Example); err != nil {
			t.Errorf("the example of %v: %v", bad, err)
		} else if !strings.Contains(bad.Error(), bad.Form) {
			t.Errorf("%v does not tell the allowed form", bad)
		}
	}
}

func parser[T any](f func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return f(s) }
}

type quantities struct {
	W Watts
	C Celsius
	R RPM
	J Joules
	V Volts
	A Amperes
	D Duration
}

func TestQuantityJSON(t *testing.T) {
	in := quantities{30.5, -4, 1200, 12, 5.1, 2.5, 250e6}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"W":"30.5W","C":"-4C","R":"1200rpm","J":"12J","V":"5.1V","A":"2.5A","D":"250ms"}`
	if string(b) != want {
		t.Errorf("JSON is %s, want %s", b, want)
	}
	var out quantities
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("read back %+v, %v", out, err)
	}
	for _, bad := range []string{`{"W":30}`, `{"W":"30"}`, `{"D":"1"}`, `{"C":"1W"}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	for _, bad := range []any{Watts(-1), Watts(math.NaN()), Celsius(math.Inf(1)), RPM(1e13), Duration(-1)} {
		if b, err := json.Marshal(bad); err == nil {
			t.Errorf("%v was written as %s", bad, b)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"30W", "-4.5C", "1200rpm", "12J", "5.1V", "2.5A", "1m30s", "1e3W", "-0C"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		again(t, s, ParseWatts)
		again(t, s, ParseCelsius)
		again(t, s, ParseRPM)
		again(t, s, ParseJoules)
		again(t, s, ParseVolts)
		again(t, s, ParseAmperes)
		again(t, s, ParseDuration)
	})
}

// again checks that what is accepted is written in a form that reads the same.
func again[T interface {
	comparable
	MarshalText() ([]byte, error)
}](t *testing.T, s string, parse func(string) (T, error)) {
	v, err := parse(s)
	if err != nil {
		return
	}
	b, err := v.MarshalText()
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	if w, err := parse(string(b)); err != nil || w != v {
		t.Fatalf("%q is written %q and read as %v, %v", s, b, w, err)
	}
}

func TestDigest(t *testing.T) {
	d := SHA256([]byte("racklet"))
	if got, err := ParseDigest(string(d)); err != nil || got != d {
		t.Errorf("ParseDigest(%s) = %s, %v", d, got, err)
	}
	sum, err := d.Sum()
	if err != nil || DigestOf(sum) != d || len(d.Hex()) != 64 {
		t.Errorf("Sum of %s = %x, %v", d, sum, err)
	}
	for _, bad := range []string{"", "sha256:", d.Hex(), "sha512:" + d.Hex(), strings.ToUpper(string(d)), string(d) + "0", string(d)[:70], "sha256:" + strings.Repeat("g", 64)} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
		if _, err := Digest(bad).Sum(); err == nil {
			t.Errorf("the sum of %q was accepted", bad)
		}
		var d Digest
		if err := d.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was decoded", bad)
		}
	}
}

func TestUUID(t *testing.T) {
	id, err := ParseUUID("6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a")
	want := [16]byte{0x6f, 0x1c, 0x2a, 0x0e, 0x3b, 0x52, 0x4c, 0x7d, 0x9a, 0x41, 0x0d, 0x5e, 0x8f, 0x7b, 0x6c, 0x3a}
	if err != nil || id != want {
		t.Errorf("%x, %v", id, err)
	}
	for _, bad := range []string{
		"", "6f1c2a0e3b524c7d9a410d5e8f7b6c3a", "6F1C2A0E-3B52-4C7D-9A41-0D5E8F7B6C3A", "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3", "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3ab",
		"6f1c2a0e-3b52-4c7d-9a4-10d5e8f7b6c3a", "gf1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a", "{f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3}",
	} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func pin(b byte) string { return Pin([32]byte{b}) }

func bootConfig() BootConfig {
	return BootConfig{
		RackID: "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a", Unit: "unit-1", Slot: 1,
		Repository: Repository{
			URL: "https://git.example/rack.git", Ref: DefaultRef, MetadataRef: DefaultMetadataRef,
			TLSPins: []string{pin(1), pin(2)},
		},
		TUFRoot: json.RawMessage(`{"signed":{}}`),
	}
}

func TestBootConfig(t *testing.T) {
	c := bootConfig()
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBootConfig(b)
	if err != nil || !reflect.DeepEqual(*got, c) {
		t.Errorf("read back %+v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"unknown field": []byte(strings.Replace(string(b), `"unit"`, `"unti"`, 1)),
		"trailing":      append(b[:len(b):len(b)], " {}"...),
		"empty":         nil,
		"too long":      append(b[:len(b):len(b)], make([]byte, MaxBootConfig)...),
	} {
		if _, err := ParseBootConfig(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	large := c
	large.TUFRoot = json.RawMessage(`"` + strings.Repeat("x", MaxBootConfig) + `"`)
	if _, err := large.Marshal(); err == nil {
		t.Error("a configuration beyond MaxBootConfig was written")
	}
}

func TestBootConfigRefused(t *testing.T) {
	host := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	good := bootConfig()
	good.Repository.URL, good.Repository.TLSPins = "ssh://git@git.example/rack.git", nil
	good.Repository.SSHHostKeys = []string{host, host + " spare"}
	if err := good.Validate(); err != nil {
		t.Errorf("over SSH: %v", err)
	}
	for path, change := range map[string]func(*BootConfig){
		"rackID":                    func(c *BootConfig) { c.RackID = "1" },
		"unit":                      func(c *BootConfig) { c.Unit = "Unit 1" },
		"slot":                      func(c *BootConfig) { c.Slot = 0 },
		"repository.url":            func(c *BootConfig) { c.Repository.URL = "http://git.example/rack.git" },
		"repository.url ":           func(c *BootConfig) { c.Repository.URL = "https://u:secret@git.example/rack.git" },
		"repository.url  ":          func(c *BootConfig) { c.Repository.URL = "https:///rack.git" },
		"repository.ref":            func(c *BootConfig) { c.Repository.Ref = "main" },
		"repository.ref ":           func(c *BootConfig) { c.Repository.Ref = "refs/heads/../main" },
		"repository.ref  ":          func(c *BootConfig) { c.Repository.Ref = "refs/heads/a b" },
		"repository.metadataRef":    func(c *BootConfig) { c.Repository.MetadataRef = c.Repository.Ref },
		"repository.tlsPins":        func(c *BootConfig) { c.Repository.TLSPins = nil },
		"repository.tlsPins ":       func(c *BootConfig) { c.Repository.TLSPins = c.Repository.TLSPins[:1] },
		"repository.tlsPins[1]":     func(c *BootConfig) { c.Repository.TLSPins = []string{pin(1), "sha256//xx"} },
		"repository.sshHostKeys[0]": func(c *BootConfig) { c.Repository.SSHHostKeys = []string{"ssh-ed25519", host} },
		"mirrors[0].url":            func(c *BootConfig) { c.Mirrors = []Mirror{{URL: "http://m.example", TLSPins: []string{pin(1)}}} },
		"tufRoot":                   func(c *BootConfig) { c.TUFRoot = nil },
		"tufRoot ":                  func(c *BootConfig) { c.TUFRoot = json.RawMessage("{") },
	} {
		c := bootConfig()
		change(&c)
		fields := Fields(c.Validate())
		if len(fields) != 1 || fields[0].Path != strings.TrimSpace(path) {
			t.Errorf("%s: %v", path, c.Validate())
		}
		if _, err := c.Marshal(); err == nil {
			t.Errorf("%s: written", path)
		}
	}
}

func FuzzBootConfig(f *testing.F) {
	c := bootConfig()
	b, err := c.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseBootConfig(b)
		if err != nil {
			return
		}
		// Escapes may make the encoding longer than what was read.
		if _, err := c.Marshal(); err != nil && len(b) < MaxBootConfig/6 {
			t.Fatalf("accepted, but not written: %v", err)
		}
	})
}

func TestParseReleaseSpec(t *testing.T) {
	zero := SHA256(nil)
	in := ReleaseSpec{
		Version: "1.0", SecurityVersion: 3,
		Boot: ReleaseBoot{Artifact: "racklet/boot", Digest: zero, SlotManifest: zero, Kernel: zero},
		OS:   ReleaseOS{Artifact: "racklet/os", Digest: zero, Kernel: zero, RootHash: zero.Hex()},
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseReleaseSpec(b); err != nil || *got != in {
		t.Errorf("read back %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty":         "",
		"no fields":     "{}",
		"unknown field": strings.Replace(string(b), `"os"`, `"osi"`, 1),
		"trailing":      string(b) + "x",
		"version":       strings.Replace(string(b), `"1.0"`, `"1 0"`, 1),
		"root hash":     strings.Replace(string(b), `"rootHash":"`, `"rootHash":"0`, 1),
		"artifact":      strings.Replace(string(b), `racklet/os`, `../os`, 1),
	} {
		if _, err := ParseReleaseSpec([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReasons(t *testing.T) {
	if len(Reasons) < 60 {
		t.Errorf("only %d reasons", len(Reasons))
	}
	for i, r := range Reasons {
		if i > 0 && r.Name <= Reasons[i-1].Name {
			t.Errorf("%s stands behind %s", r.Name, Reasons[i-1].Name)
		}
		if len(r.Name) > MaxReason || strings.Trim(r.Name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || !strings.Contains(r.Name, ".") {
			t.Errorf("%s is no name for a reason", r.Name)
		}
		if len(r.Text) < 15 || strings.HasSuffix(r.Text, ".") {
			t.Errorf("%s: text %q", r.Name, r.Text)
		}
		if len(r.Cure) < 15 || !strings.HasSuffix(r.Cure, ".") {
			t.Errorf("%s: cure %q", r.Name, r.Cure)
		}
		if got, ok := LookupReason(r.Name); !ok || got != r {
			t.Errorf("LookupReason(%s) = %v, %v", r.Name, got, ok)
		}
	}
	for _, name := range []string{"", "slot", "slot.chunks", "zz.top"} {
		if got, ok := LookupReason(name); ok {
			t.Errorf("LookupReason(%q) = %v", name, got)
		}
	}
}

func TestValidName(t *testing.T) {
	for _, good := range []string{"a", "unit-1", "0", strings.Repeat("a", MaxName)} {
		if !ValidName(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a_b", "ü", strings.Repeat("a", MaxName+1)} {
		if ValidName(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestDefaults(t *testing.T) {
	if s := (&RackSpec{Slots: 5}); s.Management() != 5 {
		t.Errorf("management slot %d, want the last", s.Management())
	}
	if s := (&RackSpec{Slots: 5, ManagementSlot: 1}); s.Management() != 1 {
		t.Errorf("management slot %d, want 1", s.Management())
	}
	policy := &PowerPolicySpec{UnitCap: 15}
	if c := (&ComputeUnitSpec{}).Cap(policy); c != 15 {
		t.Errorf("cap %v, want the policy's", c)
	}
	if c := (&ComputeUnitSpec{PowerCap: 7}).Cap(policy); c != 7 {
		t.Errorf("cap %v, want the unit's own", c)
	}
}

func TestRackKubernetes(t *testing.T) {
	good := RackKubernetes{Placement: "host", Version: "v1.37.1", Pods: "10.42.0.0/16", Services: "10.96.0.0/16", Features: []string{"A=true"}}
	for _, c := range []struct {
		change func(*RackKubernetes)
		path   string // of the only fault, "" is none
	}{
		{func(*RackKubernetes) {}, ""},
		{func(k *RackKubernetes) { *k = RackKubernetes{} }, ""},
		{func(k *RackKubernetes) { k.Placement = "" }, "spec.kubernetes.placement"},
		{func(k *RackKubernetes) { k.Pods = "10.42.0.0/24" }, "spec.kubernetes.pods"},
		{func(k *RackKubernetes) { k.Pods = "10.42.1.0/16" }, "spec.kubernetes.pods"},
		{func(k *RackKubernetes) { k.Pods = "10.77.0.0/16" }, "spec.kubernetes.pods"},
		{func(k *RackKubernetes) { k.Pods = "10.78.0.0/16" }, "spec.kubernetes.pods"},
		{func(k *RackKubernetes) { k.Services = "10.42.7.0/24" }, "spec.kubernetes.services"},
		{func(k *RackKubernetes) { k.Services = "fd00::/112" }, "spec.kubernetes.services"},
		{func(k *RackKubernetes) { k.Features = []string{"A=true", "--x=true"} }, "spec.kubernetes.features[1]"},
		{func(k *RackKubernetes) { k.Features = []string{"A=maybe"} }, "spec.kubernetes.features[0]"},
	} {
		r := Rack{TypeMeta: TypeMeta{APIVersion, KindRack}, Metadata: Metadata{Name: "r"}, Spec: RackSpec{
			ID: "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a", Slots: 5, Power: RackPower{100, 25}, Network: RackNetwork{"10.77.0.0/24", "10.77.0.1"},
			ThermalPolicy: "default", PowerPolicy: "default", Kubernetes: good,
		}}
		c.change(&r.Spec.Kubernetes)
		got := Fields(r.Validate())
		if c.path == "" && got != nil || c.path != "" && (len(got) != 1 || got[0].Path != c.path) {
			t.Errorf("%+v: %v, want a fault of %q", r.Spec.Kubernetes, got, c.path)
		}
	}
}
