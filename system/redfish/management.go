package redfish

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/racklet/racklet/system/redfish/audit"
)

// The management API is a manager of its own: it has the network listener and the audit log.
const (
	apiURI                = root + "/Managers/api"
	auditURI              = apiURI + "/LogServices/Audit"
	httpsCertificatesURI  = apiURI + "/NetworkProtocol/HTTPS/Certificates"
	certificateServiceURI = root + "/CertificateService"
)

func (s *Service) addManagement(t *router) {
	fixed := func(uri string, get func() object) {
		t.add(uri, resource{get: func([]string) object { return get() }})
	}
	fixed(apiURI, s.apiManager)
	fixed(apiURI+"/NetworkProtocol", s.networkProtocol)
	fixed(apiURI+"/LogServices", func() object {
		return members("LogServiceCollection", apiURI+"/LogServices", "Logs", []string{"Audit"})
	})
	fixed(auditURI, func() object {
		status := enabled()
		if s.audit.Err() != nil {
			status["Health"] = "Critical"
		}
		return object{
			"@odata.type": "#LogService.v1_9_0.LogService", "@odata.id": auditURI, "Id": "Audit", "Name": "Who changed what",
			"LogEntryType": "OEM", "OverWritePolicy": "WrapsWhenFull", "MaxNumberOfRecords": audit.Recent, "ServiceEnabled": true, "LogPurposes": []string{"Security"},
			"DateTime": volatile{stamp(s.clock.Now())}, "DateTimeLocalOffset": "+00:00", "Status": volatile{status}, "Entries": ref(auditURI + "/Entries"),
		}
	})
	fixed(auditURI+"/Entries", func() object {
		entries := s.audit.Entries()
		list := make([]object, len(entries))
		for i := range entries {
			list[i] = auditEntry(&entries[i])
		}
		return object{
			"@odata.type": "#LogEntryCollection.LogEntryCollection", "@odata.id": auditURI + "/Entries", "Name": "Who changed what",
			"Members@odata.count": len(list), "Members": list,
		}
	})
	t.add(auditURI+"/Entries/*", resource{get: func(p []string) object {
		n, err := strconv.ParseUint(p[0], 10, 64)
		if err != nil {
			return nil
		}
		for _, e := range s.audit.Entries() {
			if e.Sequence == n && strconv.FormatUint(n, 10) == p[0] {
				return auditEntry(&e)
			}
		}
		return nil
	}})

	fixed(httpsCertificatesURI, func() object {
		return members("CertificateCollection", httpsCertificatesURI, "Certificate of the management API", []string{"1"})
	})
	t.add(httpsCertificatesURI+"/*", resource{get: func(p []string) object {
		if p[0] != "1" {
			return nil
		}
		return certificateObject(httpsCertificatesURI+"/1", "Certificate of the management API", s.identity.leaf(), s.identity.chain(), "Web")
	}})
	fixed(certificateServiceURI, func() object {
		action := func(name string) object {
			return object{"target": certificateServiceURI + "/Actions/CertificateService." + name}
		}
		return object{
			"@odata.type": "#CertificateService.v1_2_1.CertificateService", "@odata.id": certificateServiceURI, "Id": "CertificateService", "Name": "Certificates",
			"Actions": object{
				"#CertificateService.GenerateCSR": action("GenerateCSR"), "#CertificateService.ReplaceCertificate": action("ReplaceCertificate"),
			},
		}
	})
	t.add(certificateServiceURI+"/Actions/CertificateService.GenerateCSR", resource{post: s.postCSR})
	t.add(certificateServiceURI+"/Actions/CertificateService.ReplaceCertificate", resource{post: s.postReplace})
}

func (s *Service) apiManager() object {
	return object{
		"@odata.type": "#Manager.v1_24_0.Manager", "@odata.id": apiURI, "Id": "api", "Name": "Management API", "ManagerType": "Service",
		"Status": enabled(), "PowerState": "On", "FirmwareVersion": s.o.Version, "DateTime": volatile{stamp(s.clock.Now())}, "DateTimeLocalOffset": "+00:00",
		"LogServices": ref(apiURI + "/LogServices"), "NetworkProtocol": ref(apiURI + "/NetworkProtocol"),
		"Links": object{"ManagerForManagers": []object{ref(rmcURI)}, "ManagerInChassis": ref(rackURI)},
	}
}

func (s *Service) networkProtocol() object {
	https := object{"ProtocolEnabled": s.port != 0, "Certificates": ref(httpsCertificatesURI)}
	if s.port != 0 {
		https["Port"] = s.port
	}
	return object{
		"@odata.type": "#ManagerNetworkProtocol.v1_12_0.ManagerNetworkProtocol", "@odata.id": apiURI + "/NetworkProtocol",
		"Id": "NetworkProtocol", "Name": "Network protocols", "Status": enabled(), "HTTPS": https, "HTTP": object{"ProtocolEnabled": false},
	}
}

