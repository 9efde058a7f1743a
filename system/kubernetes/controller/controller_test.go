package controller

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/racklet/racklet/rack"
)

// TestDefinitions asks for a CRD of each kind that says what the schema says.
func TestDefinitions(t *testing.T) {
	for kind := range plurals {
		d, err := definition(kind)
		if err != nil {
			t.Fatal(err)
		}
		v := d.Spec.Versions[0]
		spec := v.Schema.OpenAPIV3Schema.Properties["spec"]
		if len(spec.Properties) == 0 || len(spec.Required) == 0 || len(v.AdditionalPrinterColumns) == 0 {
			t.Errorf("%s: spec %v, columns %v", kind, spec.Required, v.AdditionalPrinterColumns)
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []string{`"$schema"`, `"$id"`, `"const"`, `"title"`, `"examples"`} {
			if strings.Contains(string(b), foreign) {
				t.Errorf("%s holds %s, which a CRD may not", kind, foreign)
			}
		}
	}
	d, err := definition(rack.KindComputeUnit)
	if err != nil {
		t.Fatal(err)
	}
	spec := d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	if e := spec.Properties["power"].Enum; len(e) != 2 || string(e[0].Raw) != `"On"` {
		t.Errorf("power may be %s", e)
	}
	if p := spec.Properties["powerCap"].Pattern; p == "" {
		t.Error("powerCap has no pattern")
	}
}

func TestConfirmedOff(t *testing.T) {
	on, silent := new(chassis), new(chassis)
	on.Status.State, silent.Status.State = "Enabled", "UnavailableOffline"
	for _, c := range []struct {
		name               string
		power              string
		present, available bool
		rack               *chassis
		want               bool
	}{
		{"the BMC says off", "Off", true, true, on, true},
		{"the BMC says on", "On", true, true, on, false},
		{"a silent BMC that said off", "Off", true, false, on, false},
		{"a silent BMC that said on", "On", true, false, on, false},
		{"on its way", "PoweringOff", true, true, on, false},
		{"an empty slot", "On", false, false, on, true},
		{"an empty slot, says a silent RMC", "On", false, false, silent, false},
	} {
		s := &system{PowerState: c.power}
		s.Oem.Racklet.Present, s.Oem.Racklet.Available = c.present, c.available
		if got := s.confirmedOff(c.rack); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// fakeRedfish answers resets and keeps them.
func fakeRedfish(t *testing.T) (*redfishClient, func() []string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "r.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.Path+" "+string(b))
		w.WriteHeader(http.StatusNoContent)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return newRedfish(socket), func() []string { mu.Lock(); defer mu.Unlock(); return append([]string(nil), got...) }
}

func testUnit(spec, agreed string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": rack.APIVersion, "kind": rack.KindComputeUnit, "metadata": map[string]any{"name": "unit-1"},
		"spec": map[string]any{"slot": int64(1), "power": spec}, "status": map[string]any{"requestedPower": agreed},
	}}
}

func testController(t *testing.T, objects ...runtime.Object) (*Controller, func() []string) {
	t.Helper()
	r, calls := fakeRedfish(t)
	return &Controller{
		o: Options{Log: slog.New(slog.DiscardHandler), Pods: netip.MustParsePrefix("10.42.0.0/16")}, redfish: r, kube: fake.NewClientset(objects...),
		dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme(), testUnit("On", "On")), written: map[string]record{}, drains: map[string]*drain{},
	}, calls
}

func testSystem(power, desired string) *system {
	s := &system{ID: "unit-1", PowerState: power}
	o := &s.Oem.Racklet
	o.Slot, o.Present, o.Available, o.DesiredPower, o.Release = 1, true, true, desired, "2026.11+a"
	return s
}

