package redfish_test

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire/wiretest"
)

type identityOf struct{ Manufacturer, Model, PartNumber, SerialNumber, Version *string }

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func (i identityOf) String() string {
	return text(i.Manufacturer) + "|" + text(i.Model) + "|" + text(i.PartNumber) + "|" + text(i.SerialNumber) + "|" + text(i.Version)
}

// TestIdentity: chassis and systems are what their boards' EEPROMs say; without one they say nothing.
func TestIdentity(t *testing.T) {
	s := running(t, 2)
	is := func(uri, want string) {
		t.Helper()
		s.until(uri+" is "+want, func() bool {
			var i identityOf
			s.get(uri, &i)
			return i.String() == want
		})
	}
	is("/redfish/v1/Chassis/rack", "Acme|Fake board|FK-1|FAKE00|C")
	is("/redfish/v1/Chassis/tray-1", "Acme|Fake board|FK-1|FAKE01|C")
	is("/redfish/v1/Systems/unit-2", "Acme|Fake board|FK-1|FAKE02|-")
}

func TestNoIdentity(t *testing.T) {
	s := start(t, description(1, "Off"), func(r *wiretest.Rack) { r.BMCs[1].SetIdentity(nil) })
	s.until("the rack's own board is known", func() bool {
		var i identityOf
		s.get("/redfish/v1/Chassis/rack", &i)
		return text(i.SerialNumber) == "FAKE00"
	})
	for uri, want := range map[string]string{"/redfish/v1/Chassis/tray-1": "-|-|-|-|-", "/redfish/v1/Systems/unit-1": "-|virt|-|-|-"} {
		var i identityOf
		if s.get(uri, &i); i.String() != want {
			t.Errorf("%s: %v, want %s", uri, i, want)
		}
	}
}
