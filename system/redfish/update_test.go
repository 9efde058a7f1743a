package redfish_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish"
)

const updateService = "/redfish/v1/UpdateService"

// updateFile is a boot image of some chunks behind its manifest. Nobody signed it: the BMCs of these tests do not look.
func updateFile(t testing.TB, chunks int, version string) []byte {
	t.Helper()
	size := max(chunks*trust.ChunkSize, 1024) - 512 // the last chunk is shorter
	image := bytes.Repeat([]byte("boot medium "+version+" of a unit\n"), size/16)[:size]
	m := trust.SlotManifest{Version: version, SecurityVersion: 2, ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize}
	for at := 0; at < len(image); at += trust.ChunkSize {
		m.Chunks = append(m.Chunks, sha256.Sum256(image[at:min(at+trust.ChunkSize, len(image))]))
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return append(trust.AppendSigned(b, []trust.Signature{{}}), image...)
}

// form is a multipart body of parts: name, content.
func form(t testing.TB, parts ...string) (kind, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		p, err := w.CreateFormField(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(p, parts[i+1])
	}
	w.Close()
	return w.FormDataContentType(), b.String()
}

func (s *service) push(parameters string, file []byte) (*http.Response, []byte) {
	s.Helper()
	kind, body := form(s.T, "UpdateParameters", parameters, "UpdateFile", string(file))
	return s.do("POST", updateService+"/update-multipart", body, "Content-Type", kind)
}

type taskBody struct {
	ID                          string `json:"Id"`
	TaskState, TaskStatus, Name string
	TaskMonitor, EndTime        string
	PercentComplete             int
	Messages                    []message
}

func (v *taskBody) says(id, text string) bool {
	return slices.ContainsFunc(v.Messages, func(m message) bool { return m.MessageID == id && strings.Contains(m.Message, text) })
}

// begun takes the task out of a 202.
func (s *service) begun(resp *http.Response, b []byte) (uri string) {
	s.Helper()
	var v taskBody
	err := json.Unmarshal(b, &v)
	location := resp.Header.Get("Location")
	if resp.StatusCode != 202 || err != nil || location != v.TaskMonitor || resp.Header.Get("Retry-After") == "" || v.TaskState == "" {
		s.Fatalf("begin: %d %v %s", resp.StatusCode, resp.Header, b)
	}
	return strings.TrimSuffix(location, "/Monitor")
}

// ended waits for the end of a task.
func (s *service) ended(uri string) (v taskBody) {
	s.Helper()
	s.until("the end of "+uri, func() bool { v = taskBody{}; s.get(uri, &v); return v.EndTime != "" })
	return v
}

// flashed counts commands that write slots.
func flashed(b *wiretest.BMC, also func(wire.Header, []byte) []byte) *atomic.Int32 {
	n := new(atomic.Int32)
	b.SetFaults(wiretest.Faults{Lie: func(h wire.Header, resp []byte) []byte {
		if h.Type == wire.TypeOEM && h.Command >= wire.CmdSlotErase && h.Command <= wire.CmdSlotCommit {
			n.Add(1)
			if also != nil {
				return also(h, resp)
			}
		}
		return resp
	}})
	return n
}

func TestUpdate(t *testing.T) {
	s := start(t, description(2, "Off"))
	wrote := flashed(s.rack.BMCs[2], nil)
	file := updateFile(t, 3, "v0.2.0")
	var v struct {
		MultipartHTTPPushURI string `json:"MultipartHttpPushUri"`
		ServiceEnabled       bool
	}
	if s.get(updateService, &v); v.MultipartHTTPPushURI != updateService+"/update-multipart" || !v.ServiceEnabled {
		t.Fatalf("%+v", v)
	}
	uri := s.begun(s.push(`{"Targets":["/redfish/v1/Systems/unit-1"],"@Redfish.OperationApplyTime":"OnReset"}`, file))
	e := s.ended(uri)
	if e.TaskState != "Completed" || e.TaskStatus != "OK" || e.PercentComplete != 100 || !e.says("TaskEvent.1.0.TaskStarted", "") || !e.says("Update.1.0.TransferringToComponent", "v0.2.0") ||
		!e.says("Update.1.0.VerifyingAtComponent", "bmc-1") || !e.says("Update.1.0.AwaitToActivate", "") || !e.says("Update.1.0.UpdateSuccessful", "") || !e.says("TaskEvent.1.0.TaskCompletedOK", "") {
		t.Errorf("task: %+v", e)
	}
	if resp, b := s.do("GET", uri+"/Monitor", ""); resp.StatusCode != 200 {
		t.Errorf("monitor: %d %s", resp.StatusCode, b)
	}
	var slot struct {
		Version    string
		Updateable bool
		Status     struct{ State string }
	}
	if s.get(updateService+"/FirmwareInventory/bmc-1-SlotB", &slot); slot.Version != "v0.2.0" || slot.Status.State != "StandbySpare" {
		t.Errorf("slot: %+v", slot)
	}
	var all struct{ Members []any }
	if s.get(updateService+"/FirmwareInventory?$expand=.", &all); len(all.Members) != 7 {
		t.Errorf("%d members of the inventory", len(all.Members))
	}
	if n := wrote.Load(); n != 0 {
		t.Errorf("%d commands to a BMC that was not meant", n)
	}
	// The other order of the parts, all that answer as targets, and the raw push to one that was set beforehand.
	kind, body := form(t, "UpdateFile", string(file), "UpdateParameters", "{}", "OemThing", "x")
	if e := s.ended(s.begun(s.do("POST", updateService+"/update-multipart", body, "Content-Type", kind))); e.TaskState != "Completed" || wrote.Load() == 0 {
		t.Errorf("all: %+v", e)
	}
	if resp, b := s.do("PATCH", updateService, `{"HttpPushUriTargets":["/redfish/v1/Managers/bmc-1"]}`); resp.StatusCode != 200 || !strings.Contains(string(b), "Managers/bmc-1") {
		t.Errorf("targets: %d %s", resp.StatusCode, b)
	}
	if e := s.ended(s.begun(s.do("POST", updateService+"/update", string(file), "Content-Type", "application/octet-stream"))); e.Name != "Update of unit-1" || e.TaskState != "Completed" {
		t.Errorf("push: %+v", e)
	}
	s.stream("1", func(_ string, e map[string]any) bool { return e["MessageId"] == "TaskEvent.1.0.TaskCompletedOK" })
}

// TestUpdateAtOnce restarts the unit and waits for the new slot to run.
func TestUpdateAtOnce(t *testing.T) {
	s := start(t, description(1, "On"))
	s.until("it runs", func() bool { return s.system("unit-1").Oem.Racklet.Stage == "running" })
	go func() { // the BMC of these tests boots slot A unless told otherwise
		for s.rack.BMCs[1].State().BootCount < 2 {
			time.Sleep(time.Millisecond)
		}
		s.rack.BMCs[1].Update(func(u *wire.UnitState) { u.BootSlot = wire.SlotB })
	}()
	if e := s.ended(s.begun(s.push(`{"@Redfish.OperationApplyTime":"Immediate"}`, updateFile(t, 2, "v0.2.0")))); e.TaskState != "Completed" && !e.says("Update.1.0.ActivateFailed", "booted slot A") {
		t.Errorf("%+v", e)
	}
}

func TestUpdateRefused(t *testing.T) {
	s := start(t, description(1, "Off"))
	f := wire.MakeFailure("slot.signature", "2 of 3 owners", "1 of them")
	wrote := flashed(s.rack.BMCs[1], func(h wire.Header, resp []byte) []byte {
		return wire.AppendFailure(wire.AppendResponse(nil, h, wire.CodeRefused), &f)
	})
	good := updateFile(t, 2, "v0.2.0")
	uri := s.begun(s.push(`{}`, good))
	e := s.ended(uri)
	if e.TaskState != "Exception" || e.TaskStatus != "Critical" || !e.says("Update.1.0.VerificationFailed", "slot.signature: expected 2 of 3 owners, seen 1 of them") || !e.says("TaskEvent.1.0.TaskAborted", "") {
		t.Errorf("task: %+v", e)
	}
	resp, b := s.do("GET", uri+"/Monitor", "")
	if m := firstMessage(t, b); resp.StatusCode != 400 || m.MessageID != "Update.1.0.VerificationFailed" || m.Resolution == "" {
		t.Errorf("monitor: %d %+v", resp.StatusCode, m)
	}
	if n := wrote.Load(); n != 1 {
		t.Errorf("%d commands after the refusal", n-1)
	}
	// Files that are none are refused at once.
	wrote.Store(0)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-700] ^= 1
	for what, file := range map[string][]byte{"empty": {}, "noise": bytes.Repeat([]byte{7}, 4000), "cut": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "flipped": flipped} {
		if resp, b := s.push(`{}`, file); resp.StatusCode != 400 || firstMessage(t, b).MessageID != "Base.1.22.InvalidUploadImage" {
			t.Errorf("%s: %d %s", what, resp.StatusCode, b)
		}
		if resp, b := s.do("POST", updateService+"/update", string(file), "Content-Type", "application/octet-stream"); resp.StatusCode != 400 {
			t.Errorf("%s pushed: %d %s", what, resp.StatusCode, b)
		}
	}
	for parameters, want := range map[string]int{
		`{"Targets":["/redfish/v1/Systems/unit-9"]}`: 400, `{"Targets":7}`: 400, `{"Explode":true}`: 400, `[]`: 400, `{"Stage":true}`: 400,
		`{"@Redfish.OperationApplyTime":"Sometime"}`: 400, `{"ExcludeTargets":["/redfish/v1/Systems/unit-1"]}`: 503,
	} {
		if resp, b := s.push(parameters, good); resp.StatusCode != want || firstMessage(t, b).Resolution == "" {
			t.Errorf("%s: %d %s", parameters, resp.StatusCode, b)
		}
	}
	for _, parts := range [][]string{{"UpdateFile", string(good)}, {"UpdateParameters", "{}"}, {"UpdateParameters", "{}", "UpdateParameters", "{}"}, {"Else", "x"}} {
		kind, body := form(t, parts...)
		if resp, b := s.do("POST", updateService+"/update-multipart", body, "Content-Type", kind); resp.StatusCode != 400 {
			t.Errorf("parts %.60q: %d %s", parts, resp.StatusCode, b)
		}
	}
	if resp, _ := s.do("POST", updateService+"/update-multipart", "{}"); resp.StatusCode != 415 {
		t.Errorf("JSON: %d", resp.StatusCode)
	}
	if n := wrote.Load(); n != 0 {
		t.Errorf("%d commands to the BMC", n)
	}
}