// TestPower: whoever changed their mind last is followed.
func TestPower(t *testing.T) {
	const reset = "POST /redfish/v1/Systems/unit-1/Actions/ComputerSystem.Reset "
	t.Run("agreed", func(t *testing.T) {
		c, calls := testController(t)
		if agreed, err := c.power(t.Context(), testUnit("On", "On"), testSystem("On", "On")); err != nil || agreed != "On" || len(calls()) > 0 {
			t.Errorf("%q, %v, %v", agreed, err, calls())
		}
	})
	t.Run("on by the object", func(t *testing.T) {
		c, calls := testController(t)
		agreed, err := c.power(t.Context(), testUnit("On", "Off"), testSystem("Off", "Off"))
		if got := calls(); err != nil || agreed != "On" || len(got) != 1 || got[0] != reset+`{"ResetType":"On"}` {
			t.Errorf("%q, %v, %v", agreed, err, got)
		}
	})
	t.Run("off by the management API", func(t *testing.T) {
		c, calls := testController(t)
		agreed, err := c.power(t.Context(), testUnit("On", "On"), testSystem("On", "Off"))
		if err != nil || agreed != "Off" || len(calls()) > 0 {
			t.Errorf("%q, %v, %v", agreed, err, calls())
		}
		o, err := c.dynamic.Resource(resource("computeunits")).Get(t.Context(), "unit-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p, _, _ := unstructured.NestedString(o.Object, "spec", "power"); p != "Off" {
			t.Errorf("spec.power stays %s", p)
		}
	})
	t.Run("a silent BMC", func(t *testing.T) {
		c, calls := testController(t)
		s := testSystem("On", "On")
		s.Oem.Racklet.Available = false
		if agreed, err := c.power(t.Context(), testUnit("Off", "On"), s); err != nil || agreed != "On" || len(calls()) > 0 {
			t.Errorf("%q, %v, %v", agreed, err, calls())
		}
	})
	t.Run("off by the object drains first", func(t *testing.T) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "unit-1"}}
		c, calls := testController(t, node)
		agreed, err := c.power(t.Context(), testUnit("Off", "On"), testSystem("On", "On"))
		if err != nil || agreed != "On" || len(calls()) > 0 {
			t.Fatalf("before the drain: %q, %v, %v", agreed, err, calls())
		}
		eventually(t, "it is drained", func() bool { return c.drains["unit-1"].finished() })
		if text := c.drains["unit-1"].text(); text != "Drained" {
			t.Errorf("drain: %s", text)
		}
		n, _ := c.kube.CoreV1().Nodes().Get(t.Context(), "unit-1", metav1.GetOptions{})
		if !n.Spec.Unschedulable || n.Annotations[cordoned] == "" {
			t.Errorf("not cordoned: %+v", n)
		}
		agreed, err = c.power(t.Context(), testUnit("Off", "On"), testSystem("On", "On"))
		if got := calls(); err != nil || agreed != "Off" || len(got) != 1 || got[0] != reset+`{"ResetType":"GracefulShutdown"}` {
			t.Errorf("%q, %v, %v", agreed, err, got)
		}
	})
}

// TestNodeLife: out of service once the rail is off, back when the unit is.
func TestNodeLife(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "unit-1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	pod := func(name, owner string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "1", OwnerReferences: []metav1.OwnerReference{{Kind: owner, Name: "x"}}}, Spec: corev1.PodSpec{NodeName: "unit-1"}}
	}
	c, _ := testController(t, node, pod("web", "ReplicaSet"), pod("agent", "DaemonSet"))
	step := func(s *system) *corev1.Node {
		t.Helper()
		n, err := c.kube.CoreV1().Nodes().Get(t.Context(), "unit-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.nodeLife(t.Context(), n, s); err != nil {
			t.Fatal(err)
		}
		n, _ = c.kube.CoreV1().Nodes().Get(t.Context(), "unit-1", metav1.GetOptions{})
		return n
	}
	pods := func() int {
		list, err := c.kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	n := step(testSystem("On", "On"))
	if n.Labels[labelSlot] != "1" || n.Labels[labelRelease] != "2026.11_a" || n.Spec.PodCIDR != "10.42.1.0/24" || len(n.Spec.Taints) > 0 {
		t.Errorf("a node that is up: %v %v %v", n.Labels, n.Spec.PodCIDR, n.Spec.Taints)
	}
	silent := testSystem("On", "On")
	silent.Oem.Racklet.Available = false
	if n := step(silent); len(n.Spec.Taints) > 0 || !ready(n) || pods() != 2 {
		t.Errorf("silence alone takes the node out: %v", n.Spec.Taints)
	}
	off := testSystem("Off", "On")
	off.confirmed = true
	for range 2 { // the second time changes nothing
		n = step(off)
		if len(n.Spec.Taints) != 1 || n.Spec.Taints[0] != outOfService || ready(n) {
			t.Errorf("a node without power: taints %v, ready %v", n.Spec.Taints, ready(n))
		}
		if pods() != 1 {
			t.Errorf("%d pods, want the daemon's alone", pods())
		}
	}
	if n := step(testSystem("On", "On")); len(n.Spec.Taints) != 1 {
		t.Error("back in service before its kubelet is")
	}
	n.Status.Conditions[0].Status = corev1.ConditionTrue
	if _, err := c.kube.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := step(testSystem("On", "On")); len(n.Spec.Taints) != 0 {
		t.Errorf("a node that is back keeps %v", n.Spec.Taints)
	}
}

func TestLabelValue(t *testing.T) {
	for in, want := range map[string]string{"2026.11.1": "2026.11.1", "a+b": "a_b", "-x-": "x", strings.Repeat("a", 80): strings.Repeat("a", 63)} {
		if got := labelValue(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzParseDesired(f *testing.F) {
	f.Add([]byte(`{"commit":"c","sequence":1,"objects":[{"apiVersion":"racklet.io/v1alpha1","kind":"Rack","metadata":{"name":"r"}}]}`))
	f.Add([]byte(`{"objects":[{"kind":"Secret"}]}`))
	f.Add([]byte(`{"objects":[null,1,[]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, list, err := parseDesired(b)
		if err != nil {
			return
		}
		for _, o := range list {
			if plurals[o.GetKind()] == "" || o.GetName() == "" {
				t.Errorf("accepted %v", o)
			}
		}
	})
}
