package rack

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
)

// FieldError says what is wrong with one field of an object.
type FieldError struct {
	Path string // such as "spec.curve[2].duty"
	Text string // what is wrong and what is allowed
}

func (e *FieldError) Error() string { return e.Path + ": " + e.Text }

// Fields are all the FieldErrors within an error that a Validate method returned.
func Fields(err error) (all []*FieldError) {
	var one *FieldError
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			all = append(all, Fields(err)...)
		}
	} else if errors.As(err, &one) {
		all = append(all, one)
	}
	return all
}

// A checker collects what is wrong with an object.
type checker []error

func (c *checker) failf(path, format string, args ...any) {
	*c = append(*c, &FieldError{path, fmt.Sprintf(format, args...)})
}

func (c *checker) err() error { return errors.Join(*c...) }

// number checks a count against its bounds.
func (c *checker) number(path string, v, min, max int) {
	if v < min || v > max {
		c.failf(path, "%d is out of range: want %d to %d", v, min, max)
	}
}

func (c *checker) oneOf(path, v string, allowed ...string) {
	for _, a := range allowed {
		if v == a {
			return
		}
	}
	c.failf(path, "%q is not allowed: want %s", v, list(allowed))
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// MaxName is the longest name of an object in bytes; it fits a DNS label and
// the fixed fields of firmware/wire.
const MaxName = 32

// ValidName reports whether s can name an object: a DNS label (RFC 1123, 2.1)
// of at most MaxName bytes.
func ValidName(s string) bool {
	if s == "" || len(s) > MaxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (c *checker) name(path, v string) {
	if !ValidName(v) {
		c.failf(path, "%q is not a name: want 1 to %d lower-case letters, digits and inner hyphens", v, MaxName)
	}
}

func (c *checker) meta(t TypeMeta, kind string, m Metadata) {
	c.oneOf("apiVersion", t.APIVersion, APIVersion)
	c.oneOf("kind", t.Kind, kind)
	c.name("metadata.name", m.Name)
}

func (c *checker) digest(path string, d Digest) {
	if _, err := ParseDigest(string(d)); err != nil {
		c.failf(path, "%v", err)
	}
}

// ParseUUID reads a UUID in its usual form of lower-case hexadecimal digits
// and hyphens (RFC 9562, 4).
func ParseUUID(s string) (id [16]byte, err error) {
	bad := fmt.Errorf("bad UUID %q: want lower-case hexadecimal digits such as \"6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a\"", s)
	if len(s) != 36 {
		return id, bad
	}
	n := 0
	for i := 0; i < len(s); {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return id, bad
			}
			i++
			continue
		}
		hi, lo := strings.IndexByte(hexDigits, s[i]), strings.IndexByte(hexDigits, s[i+1])
		if hi < 0 || lo < 0 {
			return id, bad
		}
		id[n] = byte(hi<<4 | lo)
		n, i = n+1, i+2
	}
	return id, nil
}

const hexDigits = "0123456789abcdef"

// The sizes of a rack in slots, the management unit's slot included.
const (
	MinSlots = 3
	MaxSlots = 10
)

// Validate checks the rack by itself; what it refers to is checked where all
// objects are at hand, in rack/manifest.
func (r *Rack) Validate() error {
	var c checker
	c.meta(r.TypeMeta, KindRack, r.Metadata)
	s := &r.Spec
	if _, err := ParseUUID(s.ID); err != nil {
		c.failf("spec.id", "%v", err)
	}
	c.number("spec.slots", int(s.Slots), MinSlots, MaxSlots)
	if s.ManagementSlot != 0 && int(s.ManagementSlot) > int(s.Slots) {
		c.failf("spec.managementSlot", "slot %d does not exist: want 1 to %d", s.ManagementSlot, s.Slots)
	}
	if s.Power.Supply <= 0 {
		c.failf("spec.power.supply", "must be more than 0W")
	}
	if s.Power.Reserve >= s.Power.Supply {
		c.failf("spec.power.reserve", "%v leaves nothing of the supply's %v: want less", s.Power.Reserve, s.Power.Supply)
	}
	subnet, err := netip.ParsePrefix(s.Network.Subnet)
	switch {
	case err != nil || !subnet.Addr().Is4() || subnet.Bits() < 16 || subnet.Bits() > 28:
		c.failf("spec.network.subnet", "%q is not a subnet: want an IPv4 prefix of 16 to 28 bits such as 10.77.0.0/24", s.Network.Subnet)
	case subnet != subnet.Masked():
		c.failf("spec.network.subnet", "%s has bits set behind the prefix: want %s", subnet, subnet.Masked())
	default:
		gw, err := netip.ParseAddr(s.Network.Gateway)
		if err != nil || !subnet.Contains(gw) || gw == subnet.Addr() || gw == broadcast(subnet) {
			c.failf("spec.network.gateway", "%q is not an address of the subnet: want one within %s such as %s", s.Network.Gateway, subnet, subnet.Addr().Next())
		}
	}
	c.name("spec.thermalPolicy", s.ThermalPolicy)
	c.name("spec.powerPolicy", s.PowerPolicy)
	c.mirrors("spec.mirrors", s.Mirrors)
	if k := &s.Kubernetes; !k.zero() {
		c.kubernetes(k, subnet)
	}
	return c.err()
}

