package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A system is what the controller reads of a Redfish ComputerSystem; docs/redfish.md describes the
// Oem properties.
type system struct {
	ID         string `json:"Id"`
	PowerState string
	Oem        struct {
		Racklet struct {
			Slot                                             int
			State, Stage, Reason, Expected, Seen             string
			BootSlot, Commit, Release, Address, DesiredPower string
			Stale, EvidenceVoid                              bool
			Present, Available                               bool
			BootCount                                        int64
			AgeSeconds, Watts, EnergyJoules                  float64
			TemperatureCelsius, RailSeconds                  float64
		}
	}

	confirmed bool // see confirmedOff
}

// chassis is the rack as a whole.
type chassis struct {
	Status struct{ State string }
	Oem    struct {
		Racklet struct {
			Watts, EnergyJoules, InletCelsius, BudgetWatts, AgeSeconds float64
		}
	}
}

// confirmedOff reports whether the hardware itself says that the unit has no power: its BMC, which
// answers and reads the rail, or the rack controller, which sees that the slot is empty. A BMC that is
// silent confirms nothing.
func (s *system) confirmedOff(c *chassis) bool {
	o := &s.Oem.Racklet
	if !o.Present {
		return c.Status.State == "Enabled"
	}
	return o.Available && s.PowerState == "Off"
}

type redfishClient struct{ http *http.Client }

func newRedfish(socket string) *redfishClient {
	return &redfishClient{&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
}

func (c *redfishClient) do(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://redfish"+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var e struct{ Error struct{ Message string } }
		if json.Unmarshal(b, &e) == nil && e.Error.Message != "" {
			return fmt.Errorf("%s %s: %s", method, path, e.Error.Message)
		}
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (c *redfishClient) systems(ctx context.Context) ([]system, error) {
	var all struct{ Members []system }
	err := c.do(ctx, http.MethodGet, "/redfish/v1/Systems?$expand=.", nil, &all)
	return all.Members, err
}

func (c *redfishClient) chassis(ctx context.Context) (*chassis, error) {
	s := new(chassis)
	return s, c.do(ctx, http.MethodGet, "/redfish/v1/Chassis/rack", nil, s)
}

// reset asks for a change of power: On, GracefulShutdown.
func (c *redfishClient) reset(ctx context.Context, unit, kind string) error {
	return c.do(ctx, http.MethodPost, "/redfish/v1/Systems/"+url.PathEscape(unit)+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": kind}, nil)
}
