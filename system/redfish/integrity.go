package redfish

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"reflect"

	"github.com/racklet/racklet/firmware/trust"
)

const (
	signedAction = "ComponentIntegrity.SPDMGetSignedMeasurements"
	signedInfo   = "SPDMGetSignedMeasurementsActionInfo"
)

// measurementIndexAll asks for all measurements (DSP0274, GET_MEASUREMENTS has it as 0xFF).
const measurementIndexAll = 255

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
		state, one := "Enabled", uri+"/"+bmcID(u)
		if s.absent(u) {
			state = "Absent"
		}
		o := object{
			"@odata.type": "#ComponentIntegrity.v1_3_2.ComponentIntegrity", "@odata.id": one, "Id": bmcID(u),
			"Name": "Evidence of " + bmcID(u), "ComponentIntegrityType": "OEM", "ComponentIntegrityTypeVersion": "1.0.0",
			"ComponentIntegrityEnabled": true, "TargetComponentURI": bmcURI(u), "Status": volatile{s.status(&u.controller, state, "OK")},
			"Links":   object{"ComponentsProtected": []object{ref(systemURI(u))}, "ComponentsProtected@odata.count": 1},
			"Actions": object{"#" + signedAction: object{"target": one + "/Actions/" + signedAction, "@Redfish.ActionInfo": one + "/" + signedInfo}},
			"Oem": object{"Racklet": object{
				"@odata.type": "#RackletComponentIntegrity.v1_0_0.Racklet", "Format": "racklet-evidence-v1", "SigningAlgorithm": "Ed25519",
				"Domain": trust.DomainEvidence,
			}},
		}
		if !u.quoted.IsZero() {
			o["LastUpdated"] = volatile{stamp(u.quoted)}
		}
		return o
	})})
	t.add(uri+"/*/"+signedInfo, resource{get: s.ofBMC(func(u *unit) object {
		return object{
			"@odata.type": "#ActionInfo.v1_5_0.ActionInfo", "@odata.id": uri + "/" + bmcID(u) + "/" + signedInfo, "Id": signedInfo, "Name": "Signed measurements",
			"Parameters": []object{
				{"Name": "Nonce", "Required": false, "DataType": "String", "AllowablePattern": "^[0-9a-fA-F]{64}$"},
				{"Name": "MeasurementIndices", "Required": false, "DataType": "NumberArray", "AllowableNumbers": []string{"255"}, "ArraySizeMaximum": 1, "ArraySizeMinimum": 1},
				{"Name": "SlotId", "Required": false, "DataType": "Number", "AllowableNumbers": []string{"0"}},
			},
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
	var nonce [32]byte
	rand.Read(nonce[:]) // as the standard has it; the answer tells which it was, but only a nonce of one's own proves that it is fresh
	only := func(want any, say string) field {
		return field{set: func(v any, name, _ string) *message {
			if reflect.DeepEqual(v, want) {
				return nil
			}
			m := msgActionValue(v, name, signedAction, []string{say})
			return &m
		}}
	}
	if !parameters(w, body, signedAction, map[string]field{
		"Nonce": {set: func(v any, name, _ string) *message {
			text, _ := v.(string)
			b, err := hex.DecodeString(text)
			if err != nil || len(b) != len(nonce) {
				m := msgActionFormat(v, name, signedAction, "32 random bytes as 64 hexadecimal digits")
				return &m
			}
			nonce = [32]byte(b)
			return nil
		}},
		"MeasurementIndices": only([]any{float64(measurementIndexAll)}, "255: all that there are"),
		"SlotId":             only(float64(0), "0"),
	}) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	evidence, err := s.conn.Evidence(ctx, u.eid, nonce)
	if err != nil {
		failController(w, bmcID(u), err)
		return
	}
	s.mu.Lock()
	u.quoted = s.clock.Now()
	s.mu.Unlock()
	s.write(w, r, http.StatusOK, object{ // the algorithms by their names in DSP0274
		"SignedMeasurements": base64.StdEncoding.EncodeToString(evidence), "Version": "1.0.0",
		"HashingAlgorithm": "TPM_ALG_SHA_256", "SigningAlgorithm": "EdDSA ed25519",
	})
}