// zero reports whether the rack has no Kubernetes.
func (k *RackKubernetes) zero() bool {
	return k.Placement == "" && k.Version == "" && k.Pods == "" && k.Services == "" && len(k.Features) == 0
}

// kubernetes checks the rack's Kubernetes beside the rack's own subnet.
func (c *checker) kubernetes(k *RackKubernetes, subnet netip.Prefix) {
	const at = "spec.kubernetes."
	c.oneOf(at+"placement", k.Placement, PlacementHost)
	ranges := []netip.Prefix{subnet, TunnelRange}
	words := []string{"spec.network.subnet", "the range of the tunnels"}
	for _, r := range []struct {
		name, text, example string
		min, max            int
	}{{"pods", k.Pods, "10.42.0.0/16", 16, 16}, {"services", k.Services, "10.96.0.0/16", 12, 24}} {
		p, err := netip.ParsePrefix(r.text)
		if err != nil || !p.Addr().Is4() || p.Bits() < r.min || p.Bits() > r.max || p != p.Masked() {
			c.failf(at+r.name, "%q is not such a range: want an IPv4 prefix of %d to %d bits such as %s", r.text, r.min, r.max, r.example)
			continue
		}
		for i, other := range ranges {
			if other.IsValid() && p.Overlaps(other) {
				c.failf(at+r.name, "%v overlaps %s, %v", p, words[i], other)
			}
		}
		ranges, words = append(ranges, p), append(words, at+r.name)
	}
	for i, f := range k.Features {
		name, value, _ := strings.Cut(f, "=")
		if name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" || value != "true" && value != "false" {
			c.failf(fmt.Sprintf("%sfeatures[%d]", at, i), "%q is not a feature gate: want NAME=true or NAME=false", f)
		}
	}
}

// TunnelRange holds the addresses of the encrypted network between units: 10.78.0.N is the unit in
// slot N, 10.78.0.254 the management unit.
var TunnelRange = netip.MustParsePrefix("10.78.0.0/24")

// mirrors checks a list of mirrors.
func (c *checker) mirrors(path string, list []Mirror) {
	if len(list) > maxMirrors {
		c.failf(path, "%d mirrors: at most %d", len(list), maxMirrors)
	}
	for i, m := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		if !validURL(m.URL, "https") {
			c.failf(path+".url", "%q is not allowed: want https:// and a host", m.URL)
		}
		if len(m.TLSPins) == 0 || len(m.TLSPins) > maxPins {
			c.failf(path+".tlsPins", "%d pins: want 1 to %d; two allow a change of key", len(m.TLSPins), maxPins)
		}
		for j, pin := range m.TLSPins {
			c.pin(fmt.Sprintf("%s.tlsPins[%d]", path, j), pin)
		}
	}
}

// enrolment checks where a unit asks for its identity.
func (c *checker) enrolment(e *Enrolment) {
	if !validURL(e.URL, "https") {
		c.failf("enrolment.url", "%q is not allowed: want https:// and a host", e.URL)
	}
	if len(e.TLSPins) < 2 || len(e.TLSPins) > maxPins {
		c.failf("enrolment.tlsPins", "%d pins: want 2 to %d, one of them of a spare key, so that the verifier's key can change", len(e.TLSPins), maxPins)
	}
	for i, pin := range e.TLSPins {
		c.pin(fmt.Sprintf("enrolment.tlsPins[%d]", i), pin)
	}
}

