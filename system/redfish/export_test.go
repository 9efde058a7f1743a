package redfish

import (
	"io"
	"net/http"
	"slices"
)

// Route is a form of URI and the methods that it knows.
type Route struct {
	Form    string
	Methods []string
}

// Routes lists all forms of URI.
func (s *Service) Routes() (all []Route) {
	for _, routes := range s.routes.byLength {
		for _, r := range routes {
			v := Route{Form: r.resource.form}
			for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodDelete} {
				if r.resource.allows(m) {
					v.Methods = append(v.Methods, m)
				}
			}
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b Route) int {
		if a.Form < b.Form {
			return -1
		}
		return 1
	})
	return all
}

// Forms is the table that says what lives at each form of URI.
func Forms() map[string]string { return forms }

// Unlinked are resources to which no reference leads, but a URI in a property.
var Unlinked = []string{rackletRegistryURI, privilegeRegistryURI, root + "/Systems/unit-1/ResetActionInfo", rmcURI + "/ResetActionInfo", aggregationURI + "/ResetActionInfo",
	aggregatesURI + "/1/ResetActionInfo", distributionURI + "/Outlets/slot-1/PowerControlActionInfo", root + "/ComponentIntegrity/bmc-1/" + signedInfo}

// AddUnlisted adds a resource that the table of privileges does not know.
func (s *Service) AddUnlisted(uri string) {
	s.routes.add(uri, resource{get: func([]string) object { return object{"@odata.id": uri} }})
}

// ReadImage reads an update file and returns what to write: the signed manifest and the image.
func ReadImage(r io.Reader) (signed, data []byte, err error) {
	i, err := readImage(r)
	if err != nil {
		return nil, nil, err
	}
	return i.signed, i.data, nil
}