// TestUpdateWaits: a BMC that is busy, or has something left of an update that was broken off, is asked again.
func TestUpdateWaits(t *testing.T) {
	s := start(t, description(1, "Off"))
	f := wire.MakeFailure("slot.chunk", "3 chunks", "2 of them")
	var n atomic.Int32
	flashed(s.rack.BMCs[1], func(h wire.Header, resp []byte) []byte {
		switch n.Add(1) {
		case 1:
			return wire.AppendResponse(nil, h, wire.CodeBusy)
		case 2:
			return wire.AppendResponse(nil, h, wire.CodeNotReady)
		case 3:
			return wire.AppendFailure(wire.AppendResponse(nil, h, wire.CodeRefused), &f)
		}
		return resp
	})
	if e := s.ended(s.begun(s.push(`{}`, updateFile(t, 2, "v0.2.0")))); e.TaskState != "Completed" || n.Load() < 4 {
		t.Errorf("%d answers: %+v", n.Load(), e)
	}
}

// TestCancel stops a slow update, which another must not disturb.
func TestCancel(t *testing.T) {
	s := start(t, description(1, "Off"))
	gate := make(chan struct{})
	var once sync.Once
	flashed(s.rack.BMCs[1], func(h wire.Header, resp []byte) []byte {
		if h.Command == wire.CmdSlotWrite {
			select {
			case <-gate:
			case <-time.After(50 * time.Millisecond): // slow, but not silent
			}
		}
		return resp
	})
	defer once.Do(func() { close(gate) })
	file := updateFile(t, 30, "v0.2.0")
	uri := s.begun(s.push(`{}`, file))
	if resp, b := s.push(`{}`, file); resp.StatusCode != 409 || firstMessage(t, b).MessageID != "Base.1.22.ResourceInUse" {
		t.Errorf("a second one: %d %s", resp.StatusCode, b)
	}
	if resp, _ := s.do("GET", uri+"/Monitor", ""); resp.StatusCode != 202 {
		t.Errorf("monitor: %d", resp.StatusCode)
	}
	if resp, b := s.do("DELETE", uri+"/Monitor", ""); resp.StatusCode != 204 {
		t.Fatalf("cancel: %d %s", resp.StatusCode, b)
	}
	var e taskBody
	if s.get(uri, &e); e.TaskState != "Cancelled" || e.TaskStatus != "Warning" || e.EndTime == "" || !e.says("TaskEvent.1.0.TaskCancelled", "") {
		t.Errorf("%+v", e)
	}
	once.Do(func() { close(gate) })
	if e := s.ended(s.begun(s.push(`{}`, updateFile(t, 2, "v0.2.0")))); e.TaskState != "Completed" {
		t.Errorf("after it: %+v", e)
	}
	if resp, _ := s.do("DELETE", uri, ""); resp.StatusCode != 204 {
		t.Errorf("forget: %d", resp.StatusCode)
	}
	for _, gone := range []string{uri, uri + "/Monitor"} {
		if resp, _ := s.do("GET", gone, ""); resp.StatusCode != 404 {
			t.Errorf("%s: %d", gone, resp.StatusCode)
		}
		if resp, _ := s.do("DELETE", gone, ""); resp.StatusCode != 404 {
			t.Errorf("delete %s: %d", gone, resp.StatusCode)
		}
	}
}