const (
	maxMirrors = 8
	maxPins    = 8
)

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

// validURL reports whether s is an address with one of the schemes, a host,
// and neither password, query nor fragment.
func validURL(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return false
	}
	if _, secret := u.User.Password(); secret {
		return false
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme {
			return true
		}
	}
	return false
}

// pinPrefix starts a pin, in the form that curl's --pinnedpubkey takes.
const pinPrefix = "sha256//"

// ParsePin reads a pinned public key: sha256// and the base64 of 32 bytes.
func ParsePin(s string) (sum [32]byte, err error) {
	digits, ok := strings.CutPrefix(s, pinPrefix)
	b, err := base64.StdEncoding.Strict().DecodeString(digits)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("bad pin %q: want sha256// and the base64 of the public key's SHA-256", s)
	}
	return [32]byte(b), nil
}

// Pin writes the SHA-256 of a SubjectPublicKeyInfo as a pin.
func Pin(sum [32]byte) string { return pinPrefix + base64.StdEncoding.EncodeToString(sum[:]) }

func (c *checker) pin(path, v string) {
	if _, err := ParsePin(v); err != nil {
		c.failf(path, "%v", err)
	}
}

// Validate checks the unit by itself.
func (u *ComputeUnit) Validate() error {
	var c checker
	c.meta(u.TypeMeta, KindComputeUnit, u.Metadata)
	s := &u.Spec
	c.number("spec.slot", int(s.Slot), 1, MaxSlots)
	c.oneOf("spec.platform", s.Platform, PlatformVirt, PlatformRPi4, PlatformRPi5)
	c.name("spec.release", s.Release)
	c.oneOf("spec.power", s.Power, PowerOn, PowerOff)
	if s.MemoryMiB != 0 {
		c.number("spec.memoryMiB", s.MemoryMiB, 256, 65536)
	}
	if s.CPUs != 0 {
		c.number("spec.cpus", s.CPUs, 1, 16)
	}
	return c.err()
}

// MaxVersion is the longest version of a release in bytes, the room that
// firmware/wire and firmware/trust have for it.
const MaxVersion = 32

// Validate checks the release by itself.
func (r *Release) Validate() error {
	var c checker
	c.meta(r.TypeMeta, KindRelease, r.Metadata)
	for _, err := range Fields(r.Spec.Validate()) {
		c.failf("spec."+err.Path, "%s", err.Text)
	}
	return c.err()
}

// Validate checks what a build wrote (release.json) or a Release carries.
func (s *ReleaseSpec) Validate() error {
	var c checker
	if s.Version == "" || len(s.Version) > MaxVersion || strings.ContainsFunc(s.Version, notVersion) {
		c.failf("version", "%q is not a version: want 1 to %d letters, digits, dots, hyphens, underscores or plus signs", s.Version, MaxVersion)
	}
	c.artifact("boot.artifact", s.Boot.Artifact)
	c.digest("boot.digest", s.Boot.Digest)
	c.digest("boot.slotManifest", s.Boot.SlotManifest)
	c.digest("boot.kernel", s.Boot.Kernel)
	if l := s.Boot.CommandLine; len(l) > MaxCommandLine || strings.TrimSpace(l) != l || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.failf("boot.commandLine", "want one line of at most %d printable ASCII characters", MaxCommandLine)
	}
	c.artifact("os.artifact", s.OS.Artifact)
	c.digest("os.digest", s.OS.Digest)
	c.digest("os.kernel", s.OS.Kernel)
	if s.OS.Initramfs != "" {
		c.digest("os.initramfs", s.OS.Initramfs)
	}
	if f := s.OS.Flavour; f != "" && f != FlavourMinimal && f != FlavourNode {
		c.failf("os.flavour", "%q is not a flavour: want %s or %s", f, FlavourMinimal, FlavourNode)
	}
	if !isHash(s.OS.RootHash) {
		c.failf("os.rootHash", "%q is not a root hash: want 64 lower-case hexadecimal digits", s.OS.RootHash)
	}
	return c.err()
}

