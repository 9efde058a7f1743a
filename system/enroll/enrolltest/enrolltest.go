// Package enrolltest is a rack as a verifier sees it: a management API before
// BMCs whose registers a test may set, and units that ask. It proves nothing
// about real firmware; package e2e joins the verifier to that.
package enrolltest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll/api"
)

// A Rack is BMCs, by unit, behind a management API.
type Rack struct {
	BMCs map[string]*BMC

	mu     sync.Mutex
	events map[chan string]bool
}

// NewRack has units unit-1 to unit-n, all off.
func NewRack(n int) *Rack {
	r := &Rack{BMCs: map[string]*BMC{}, events: map[chan string]bool{}}
	for slot := range n {
		r.BMCs[fmt.Sprint("unit-", slot+1)] = NewBMC(uint8(slot + 1))
	}
	return r
}

// Followed is how many follow the events.
func (r *Rack) Followed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// Handler is the part of the management API that a verifier needs.
func (r *Rack) Handler() http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any) { json.NewEncoder(w).Encode(v) }
	mux.HandleFunc("GET /redfish/v1/ComponentIntegrity", func(w http.ResponseWriter, req *http.Request) {
		var members []any
		for _, m := range r.BMCs {
			members = append(members, map[string]string{"@odata.id": fmt.Sprintf("/redfish/v1/ComponentIntegrity/bmc-%d", m.Slot)})
		}
		reply(w, map[string]any{"Members": members})
	})
	mux.HandleFunc("GET /redfish/v1/ComponentIntegrity/{id}", func(w http.ResponseWriter, req *http.Request) {
		id := req.PathValue("id")
		reply(w, map[string]any{"Links": map[string]any{"ComponentsProtected": []any{map[string]string{"@odata.id": "/redfish/v1/Systems/unit-" + id[4:]}}},
			"Actions": map[string]any{"#ComponentIntegrity.SPDMGetSignedMeasurements": map[string]string{"target": "/redfish/v1/ComponentIntegrity/" + id + "/Actions/quote"}}})
	})
	mux.HandleFunc("POST /redfish/v1/ComponentIntegrity/{id}/Actions/quote", func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Nonce string }
		json.NewDecoder(req.Body).Decode(&body)
		nonce, err := hex.DecodeString(body.Nonce)
		if err != nil || len(nonce) != 32 {
			w.WriteHeader(400)
			return
		}
		signed, ok := r.BMCs["unit-"+req.PathValue("id")[4:]].quote([32]byte(nonce))
		if !ok {
			w.WriteHeader(503)
			return
		}
		reply(w, map[string]string{"SignedMeasurements": base64.StdEncoding.EncodeToString(signed)})
	})
	mux.HandleFunc("GET /redfish/v1/EventService/SSE", func(w http.ResponseWriter, req *http.Request) {
		c := make(chan string, 64)
		r.mu.Lock()
		r.events[c] = true
		r.mu.Unlock()
		defer func() { r.mu.Lock(); delete(r.events, c); r.mu.Unlock() }()
		io.WriteString(w, ": hello\n\n")
		for {
			http.NewResponseController(w).Flush()
			select {
			case <-req.Context().Done():
				return
			case e := <-c:
				fmt.Fprintf(w, "id: 1\nevent: Event\ndata: %s\n\n", e)
			}
		}
	})
	return mux
}

// Event is one of a controller, as the management API words it.
func (r *Rack) Event(source, kind string, code, slot int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.events {
		c <- fmt.Sprintf(`{"Events":[{"Oem":{"Racklet":{"Source":%q,"Kind":%q,"Code":%d,"Slot":%d}}}]}`, source, kind, code, slot)
	}
}

// BMC is a BMC as the verifier sees it: registers that nobody can set back.
type BMC struct {
	mu       sync.Mutex
	Slot     uint8
	Device   ed25519.PrivateKey
	Evidence trust.Evidence
	Silent   bool
	Alter    func([]byte) []byte // of the signed answer
	Asked    int
}

// NewBMC is one that is off.
func NewBMC(slot uint8) *BMC {
	b := &BMC{Slot: slot, Device: ed25519.NewKeyFromSeed([]byte(strings.Repeat(string('A'+rune(slot)), 32)))}
	b.Off()
	return b
}

// Off is a rail that went off. The caller is inside Change.
func (b *BMC) Off() {
	b.Evidence.Flags = trust.EvidenceEmulated
	b.Evidence.Registers = nil
	for _, i := range []uint8{0, 1, 2, 3, 8, 9, 10, 11} {
		kind := trust.Observed
		if i >= 8 {
			kind = trust.Asserted
		}
		b.Evidence.Registers = append(b.Evidence.Registers, trust.Register{Index: i, Kind: kind})
	}
}