func auditEntry(e *audit.Entry) object {
	id := strconv.FormatUint(e.Sequence, 10)
	severity, who := "OK", e.Who
	if e.Status >= 400 {
		severity = "Warning"
	}
	if who == "" {
		who = "nobody"
	}
	text := fmt.Sprintf("%s (%s, from %s): %s %s: %d", who, e.How, e.From, e.Method, e.Target, e.Status)
	return object{
		"@odata.type": "#LogEntry.v1_21_0.LogEntry", "@odata.id": auditURI + "/Entries/" + id, "Id": id, "Name": "Change " + id,
		"EntryType": "Oem", "OemRecordFormat": "Racklet audit", "Created": stamp(e.Time), "Severity": severity, "Message": text, "Originator": who,
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletAudit.v1_0_0.Racklet", "Who": e.Who, "Role": e.Role, "How": e.How, "From": e.From, "Method": e.Method,
			"Target": e.Target, "What": e.What, "StatusCode": e.Status, "Result": e.Result,
		}},
	}
}

func identifier(n pkix.Name) object {
	o := object{}
	for name, v := range map[string][]string{"CommonName": {n.CommonName}, "Organization": n.Organization, "OrganizationalUnit": n.OrganizationalUnit,
		"Country": n.Country, "State": n.Province, "City": n.Locality} {
		if len(v) > 0 && v[0] != "" {
			o[name] = v[0]
		}
	}
	return o
}

var keyUsages = []struct {
	bit  x509.KeyUsage
	name string
}{
	{x509.KeyUsageDigitalSignature, "DigitalSignature"}, {x509.KeyUsageContentCommitment, "NonRepudiation"}, {x509.KeyUsageKeyEncipherment, "KeyEncipherment"},
	{x509.KeyUsageDataEncipherment, "DataEncipherment"}, {x509.KeyUsageKeyAgreement, "KeyAgreement"}, {x509.KeyUsageCertSign, "KeyCertSign"}, {x509.KeyUsageCRLSign, "CRLSigning"},
}

// pairs are bytes in hexadecimal with colons, as the Certificate schema wants them.
func pairs(b []byte) string {
	return strings.ReplaceAll(strings.ToUpper(fmt.Sprintf("% x", b)), " ", ":")
}

func certificateObject(uri, name string, c *x509.Certificate, text, usage string) object {
	sum := sha256.Sum256(c.Raw)
	uses := []string{}
	for _, u := range keyUsages {
		if c.KeyUsage&u.bit != 0 {
			uses = append(uses, u.name)
		}
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			uses = append(uses, "ServerAuthentication")
		case x509.ExtKeyUsageClientAuth:
			uses = append(uses, "ClientAuthentication")
		}
	}
	return object{
		"@odata.type": "#Certificate.v1_11_0.Certificate", "@odata.id": uri, "Id": uri[strings.LastIndexByte(uri, '/')+1:], "Name": name,
		"CertificateString": text, "CertificateType": "PEM", "CertificateUsageTypes": []string{usage},
		"Issuer": identifier(c.Issuer), "Subject": identifier(c.Subject), "KeyUsage": uses,
		"ValidNotBefore": stamp(c.NotBefore), "ValidNotAfter": stamp(c.NotAfter), "SerialNumber": pairs(c.SerialNumber.Bytes()),
		"Fingerprint": pairs(sum[:]), "FingerprintHashAlgorithm": "TPM_ALG_SHA256",
		"Oem": object{"Racklet": object{"@odata.type": "#RackletCertificate.v1_0_0.Racklet", "Pin": pinOf(c)}},
	}
}

// parameters applies those of an action and answers if something is wrong or missing.
func parameters(w http.ResponseWriter, body object, action string, known map[string]field, required ...string) bool {
	_, wrong := fields(body, object{}, known, "#")
	for _, name := range required {
		if _, ok := body[name]; !ok {
			wrong = append(wrong, msgActionMissing(name, action))
		}
	}
	for i := range wrong { // what is wrong with a property, said of a parameter
		m := &wrong[i]
		kind := strings.TrimPrefix(m.id, basePrefix+"PropertyValue")
		switch {
		case m.id == basePrefix+"PropertyUnknown":
			*m = msgActionUnknown(m.args[0], action)
		case kind != m.id && len(m.args) == 2 && slices.Contains([]string{"TypeError", "NotInList", "OutOfRange", "FormatError"}, kind):
			m.id = basePrefix + "ActionParameterValue" + kind
			m.text = strings.Replace(m.text, "for the property "+m.args[1], "for the parameter "+m.args[1]+" in the action "+action, 1)
			m.text = strings.Replace(m.text, "that the property can", "that the parameter can", 1)
			m.args = append(m.args, action)
		}
	}
	if len(wrong) > 0 {
		fail(w, http.StatusBadRequest, wrong...)
		return false
	}
	return true
}