// MaxCommandLine is the most bytes that a kernel command line may have: what
// arm64 takes (Linux, arch/arm64/include/uapi/asm/setup.h, COMMAND_LINE_SIZE).
const MaxCommandLine = 2048

func notVersion(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_+", r)
}

// artifact checks the name of an OCI repository (distribution-spec v1.1,
// Pulling manifests, <name>), a little stricter: lower case, no double separators.
func (c *checker) artifact(path, v string) {
	ok := len(v) <= 128
	for _, part := range strings.Split(v, "/") {
		ok = ok && part != "" && strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") == "" &&
			!strings.ContainsAny(part[:1]+part[len(part)-1:], "._-")
	}
	if !ok {
		c.failf(path, "%q is not an OCI repository name: want such as racklet/boot", v)
	}
}

// MaxCurve is the most points of a fan curve, the room that an RMC has for it.
const MaxCurve = 8

// Validate checks the policy: a curve that cannot cool is refused.
func (p *ThermalPolicy) Validate() error {
	var c checker
	c.meta(p.TypeMeta, KindThermalPolicy, p.Metadata)
	s := &p.Spec
	if len(s.Curve) == 0 || len(s.Curve) > MaxCurve {
		c.failf("spec.curve", "%d points: want 1 to %d", len(s.Curve), MaxCurve)
	}
	for i, point := range s.Curve {
		path := fmt.Sprintf("spec.curve[%d]", i)
		c.number(path+".duty", point.Duty, 0, 100)
		if point.Temperature < -40 || point.Temperature > 125 {
			c.failf(path+".temperature", "%v is out of range: want -40C to 125C", point.Temperature)
		}
		if i == 0 {
			continue
		}
		if last := s.Curve[i-1]; point.Temperature <= last.Temperature {
			c.failf(path+".temperature", "%v does not rise above the point before, %v", point.Temperature, last.Temperature)
		} else if point.Duty < last.Duty {
			c.failf(path+".duty", "%d percent is less than at the cooler point before, %d percent: a curve never falls", point.Duty, last.Duty)
		}
	}
	if n := len(s.Curve); n > 0 {
		if s.Curve[n-1].Duty != 100 {
			c.failf(fmt.Sprintf("spec.curve[%d].duty", n-1), "the last point has %d percent: want 100", s.Curve[n-1].Duty)
		}
		if s.Curve[0].Temperature >= s.Throttle {
			c.failf("spec.curve[0].temperature", "the first point, %v, is not below throttle, %v: fans come before throttling", s.Curve[0].Temperature, s.Throttle)
		}
		if s.Curve[n-1].Temperature > s.Shutdown {
			c.failf(fmt.Sprintf("spec.curve[%d].temperature", n-1), "%v lies above shutdown, %v: fans would never reach full speed", s.Curve[n-1].Temperature, s.Shutdown)
		}
	}
	if s.Shutdown > 125 {
		c.failf("spec.shutdown", "%v is out of range: want at most 125C", s.Shutdown)
	}
	if s.Throttle >= s.Shutdown {
		c.failf("spec.throttle", "%v is not below shutdown, %v", s.Throttle, s.Shutdown)
	}
	if s.Hysteresis < 0 || s.Hysteresis > 20 {
		c.failf("spec.hysteresis", "%v is out of range: want 0C to 20C", s.Hysteresis)
	}
	return c.err()
}

// Validate checks the policy by itself.
func (p *PowerPolicy) Validate() error {
	var c checker
	c.meta(p.TypeMeta, KindPowerPolicy, p.Metadata)
	s := &p.Spec
	if s.Budget <= 0 {
		c.failf("spec.budget", "must be more than 0W")
	}
	if s.UnitCap <= 0 || s.UnitCap > s.Budget {
		c.failf("spec.unitCap", "%v is out of range: want more than 0W and at most the budget, %v", s.UnitCap, s.Budget)
	}
	if s.Stagger < 0 || s.Stagger > Duration(60e9) {
		c.failf("spec.stagger", "%v is out of range: want 0s to 60s", s.Stagger)
	}
	if s.GracefulOff < 0 || s.GracefulOff > Duration(600e9) {
		c.failf("spec.gracefulOff", "%v is out of range: want at most 10m", s.GracefulOff)
	}
	return c.err()
}

