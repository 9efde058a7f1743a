package sim_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/sim/machine"
)

var update = flag.Bool("update", false, "rewrite generated files")

// TestOpenAPIFile keeps the document in docs in step with the handlers.
func TestOpenAPIFile(t *testing.T) {
	const file = "../docs/sim-v1.openapi.json"
	want, err := sim.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is out of step (%v); run: go test ./sim -run OpenAPIFile -update", file, err)
	}
	// The text names every operation.
	text, err := os.ReadFile("../docs/sim-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(want, &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if line := "`" + strings.ToUpper(method) + " " + path + "`"; !bytes.Contains(text, []byte(line)) {
				t.Errorf("docs/sim-v1.md does not name %s", line)
			}
		}
	}
}

// quiet is a rack of two units whose machines are never on: no signed boot
// image, no QEMU, but real firmware.
func quiet(t *testing.T) *bench {
	t.Helper()
	racktest.Tool(t, "git")
	r := &rack.Rack{Spec: rack.RackSpec{ID: testRackID, Slots: 4, Power: rack.RackPower{Supply: 100, Reserve: 25},
		Network: rack.RackNetwork{Subnet: "10.77.0.0/24", Gateway: "10.77.0.1"}}}
	var units []*rack.ComputeUnit
	for i, name := range []string{"unit-1", "unit-2"} {
		units = append(units, &rack.ComputeUnit{Metadata: rack.Metadata{Name: name}, Spec: rack.ComputeUnitSpec{Slot: rack.SlotID(i + 1), Platform: "virt"}})
	}
	return run(t, sim.Config{Dir: filepath.Join(t.TempDir(), "rack"), Rack: r, Units: units, Accel: machine.TCG,
		Provisioning: sim.Provisioning{TUFRoot: []byte(`{}`), Owners: testOwners(t),
			Boot: map[string]sim.BootImage{"": {Image: make([]byte, 512), Manifest: []byte("signed by nobody")}}}})
}

func testOwners(t *testing.T) trust.Keyring {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Keyring{Keys: []ed25519.PublicKey{public}, Threshold: 1}
}

// call asks /sim/v1 and returns status and body.
func (b *bench) call(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.Bytes()
}