// Register is one of its registers.
func (b *BMC) Register(index uint8) *trust.Register {
	for i := range b.Evidence.Registers {
		if b.Evidence.Registers[i].Index == index {
			return &b.Evidence.Registers[i]
		}
	}
	return nil
}

// Boot is a rail cycle and a boot of a release out of the state with a floor
// statement of this digest.
func (b *BMC) Boot(floor rack.Digest, sequence uint64, security uint32, r rack.ReleaseSpec) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Off()
	b.Evidence.Slot = b.Slot
	b.Evidence.BootCount++
	ext := func(index uint8, d rack.Digest) {
		sum, err := d.Sum()
		if err != nil {
			panic(err)
		}
		b.Register(index).Extend(sum)
	}
	ext(trust.RegisterSlot, r.Boot.SlotManifest)
	ext(trust.RegisterMedium, rack.SHA256([]byte("chunk")))
	ext(trust.RegisterRail, rack.SHA256([]byte(trust.RailOn)))
	ext(trust.RegisterTree, floor)
	ext(trust.RegisterOS, r.OS.Digest)
	ext(trust.RegisterRootHash, "sha256:"+rack.Digest(r.OS.RootHash))
	kernel, initramfs := r.Boot.Kernel, rack.Digest("-")
	if r.Boot.Kernel != r.OS.Kernel {
		kernel, initramfs = r.OS.Kernel, r.OS.Initramfs
	}
	ext(trust.RegisterHandover, rack.SHA256(fmt.Appendf(nil, "kernel %s\ninitramfs %s\ncmdline %s\n", kernel, initramfs, r.Boot.CommandLine)))
	b.Evidence.Floors = trust.Floors{Sequence: sequence, RootVersion: 1, BootSecurity: security}
}

// Change does something to the BMC.
func (b *BMC) Change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *BMC) quote(nonce [32]byte) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Asked++
	if b.Silent {
		return nil, false
	}
	b.Evidence.Nonce = nonce
	signed, err := trust.AppendSignedEvidence(nil, b.Device, &b.Evidence)
	if err != nil {
		panic(err)
	}
	if b.Alter != nil {
		signed = b.Alter(signed)
	}
	return signed, true
}

// Digest is that of a text.
func Digest(s string) rack.Digest { return rack.SHA256([]byte(s)) }

// Release is a release whose kernel is the slot's; kexec tells otherwise.
func Release(version string, security uint32) rack.ReleaseSpec {
	kernel := Digest("kernel " + version)
	return rack.ReleaseSpec{Version: version, SecurityVersion: security,
		Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: Digest("boot " + version), SlotManifest: Digest("slot " + version), Kernel: kernel, CommandLine: "console=ttyAMA0"},
		OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: Digest("os " + version), Kernel: kernel, RootHash: Digest("root " + version).Hex()}}
}

// Applicant is a unit that asks.
type Applicant struct {
	Key       *ecdsa.PrivateKey
	WireGuard *ecdh.PrivateKey
	Request   api.IdentityRequest
	Register  [32]byte // for the key register
}

// NewApplicant makes the keys and the request of a unit.
func NewApplicant(t testing.TB, unit string) *Applicant {
	t.Helper()
	a := new(Applicant)
	var err error
	if a.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if a.WireGuard, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.request(t, unit)
	return a
}

// Claim is a as it asks with the WireGuard key of somebody else.
func (a *Applicant) Claim(t testing.TB, wireguard *ecdh.PrivateKey) *Applicant {
	t.Helper()
	claim := &Applicant{Key: a.Key, WireGuard: wireguard}
	claim.request(t, a.Request.Unit)
	return claim
}

func (a *Applicant) request(t testing.TB, unit string) {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, a.Key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(a.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	a.Register = api.KeyRegister(spki, [32]byte(a.WireGuard.PublicKey().Bytes()))
	a.Request = api.IdentityRequest{Unit: unit, CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		WireGuardKey: base64.StdEncoding.EncodeToString(a.WireGuard.PublicKey().Bytes())}
	sum := sha256.Sum256(api.Statement(unit, a.Request.WireGuardKey, csr))
	if a.Request.Signature, err = ecdsa.SignASN1(rand.Reader, a.Key, sum[:]); err != nil {
		t.Fatal(err)
	}
}

// KeyPEM is a private key as a file holds it.
func KeyPEM(k *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