func oneOf(allowed ...string) field { return setEnum(allowed, func(string) {}) }

func (s *Service) postCSR(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	const action = "CertificateService.GenerateCSR"
	t := &x509.CertificateRequest{}
	collection := ""
	short := func(f func(string)) field {
		return field{set: func(v any, name, pointer string) *message {
			text, ok := v.(string)
			if !ok || len(text) > 64 {
				m := msgActionFormat(v, name, action, "at most 64 characters")
				return &m
			}
			if text != "" {
				f(text)
			}
			return nil
		}}
	}
	link := field{sub: map[string]field{"@odata.id": setText(func(v string) { collection = v })}}
	if c, ok := body["CertificateCollection"].(map[string]any); ok { // fields leaves annotations out
		collection, _ = c["@odata.id"].(string)
	}
	if !parameters(w, body, action, map[string]field{
		"CommonName":            short(func(v string) { t.Subject.CommonName = v }),
		"Organization":          short(func(v string) { t.Subject.Organization = []string{v} }),
		"OrganizationalUnit":    short(func(v string) { t.Subject.OrganizationalUnit = []string{v} }),
		"City":                  short(func(v string) { t.Subject.Locality = []string{v} }),
		"State":                 short(func(v string) { t.Subject.Province = []string{v} }),
		"Country":               short(func(v string) { t.Subject.Country = []string{v} }),
		"KeyPairAlgorithm":      oneOf("TPM_ALG_ECDSA"),
		"KeyCurveId":            oneOf("TPM_ECC_NIST_P256"),
		"CertificateCollection": link,
		"AlternativeNames": {set: func(v any, name, pointer string) *message {
			list, ok := v.([]any)
			wrong := msgActionFormat(v, name, action, "at most 16 DNS names and addresses")
			if !ok || len(list) > 16 {
				return &wrong
			}
			for _, e := range list {
				text, _ := e.(string)
				text = strings.TrimPrefix(strings.TrimPrefix(text, "DNS:"), "IP:")
				if ip := net.ParseIP(text); ip != nil {
					t.IPAddresses = append(t.IPAddresses, ip)
				} else if hostName(text) {
					t.DNSNames = append(t.DNSNames, text)
				} else {
					return &wrong
				}
			}
			return nil
		}},
	}, "CertificateCollection", "CommonName") {
		return
	}
	if strings.TrimSuffix(collection, "/") != httpsCertificatesURI {
		fail(w, http.StatusBadRequest, msgActionValue(collection, "CertificateCollection", action, []string{httpsCertificatesURI}))
		return
	}
	if cn := t.Subject.CommonName; len(t.DNSNames)+len(t.IPAddresses) == 0 {
		if ip := net.ParseIP(cn); ip != nil {
			t.IPAddresses = []net.IP{ip}
		} else if hostName(cn) {
			t.DNSNames = []string{cn}
		}
	}
	text, err := s.identity.request(t)
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	s.write(w, r, http.StatusOK, object{"CertificateCollection": ref(httpsCertificatesURI), "CSRString": text})
}

// hostName says whether a text can be a DNS name, a wildcard among them.
func hostName(text string) bool {
	text = strings.TrimPrefix(text, "*.")
	return text != "" && len(text) <= 253 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

func (s *Service) postReplace(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	const action = "CertificateService.ReplaceCertificate"
	text, at := "", ""
	if c, ok := body["CertificateUri"].(map[string]any); ok {
		at, _ = c["@odata.id"].(string)
	}
	if !parameters(w, body, action, map[string]field{
		"CertificateString": setText(func(v string) { text = v }),
		"CertificateType":   oneOf("PEM", "PEMchain"),
		"CertificateUri":    {sub: map[string]field{}},
	}, "CertificateString", "CertificateType", "CertificateUri") {
		return
	}
	if at != httpsCertificatesURI+"/1" {
		fail(w, http.StatusBadRequest, msgActionValue(at, "CertificateUri", action, []string{httpsCertificatesURI + "/1"}))
		return
	}
	switch err := s.identity.replace(text); err {
	case nil:
		w.Header().Set("Location", httpsCertificatesURI+"/1")
		w.WriteHeader(http.StatusNoContent)
	case errNoCertificate, errOtherKey, errNotServer, errChain:
		m := msgActionFormat(text, "CertificateString", action, "a certificate for the key of this service")
		m.resolution = strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + "."
		fail(w, http.StatusBadRequest, m)
	default:
		s.failAccess(w, r, err)
	}
}
