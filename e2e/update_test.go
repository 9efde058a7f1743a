package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/trust"
)

// TestRedfishOnARack drives a booted rack over the network with a Redfish client that others wrote: it logs in, lists, subscribes, cycles power,
// overrides the boot slot, and updates a boot slot. An update with one signature too few leaves the flash alone; one that a
// power cut halves leaves the other slot; the whole one boots at the next power-on, which here is behind a second power cut.
func TestRedfishOnARack(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a unit several times")
	}
	r := newRack(t, build(t))
	next := buildNext(t, r.bin)
	address := freeAddress(t)
	r.up(t, 1, "--release", next, "--listen", address)
	c := r.gofish(t, address, "ada")

	systems, err := c.Service.Systems()
	if err != nil || len(systems) != 1 || systems[0].PowerState != schemas.OnPowerState {
		t.Fatalf("systems: %+v %v", systems, err)
	}
	unit := systems[0]
	chassis, err := c.Service.Chassis()
	if err != nil || len(chassis) != 2 {
		t.Errorf("%d chassis: %v", len(chassis), err)
	}
	managers, err := c.Service.Managers()
	if err != nil || len(managers) != 3 {
		t.Errorf("%d managers: %v", len(managers), err)
	}
	got := newReceiver(t)
	events, err := c.Service.EventService()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.CreateEventSubscriptionInstance(got.URL, []string{"Racklet", "TaskEvent"}, nil, nil, schemas.RedfishEventDestinationProtocol, "e2e", schemas.RetryForeverDeliveryRetryPolicy, nil); err != nil {
		t.Fatal(err)
	}

	// Once: slot B for one boot, and read back.
	options, err := unit.BootOptions()
	if err != nil || len(options) != 2 {
		t.Fatalf("%d boot options: %v", len(options), err)
	}
	if err := unit.SetBoot(&schemas.Boot{BootSourceOverrideEnabled: schemas.OnceBootSourceOverrideEnabled, BootSourceOverrideTarget: schemas.UefiTargetBootSource, UefiTargetBootSourceOverride: "SlotB"}); err != nil {
		t.Fatal(err)
	}
	if b := r.override(t, c); b.BootSourceOverrideEnabled != schemas.OnceBootSourceOverrideEnabled || b.UefiTargetBootSourceOverride != "SlotB" {
		t.Errorf("read back: %+v", b)
	}
	if _, err := unit.Reset(schemas.PowerCycleResetType); err != nil {
		t.Fatal(err)
	}
	r.until(t, "unit-1", "running from slot B", func(s *unitStatus) bool { return s.Stage == "running" && s.BootSlot == "B" })
	if b := r.override(t, c); b.BootSourceOverrideEnabled != schemas.DisabledBootSourceOverrideEnabled {
		t.Errorf("after one boot: %+v", b)
	}
	got.await(t, "the boot", func(e event) bool {
		return e.MessageID == "Racklet.1.0.Stage" && strings.Contains(e.Message, "running")
	})

	// One signature too few: nothing is written.
	good, short := r.updateFiles(t, next)
	before := r.slots(t)
	e := push(t, c, short)
	if e.TaskState != schemas.ExceptionTaskState || !slices.ContainsFunc(e.Messages, func(m schemas.Message) bool {
		return m.MessageID == "Update.1.0.VerificationFailed" && strings.Contains(m.Message, "slot.signature") && m.Resolution != ""
	}) {
		t.Errorf("one signature: %+v", e)
	}
	if after := r.slots(t); after != before {
		t.Error("an update that was refused changed a slot in flash")
	}

	// A power cut in the middle: the slot that boots stays, the task has an end, and the subscription goes on.
	monitor := begin(t, c, good)
	for monitor.Task.PercentComplete == nil || *monitor.Task.PercentComplete < 10 {
		task, err := schemas.GetObject[schemas.Task](c, monitor.Task.ODataID)
		if err != nil || task.EndTime != "" {
			t.Fatalf("it ended early: %+v %v", task, err)
		}
		monitor.Task = task
		time.Sleep(50 * time.Millisecond)
	}
	if err := killDaemon(r.state); err != nil {
		t.Fatal(err)
	}
	if after := r.slots(t); after == before {
		t.Error("the update had written nothing yet: the power cut shows nothing")
	}
	again := func() {
		t.Helper()
		r.racklet(t, "up", "--units", "1", "--release", r.release, "--release", next, "--listen", address)
	}
	again()
	r.until(t, "unit-1", "running from slot B", func(s *unitStatus) bool { return s.Stage == "running" && s.BootSlot == "B" })
	c = r.gofish(t, address, "grace")
	task, err := schemas.GetObject[schemas.Task](c, monitor.Task.ODataID)
	if err != nil || task.TaskState != schemas.ExceptionTaskState || task.EndTime == "" {
		t.Errorf("the task of the power cut: %+v %v", task, err)
	}
	if v := r.inventory(t, c, "bmc-1-SlotA"); v.Status.State == schemas.EnabledState || v.Status.State == schemas.StandbySpareState {
		t.Errorf("the half-written slot: %+v", v)
	}

	// The whole one: staged, seen, and booted at the next power cycle.
	start := time.Now()
	e = push(t, c, good)
	if e.TaskState != schemas.CompletedTaskState || !slices.ContainsFunc(e.Messages, func(m schemas.Message) bool { return m.MessageID == "Update.1.0.AwaitToActivate" }) {
		t.Fatalf("update: %+v", e)
	}
	t.Logf("%d KiB written in %.1f s", len(good)>>10, time.Since(start).Seconds())
	if v := r.inventory(t, c, "bmc-1-SlotA"); v.Version != nextVersion || v.Status.State != schemas.StandbySpareState {
		t.Errorf("staged: %+v", v)
	}
	if s := r.status(t, "unit-1"); s.BootSlot != "B" || s.Stage != "running" {
		t.Errorf("the unit was disturbed: %+v", s)
	}
	got.await(t, "the end of the task", func(e event) bool { return e.MessageID == "TaskEvent.1.0.TaskCompletedOK" })
	r.git(t, r.clone(), "push", "-q", "origin", "main", "racklet-metadata") // else the unit would stage what the repository says
	if err := killDaemon(r.state); err != nil {                             // a power cut between write and activation
		t.Fatal(err)
	}
	again()
	r.until(t, "unit-1", "running from slot A", func(s *unitStatus) bool { return s.Stage == "running" && s.BootSlot == "A" && !s.FallbackSlot })
	c = r.gofish(t, address, "alan")
	if v := r.inventory(t, c, "bmc-1-SlotA"); v.Version != nextVersion || v.Status.State != schemas.EnabledState || r.status(t, "unit-1").Release != nextVersion {
		t.Errorf("activated: %+v", v)
	}

	// A continuous override stays until it is disabled.
	if systems, err = c.Service.Systems(); err != nil || len(systems) != 1 {
		t.Fatal(err)
	}
	if err := systems[0].SetBoot(&schemas.Boot{BootSourceOverrideEnabled: schemas.ContinuousBootSourceOverrideEnabled, BootSourceOverrideTarget: schemas.UefiTargetBootSource, UefiTargetBootSourceOverride: "SlotB"}); err != nil {
		t.Fatal(err)
	}
	if _, err := systems[0].Reset(schemas.PowerCycleResetType); err != nil {
		t.Fatal(err)
	}
	r.until(t, "unit-1", "boot from slot B", func(s *unitStatus) bool { return s.State == "running" && s.BootSlot == "B" })
	if b := r.override(t, c); b.BootSourceOverrideEnabled != schemas.ContinuousBootSourceOverrideEnabled || b.UefiTargetBootSourceOverride != "SlotB" {
		t.Errorf("continuous: %+v", b)
	}
	if systems, err = c.Service.Systems(); err != nil { // its ETag has changed
		t.Fatal(err)
	}
	if err := systems[0].SetBoot(&schemas.Boot{BootSourceOverrideEnabled: schemas.DisabledBootSourceOverrideEnabled}); err != nil {
		t.Fatal(err)
	}
	if b := r.override(t, c); b.BootSourceOverrideEnabled != schemas.DisabledBootSourceOverrideEnabled {
		t.Errorf("disabled: %+v", b)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// gofish makes an account, chooses its password, and logs in with the service's key pinned.
func (r *rack) gofish(t *testing.T, address, name string) *gofish.APIClient {
	t.Helper()
	secret := strings.TrimSpace(string(r.racklet(t, "account", "add", name, "--role", "Administrator")))
	secret = secret[strings.LastIndexAny(secret, " \t\n")+1:]
	pem, err := os.ReadFile(filepath.Join(r.state, "redfish", "tls.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	pin := func(raw []byte) string {
		sum := sha256.Sum256(raw)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
		if pin(c.PeerCertificates[0].RawSubjectPublicKeyInfo) != pin(pair.Leaf.RawSubjectPublicKeyInfo) {
			return errors.New("another key than the pinned one")
		}
		return nil
	}}}
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr, Timeout: 5 * time.Minute}
	password := "correct horse battery " + name
	req, err := http.NewRequest(http.MethodPatch, "https://"+address+"/redfish/v1/AccountService/Accounts/"+name, strings.NewReader(fmt.Sprintf(`{"Password":%q}`, password)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(name, secret)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("choose a password: %s %s", resp.Status, b)
	}
	c, err := gofish.Connect(gofish.ClientConfig{Endpoint: "https://" + address, Username: name, Password: password, HTTPClient: client, NoModifyTransport: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rack) override(t *testing.T, c *gofish.APIClient) schemas.Boot {
	t.Helper()
	s, err := schemas.GetObject[schemas.ComputerSystem](c, "/redfish/v1/Systems/unit-1")
	if err != nil {
		t.Fatal(err)
	}
	return s.Boot
}

func (r *rack) inventory(t *testing.T, c *gofish.APIClient, id string) *schemas.SoftwareInventory {
	t.Helper()
	v, err := schemas.GetObject[schemas.SoftwareInventory](c, "/redfish/v1/UpdateService/FirmwareInventory/"+id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// slots is a fingerprint of both boot slots in a unit's flash, images and manifests.
func (r *rack) slots(t *testing.T) [32]byte {
	t.Helper()
	f, err := os.Open(filepath.Join(r.state, "sim", "slot-1", "flash.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, manifestB+(manifestB-manifestA))); err != nil || n < manifestB {
		t.Fatalf("%d bytes of flash: %v", n, err)
	}
	return [32]byte(h.Sum(nil))
}

// updateFiles has two owners sign a second release and makes update files of it: one whole, one with one signature.
func (r *rack) updateFiles(t *testing.T, next string) (good, short []byte) {
	t.Helper()
	spec, err := os.ReadFile(filepath.Join(next, "release.json"))
	if err != nil {
		t.Fatal(err)
	}
	var release struct {
		Boot struct{ Digest, SlotManifest string }
	}
	if err := json.Unmarshal(spec, &release); err != nil {
		t.Fatal(err)
	}
	object := "apiVersion: racklet.io/v1alpha1\nkind: Release\nmetadata:\n  name: v0-2-0\nspec: " + strings.ReplaceAll(strings.TrimSpace(string(spec)), "\n", "\n  ") + "\n"
	if err := os.WriteFile(filepath.Join(r.clone(), "rack", "releases", "v0-2-0.yaml"), []byte(object), 0o644); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(r.clone(), "rack", "units", "unit-1.yaml")
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, bytes.Replace(b, []byte("release: v0-1-0"), []byte("release: v0-2-0"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	r.git(t, r.clone(), "add", "-A")
	r.git(t, r.clone(), "commit", "-q", "-m", "release 0.2.0")
	for n := range 2 {
		r.racklet(t, "sign", r.clone(), "--key", filepath.Join(r.state, "keys", fmt.Sprintf("owner-%d.pem", n+1)), "--release", next)
	}
	name := strings.TrimPrefix(release.Boot.SlotManifest, "sha256:")
	signed, err := r.command(r.clone(), nil, "git", "show", "racklet-metadata:slots/"+name+".slot")
	if err != nil {
		t.Fatal(err)
	}
	l := oci.Layout{Dir: next}
	m, err := l.Manifest(digest.Digest(release.Boot.Digest))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := oci.Layer(m, "application/vnd.racklet.boot.image.v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := l.Read(layer.Digest, trust.MaxImageSize)
	if err != nil {
		t.Fatal(err)
	}
	doc, signatures, err := trust.SplitSigned(signed)
	if err != nil || len(signatures) < 2 {
		t.Fatalf("%d signatures: %v", len(signatures), err)
	}
	return append(bytes.Clone(signed), image...), append(trust.AppendSigned(doc, signatures[:1]), image...)
}

// begin pushes an update for the unit.
func begin(t *testing.T, c *gofish.APIClient, file []byte) *schemas.TaskMonitorInfo {
	t.Helper()
	service, err := c.Service.UpdateService()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.PostMultipart(service.MultipartHTTPPushURI, map[string]io.Reader{
		"UpdateParameters": strings.NewReader(`{"Targets":["/redfish/v1/Systems/unit-1"],"@Redfish.OperationApplyTime":"OnReset"}`), "UpdateFile": bytes.NewReader(file),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("push: %s", resp.Status)
	}
	m := schemas.ParseTaskMonitorInfo(c, resp)
	if m.Task == nil {
		t.Fatal("no task in the answer")
	}
	return m
}

// push pushes an update and waits until its task has ended.
func push(t *testing.T, c *gofish.APIClient, file []byte) *schemas.Task {
	t.Helper()
	m := begin(t, c, file)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := schemas.WaitForTaskMonitor(ctx, c, 200*time.Millisecond, m, nil)
	var refused *schemas.Error
	if err != nil && !errors.As(err, &refused) {
		t.Fatalf("wait for %s: %v", m.TaskMonitor, err)
	}
	if resp != nil {
		resp.Body.Close()
	}
	task, err := schemas.GetObject[schemas.Task](c, m.Task.ODataID)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

type event struct {
	MessageID string `json:"MessageId"`
	Message   string
}

// receiver takes the events of a subscription.
type receiver struct {
	*httptest.Server
	mu  sync.Mutex
	all []event
}

func newReceiver(t *testing.T) *receiver {
	r := new(receiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Events []event }
		if json.NewDecoder(req.Body).Decode(&body) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, body.Events...)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) await(t *testing.T, what string, ok func(event) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		r.mu.Lock()
		found := slices.ContainsFunc(r.all, ok)
		r.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no event of %s", what)
		}
	}
}