// Validate checks the form of a repository's address, refs and pins. A
// repository over HTTPS must have TLS pins, one over SSH host keys.
func (r *Repository) Validate() error {
	var c checker
	if !validURL(r.URL, "https", "ssh") {
		c.failf("url", "%q is not allowed: want https:// or ssh:// and a host, without password", r.URL)
	}
	for _, ref := range []struct{ path, v string }{{"ref", r.Ref}, {"metadataRef", r.MetadataRef}} {
		if !validRef(ref.v) {
			c.failf(ref.path, "%q is not a branch or tag: want refs/heads/… or refs/tags/…", ref.v)
		}
	}
	if r.Ref == r.MetadataRef {
		c.failf("metadataRef", "%q is the ref itself: metadata has a ref of its own", r.MetadataRef)
	}
	ssh := strings.HasPrefix(r.URL, "ssh:")
	if ssh && len(r.SSHHostKeys) == 0 {
		c.failf("sshHostKeys", "an ssh:// repository needs at least one")
	}
	if !ssh && len(r.TLSPins) == 0 {
		c.failf("tlsPins", "an https:// repository needs at least one")
	}
	if len(r.TLSPins) > maxPins || len(r.SSHHostKeys) > maxPins {
		c.failf("tlsPins", "%d pins and %d host keys: at most %d of each", len(r.TLSPins), len(r.SSHHostKeys), maxPins)
	}
	for i, pin := range r.TLSPins {
		c.pin(fmt.Sprintf("tlsPins[%d]", i), pin)
	}
	for i, key := range r.SSHHostKeys {
		f := strings.Fields(key)
		if len(f) < 2 || strings.ContainsAny(key, "\r\n") || !validBase64(f[1]) {
			c.failf(fmt.Sprintf("sshHostKeys[%d]", i), "%q is not a host key: want such as ssh-ed25519 AAAA…", key)
		}
	}
	return c.err()
}

func validBase64(s string) bool {
	_, err := base64.StdEncoding.DecodeString(s)
	return err == nil
}

// validRef is git-check-ref-format(1), narrowed to what needs no quoting anywhere.
func validRef(s string) bool {
	name, ok := strings.CutPrefix(s, "refs/heads/")
	if !ok {
		name, ok = strings.CutPrefix(s, "refs/tags/")
	}
	if !ok || len(s) > 128 || strings.Contains(s, "..") {
		return false
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".") ||
			strings.HasSuffix(part, ".lock") || strings.ContainsFunc(part, func(r rune) bool { return r != '/' && notVersion(r) }) {
			return false
		}
	}
	return true
}

// Validate checks what a BMC is to be provisioned with. Unlike
// Repository.Validate it asks for pins in pairs, because a provisioned BMC
// with a single pin locks its unit out when the server's key changes.
func (b *BootConfig) Validate() error {
	var c checker
	if _, err := ParseUUID(b.RackID); err != nil {
		c.failf("rackID", "%v", err)
	}
	c.name("unit", b.Unit)
	c.number("slot", int(b.Slot), 1, MaxSlots)
	for _, err := range Fields(b.Repository.Validate()) {
		c.failf("repository."+err.Path, "%s", err.Text)
	}
	if len(b.Repository.TLSPins) == 1 {
		c.failf("repository.tlsPins", "one pin: want two, the second of a spare key, so that the server's key can change")
	}
	if len(b.Repository.SSHHostKeys) == 1 {
		c.failf("repository.sshHostKeys", "one host key: want two, the second of a spare key, so that the server's key can change")
	}
	c.mirrors("mirrors", b.Mirrors)
	if !json.Valid(b.TUFRoot) || len(b.TUFRoot) < 2 {
		c.failf("tufRoot", "want the JSON of a signed TUF root")
	}
	if e := b.Enrolment; e != nil {
		c.enrolment(e)
	}
	return c.err()
}

// strictJSON decodes one JSON value without unknown fields or trailing bytes.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more bytes after the value")
	}
	return nil
}