func (b *bench) until(t *testing.T, what string, ok func(sim.State) bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok(b.State()) {
		if time.Now().After(deadline) {
			s, _ := json.MarshalIndent(b.State(), "", " ")
			t.Fatalf("never: %s\n%s", what, s)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestAPI does each operation once, right and wrong, and holds answers against
// the document.
func TestAPI(t *testing.T) {
	b := quiet(t)
	alive := func(slot int, want bool) func(sim.State) bool {
		return func(s sim.State) bool { return s.Slots[slot-1].BMC.Alive == want }
	}
	b.until(t, "both BMCs and the RMC start", func(s sim.State) bool { return alive(1, true)(s) && alive(2, true)(s) && s.RMC.Alive })

	c := jsonschema.NewCompiler()
	document, err := sim.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	d, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("openapi.json", d); err != nil {
		t.Fatal(err)
	}
	fits := func(schema string, body []byte) error {
		s, err := c.Compile("openapi.json#/components/schemas/" + schema)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			return err
		}
		return s.Validate(v)
	}
	if fits("State", []byte(`{"seconds": 1}`)) == nil || fits("Problem", []byte(`{"error": 1}`)) == nil {
		t.Fatal("the schemas accept anything")
	}

	covered := map[string]bool{}
	for _, tt := range []struct {
		call, body string
		status     int
		schema     string
		then       string
		ok         func(sim.State) bool
	}{
		{"GET /sim/v1", "", 200, "State", "", nil},
		{"GET /sim/v1/openapi.json", "", 200, "", "", nil},
		{"GET /sim/v1/faults", "", 200, "", "", nil},
		{"POST /sim/v1/faults", `{"kind": "tray-pulled", "target": "unit-1"}`, 200, "Injected", "the tray is out", func(s sim.State) bool { return !s.Slots[0].Present && !s.Slots[0].BMC.Alive }},
		{"POST /sim/v1/faults", `{"kind": "tray-pulled", "target": "unit-9"}`, 400, "Problem", "", nil},
		{"POST /sim/v1/faults", `{"kind": "load", "target": "unit-1"}`, 409, "Problem", "", nil},
		{"POST /sim/v1/faults", `{"kind": "brown-out", "target": "rack", "for": "1s", "with": {"sag": "140%"}}`, 400, "Problem", "", nil},
		{"DELETE /sim/v1/faults/1", "", 204, "", "the tray is in", alive(1, true)},
		{"DELETE /sim/v1/faults/1", "", 404, "Problem", "", nil},
		{"GET /sim/v1/faults/kinds", "", 200, "", "", nil},
		{"GET /sim/v1/faults/record", "", 200, "", "", nil},
		{"GET /sim/v1/scenario", "", 404, "Problem", "", nil},
		{"POST /sim/v1/scenario", `{"kind": "Scenario"}`, 400, "Problem", "", nil},
		{"POST /sim/v1/scenario", `{"apiVersion": "racklet.io/v1alpha1", "kind": "Scenario", "metadata": {"name": "x"}, "spec": {"teaches": "Nothing at all.", "needs": "machines", "length": "1h",
			"faults": [{"kind": "bmc-hang", "target": "unit-2"}]}}`, 204, "", "the BMC hangs", func(s sim.State) bool { return s.Slots[1].BMC.Hung }},
		{"GET /sim/v1/scenario", "", 200, "FaultOutcome", "", nil},
		{"DELETE /sim/v1/faults", "", 200, "Cleared", "all is well", alive(2, true)},
		{"GET /sim/v1/plant/faults", "", 200, "PlantFaults", "", nil},
		{"PUT /sim/v1/plant/faults", `{"Cut": true}`, 200, "PlantFaults", "all power is gone", func(s sim.State) bool { return !s.Supply.Standby && !s.RMC.Alive && !s.Slots[0].BMC.Alive }},
		{"PUT /sim/v1/plant/faults", `{}`, 200, "PlantFaults", "all power is back", func(s sim.State) bool { return s.RMC.Alive && s.RMC.Starts == 2 && s.Slots[0].BMC.Alive }},
		{"PUT /sim/v1/plant/faults", `{"Cute": true}`, 400, "Problem", "", nil},
		{"PUT /sim/v1/plant/faults", `{} {}`, 400, "Problem", "", nil},
		{"PUT /sim/v1/ambient", `{"celsius": 41}`, 204, "", "inlet warms", func(s sim.State) bool { return s.Air.InletCelsius > 25 }},
		{"PUT /sim/v1/ambient", `{"celsius": 100}`, 400, "Problem", "", nil},
		{"PUT /sim/v1/ports/{port}", `{"fromDevice": {"down": true}, "toDevice": {"loss": 0.5}}`, 204, "", "", func(s sim.State) bool { return s.Ports[1].FromDevice.Down && s.Ports[1].ToDevice.Loss == 0.5 }},
		{"PUT /sim/v1/ports/{port}", `{}`, 204, "", "healed", func(s sim.State) bool { return !s.Ports[1].FromDevice.Down }},
		{"PUT /sim/v1/ports/{port}", `{"toDevice": {"loss": 2}}`, 400, "Problem", "", nil},
		{"PUT /sim/v1/ports/nowhere", `{}`, 404, "Problem", "", nil},
		{"GET /sim/v1/capture?seconds=0.01", "", 200, "", "", nil},
		{"GET /sim/v1/capture?seconds=x", "", 400, "Problem", "", nil},
		{"GET /sim/v1/capture?port=nowhere", "", 404, "Problem", "", nil},
		{"POST /sim/v1/bus/jam", "", 204, "", "", func(s sim.State) bool { return s.Bus.Jammed }},
		{"POST /sim/v1/bus/free", "", 204, "", "", func(s sim.State) bool { return !s.Bus.Jammed }},
		{"POST /sim/v1/rmc/hang", "", 204, "", "", func(s sim.State) bool { return s.RMC.Hung && !s.RMC.Alive }},
		{"POST /sim/v1/rmc/restart", "", 204, "", "", func(s sim.State) bool { return s.RMC.Alive && s.RMC.Starts == 3 }},
		{"POST /sim/v1/slots/{slot}/bmc/hang", "", 204, "", "", alive(1, false)},
		{"POST /sim/v1/slots/{slot}/bmc/restart", "", 204, "", "", alive(1, true)},
		{"POST /sim/v1/slots/{slot}/pull", "", 204, "", "", func(s sim.State) bool { return !s.Slots[0].Present && !s.Slots[0].BMC.Alive }},
		{"POST /sim/v1/slots/{slot}/bmc/hang", "", 409, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/bmc/restart", "", 409, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/insert", "", 204, "", "", alive(1, true)},
		{"POST /sim/v1/slots/{slot}/reset", "", 409, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/pause", "", 409, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/resume", "", 409, "Problem", "", nil},
		{"PUT /sim/v1/slots/{slot}/chips/temperature", `{"lie": 30}`, 204, "", "", nil},
		{"PUT /sim/v1/slots/{slot}/chips/fans", `{}`, 404, "Problem", "", nil},
		{"PUT /sim/v1/rmc/chips/fans", `{"absent": true}`, 204, "", "", nil},
		{"PUT /sim/v1/slots/{slot}/clock", `{"aheadSeconds": -3600}`, 204, "", "", func(s sim.State) bool { return s.Slots[0].ClockAhead == -3600 }},
		{"PUT /sim/v1/slots/{slot}/clock", `{"aheadSeconds": 1000000000}`, 400, "Problem", "", nil},
		{"PUT /sim/v1/services/git", `{"down": true}`, 204, "", "", func(s sim.State) bool { return s.Services[0].Down && !s.Services[1].Down }},
		{"PUT /sim/v1/services/git", `{"down": false}`, 204, "", "", func(s sim.State) bool { return !s.Services[0].Down }},
		{"PUT /sim/v1/services/pizza", `{}`, 404, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/flash/flip", `{"offset": 4096, "bit": 3}`, 204, "", "", nil},
		{"POST /sim/v1/slots/{slot}/flash/flip", `{"offset": 67108864, "bit": 3}`, 400, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/flash/flip", `{"offset": 1, "bit": 8}`, 400, "Problem", "", nil},
		{"POST /sim/v1/slots/{slot}/disk/flip", `{"offset": 0, "bit": 0}`, 409, "Problem", "", nil},
		{"POST /sim/v1/slots/3/pull", "", 404, "Problem", "", nil},
		{"POST /sim/v1/slots/9/pull", "", 404, "Problem", "", nil},
		{"POST /sim/v1/nothing", "", 404, "Problem", "", nil},
		{"DELETE /sim/v1", "", 404, "Problem", "", nil},
	} {
		method, path, _ := strings.Cut(tt.call, " ")
		pattern, _, _ := strings.Cut(path, "?")
		pattern = regexp.MustCompile(`chips/[a-z]+`).ReplaceAllString(pattern, "chips/{chip}")
		pattern = regexp.MustCompile(`faults/[0-9]+$`).ReplaceAllString(pattern, "faults/{id}")
		covered[method+" "+regexp.MustCompile(`services/[a-z]+`).ReplaceAllString(pattern, "services/{service}")] = true
		path = strings.NewReplacer("{slot}", "1", "{port}", "unit-1").Replace(path)
		status, body := b.call(t, method, path, tt.body)
		if status != tt.status {
			t.Fatalf("%s %s: %d, want %d: %s", tt.call, tt.body, status, tt.status, body)
		}
		if tt.schema != "" {
			if err := fits(tt.schema, body); err != nil {
				t.Errorf("%s: answer is no %s: %v", tt.call, tt.schema, err)
			}
		}
		if tt.ok != nil {
			b.until(t, tt.call+" "+tt.then, tt.ok)
		}
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if op := strings.ToUpper(method) + " " + path; !covered[op] {
				t.Errorf("%s is not tried here", op)
			}
		}
	}
}

func TestCaptureStream(t *testing.T) {
	b := quiet(t)
	s := httptest.NewServer(b.Handler())
	defer s.Close()
	r, err := http.Get(s.URL + "/sim/v1/capture?seconds=0.2")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	ng, err := pcapgo.NewNgReader(r.Body, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ng.LinkType().String() != "Ethernet" {
		t.Errorf("link type %v", ng.LinkType())
	}
}

// TestTwoRacks runs two racks with the same network side by side, and refuses a
// second simulator for one of them.
func TestTwoRacks(t *testing.T) {
	a, b := quiet(t), quiet(t)
	alive := func(s sim.State) bool { return s.RMC.Alive && s.Slots[0].BMC.Alive }
	a.until(t, "the first rack lives", alive)
	b.until(t, "the second rack lives", alive)
	a.call(t, "POST", "/sim/v1/slots/1/pull", "")
	a.until(t, "tray pulled in the first", func(s sim.State) bool { return !s.Slots[0].Present })
	if s := b.State(); !s.Slots[0].Present {
		t.Error("tray pulled in the second too")
	}
	if a.GitURL() == b.GitURL() || bytes.Equal(a.DeviceKey(1), b.DeviceKey(1)) || bytes.Equal(a.DeviceKey(1), a.DeviceKey(2)) || len(a.DeviceKey(1)) != ed25519.PublicKeySize {
		t.Error("the racks share a Git server or device keys")
	}
	if a.DeviceKey(3) != nil {
		t.Error("an empty slot has a device key")
	}
	cfg := a.cfg
	if _, err := sim.New(cfg); !errors.Is(err, sim.ErrRunning) {
		t.Errorf("second simulator in the same directory: %v", err)
	}
	key := a.DeviceKey(1)
	a.stop()
	again := run(t, cfg)
	again.until(t, "the first rack lives again", alive)
	if !bytes.Equal(again.DeviceKey(1), key) {
		t.Error("a board has a new device key after a restart")
	}
}

// TestConfig refuses racks that cannot be built.
func TestConfig(t *testing.T) {
	spec := rack.RackSpec{ID: testRackID, Slots: 4, Power: rack.RackPower{Supply: 100}, Network: rack.RackNetwork{Subnet: "10.77.0.0/24"}}
	unit := func(slot rack.SlotID) *rack.ComputeUnit {
		return &rack.ComputeUnit{Metadata: rack.Metadata{Name: "u"}, Spec: rack.ComputeUnitSpec{Slot: slot}}
	}
	good := func() sim.Config {
		return sim.Config{Dir: t.TempDir(), Rack: &rack.Rack{Spec: spec}, Accel: machine.TCG}
	}
	for name, spoil := range map[string]func(*sim.Config){
		"no rack":         func(c *sim.Config) { c.Rack = nil },
		"relative":        func(c *sim.Config) { c.Dir = "rack" },
		"slot 0":          func(c *sim.Config) { c.Units = []*rack.ComputeUnit{unit(0)} },
		"management slot": func(c *sim.Config) { c.Units = []*rack.ComputeUnit{unit(4)} },
		"slot 9":          func(c *sim.Config) { c.Units = []*rack.ComputeUnit{unit(9)} },
		"same slot":       func(c *sim.Config) { c.Units = []*rack.ComputeUnit{unit(1), unit(1)} },
		"no release":      func(c *sim.Config) { c.Releases = []string{"/nonexistent"} },
		"bad id":          func(c *sim.Config) { c.Rack.Spec.ID = "x"; c.Units = []*rack.ComputeUnit{unit(1)} },
		"bad subnet":      func(c *sim.Config) { c.Rack.Spec.Network.Subnet = "x" },
		"small subnet": func(c *sim.Config) {
			c.Rack.Spec.Network.Subnet = "10.0.0.0/28"
			c.Rack.Spec.Slots = 10
			c.Units = []*rack.ComputeUnit{unit(9)}
		},
	} {
		cfg := good()
		spoil(&cfg)
		if r, err := sim.New(cfg); err == nil {
			r.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	r, err := sim.New(good())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
