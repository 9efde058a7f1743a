package redfish

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"

	"github.com/racklet/racklet/firmware/trust"
)

const signedAction = "ComponentIntegrity.SPDMGetSignedMeasurements"

// addIntegrity adds what a verifier asks for evidence. The BMCs have no SPDM
// responder yet: the action of that name returns their first form of evidence (package
// trust, Evidence), over the caller's nonce and signed by the device key, base64-encoded.
func (s *Service) addIntegrity(t *router) {
	uri := root + "/ComponentIntegrity"
	t.add(uri, resource{get: func([]string) object {
		var ids []string
		for _, u := range s.units {
			ids = append(ids, bmcID(u))
		}
		return members("ComponentIntegrityCollection", uri, "Evidence of the BMCs", ids)
	}})
	t.add(uri+"/*", resource{get: s.ofBMC(func(u *unit) object {
		state := "Enabled"
		if s.absent(u) {
			state = "Absent"
		}
		return object{
			"@odata.type": "#ComponentIntegrity.v1_3_2.ComponentIntegrity", "@odata.id": uri + "/" + bmcID(u), "Id": bmcID(u),
			"Name": "Evidence of " + bmcID(u), "ComponentIntegrityType": "OEM", "ComponentIntegrityTypeVersion": "1.0.0",
			"ComponentIntegrityEnabled": true, "TargetComponentURI": bmcURI(u), "Status": s.status(&u.controller, state, "OK"),
			"Links":   object{"ComponentsProtected": []object{ref(systemURI(u))}},
			"Actions": object{"#" + signedAction: object{"target": uri + "/" + bmcID(u) + "/Actions/" + signedAction}},
			"Oem": object{"Racklet": object{
				"@odata.type": "#RackletComponentIntegrity.v1_0_0.Racklet", "Format": "racklet-evidence-v1", "SigningAlgorithm": "Ed25519",
				"Domain": trust.DomainEvidence,
			}},
		}
	})})
	t.add(uri+"/*/Actions/"+signedAction, resource{post: s.postEvidence})
}

func (s *Service) ofBMC(get func(*unit) object) func([]string) object {
	return func(p []string) object {
		if u := s.byBMC(p[0]); u != nil {
			return get(u)
		}
		return nil
	}
}

func (s *Service) byBMC(id string) *unit {
	for _, u := range s.units {
		if bmcID(u) == id {
			return u
		}
	}
	return nil
}

func (s *Service) postEvidence(w http.ResponseWriter, r *http.Request, p []string, body object) {
	u := s.byBMC(p[0])
	if u == nil {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	for k := range body {
		if k != "Nonce" {
			fail(w, http.StatusBadRequest, msgActionUnknown(k, signedAction))
			return
		}
	}
	v, ok := body["Nonce"]
	if !ok { // the standard lets the service choose; evidence over a nonce that the caller did not choose proves nothing
		fail(w, http.StatusBadRequest, msgActionMissing("Nonce", signedAction))
		return
	}
	text, _ := v.(string)
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		fail(w, http.StatusBadRequest, msgActionFormat(v, "Nonce", signedAction, "32 random bytes as 64 hexadecimal digits"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	evidence, err := s.conn.Evidence(ctx, u.eid, [32]byte(b))
	if err != nil {
		failController(w, bmcID(u), err)
		return
	}
	s.write(w, r, http.StatusOK, object{
		"SignedMeasurements": base64.StdEncoding.EncodeToString(evidence), "Version": "1.0.0",
		"HashingAlgorithm": "SHA-256", "SigningAlgorithm": "Ed25519",
	})
}