// TestTasksSurvive: a task whose service is gone has an end.
func TestTasksSurvive(t *testing.T) {
	o := description(1, "Off")
	o.Dir = t.TempDir()
	r := wiretest.NewRack(1)
	defer r.Close()
	o.Line = r.Line()
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	server := httptest.NewServer(s.Local("tester"))
	v := &service{t, r, server.URL}
	v.until("the BMC answers", func() bool { return v.system("unit-1").Oem.Racklet.Available })
	flashed(r.BMCs[1], func(h wire.Header, resp []byte) []byte { time.Sleep(20 * time.Millisecond); return resp })
	uri := v.begun(v.push(`{}`, updateFile(t, 30, "v0.2.0")))
	killed := t.TempDir() // as kill -9 would leave it
	b, err := os.ReadFile(filepath.Join(o.Dir, "tasks.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, "tasks.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	server.Close()
	for _, dir := range []string{o.Dir, killed} {
		o := description(1, "Off")
		o.Dir = dir
		again := start(t, o)
		var e taskBody
		if again.get(uri, &e); e.TaskState != "Exception" || e.EndTime == "" || !e.says("TaskEvent.1.0.TaskAborted", "") || e.Messages[len(e.Messages)-2].Resolution == "" {
			t.Errorf("%+v", e)
		}
		if next := again.begun(again.push(`{}`, updateFile(t, 1, "v0.2.0"))); next == uri {
			t.Error("a number is used twice")
		}
	}
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "tasks.json"), b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Line = damaged, wiretest.NewRack(1).Line()
	if _, err := redfish.New(o); err == nil {
		t.Error("a damaged file is taken")
	}
}

// TestBoundedTasks: ended tasks give way.
func TestBoundedTasks(t *testing.T) {
	s := start(t, description(1, "Off"))
	flashed(s.rack.BMCs[1], func(h wire.Header, resp []byte) []byte {
		return wire.AppendFailure(wire.AppendResponse(nil, h, wire.CodeRefused), &wire.Failure{})
	})
	file := updateFile(t, 1, "v0.2.0")
	for range 70 {
		s.ended(s.begun(s.push(`{}`, file)))
	}
	var all struct {
		Members []struct {
			ID string `json:"@odata.id"`
		}
	}
	if s.get("/redfish/v1/TaskService/Tasks", &all); len(all.Members) != 64 || !strings.HasSuffix(all.Members[0].ID, "/7") {
		t.Errorf("%d tasks, first %v", len(all.Members), all.Members[0])
	}
}

func TestPull(t *testing.T) {
	file := updateFile(t, 2, "v0.2.0")
	mirror := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/racklet/update":
			w.Write(file)
		case "/racklet/cut":
			w.Write(file[:len(file)/2])
		case "/racklet/away":
			http.Redirect(w, r, "/racklet/update", http.StatusFound)
		case "/secret":
			t.Error("a path that is not the mirror's was asked for")
		default:
			http.NotFound(w, r)
		}
	}))
	defer mirror.Close()
	pin := func(c *x509.Certificate) string {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
	}
	stranger := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("a stranger was asked") }))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	other := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{other}}
	stranger.StartTLS()
	defer stranger.Close()
	o := description(1, "Off")
	o.Rack.Spec.Mirrors = []rack.Mirror{{URL: mirror.URL + "/racklet", TLSPins: []string{pin(mirror.Certificate())}}, {URL: stranger.URL, TLSPins: []string{pin(mirror.Certificate())}}}
	s := start(t, o)
	wrote := flashed(s.rack.BMCs[1], nil)
	pull := func(uri string) (*http.Response, []byte) {
		return s.do("POST", updateService+"/Actions/UpdateService.SimpleUpdate", fmt.Sprintf(`{"ImageURI":%q,"TransferProtocol":"HTTPS"}`, uri))
	}
	for path, want := range map[string]string{"cut": "InvalidUploadImage", "away": "CouldNotEstablishConnection", "none": "CouldNotEstablishConnection"} {
		if e := s.ended(s.begun(pull(mirror.URL + "/racklet/" + path))); e.TaskState != "Exception" || !e.says("Base.1.22."+want, "") {
			t.Errorf("%s: %+v", path, e)
		}
	}
	if e := s.ended(s.begun(pull(stranger.URL + "/x"))); e.TaskState != "Exception" || !e.says("Base.1.22.CouldNotEstablishConnection", "another TLS key") {
		t.Errorf("a mirror with another key: %+v", e)
	}
	for _, uri := range []string{
		"https://192.0.2.1/x", "http" + strings.TrimPrefix(mirror.URL, "https") + "/racklet/update", mirror.URL + "/secret", mirror.URL + "/racklet/../secret", mirror.URL + "/racklet/%2e%2e/secret",
		mirror.URL + "/rackletsecret", "https://root@" + strings.TrimPrefix(mirror.URL, "https://") + "/racklet/update", "file:///etc/passwd", "", "https://", mirror.URL + "//racklet/update",
	} {
		if resp, b := pull(uri); resp.StatusCode != 400 || firstMessage(t, b).Resolution == "" {
			t.Errorf("%s: %d %s", uri, resp.StatusCode, b)
		}
	}
	if n := wrote.Load(); n != 0 {
		t.Errorf("%d commands to the BMC", n)
	}
	if e := s.ended(s.begun(pull(mirror.URL + "/racklet/update"))); e.TaskState != "Completed" {
		t.Errorf("%+v", e)
	}
	if e := s.ended(s.begun(pull(strings.TrimPrefix(mirror.URL, "https://") + "/racklet/update"))); e.TaskState != "Completed" {
		t.Errorf("without a scheme: %+v", e)
	}
}
