package enroll

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

// errSilent says that no evidence could be had: nothing is wrong with the
// unit, and nothing is known of it.
var errSilent = errors.New("no answer from the BMC")

// A rackAPI is the rack's Redfish service, the only way to the BMCs.
type rackAPI struct {
	http *http.Client
	base string // without a slash at its end

	mu        sync.Mutex
	component map[string]string // URI of the action that quotes, by unit
}

const quoteLimit = 15 * time.Second

// quote asks the BMC of a unit for signed measurements over the nonce.
func (a *rackAPI) quote(ctx context.Context, unit string, nonce [32]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, quoteLimit)
	defer cancel()
	target, err := a.action(ctx, unit)
	if err != nil {
		return nil, err
	}
	var answer struct{ SignedMeasurements string }
	body, err := json.Marshal(map[string]string{"Nonce": fmt.Sprintf("%x", nonce)})
	if err != nil {
		return nil, err
	}
	if err := a.do(ctx, http.MethodPost, target, body, &answer); err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(answer.SignedMeasurements)
	if err != nil {
		return nil, fmt.Errorf("%w: signed measurements in another encoding: %w", errSilent, err)
	}
	return b, nil
}

// action finds the component that protects a unit (DSP0266, ComponentIntegrity).
func (a *rackAPI) action(ctx context.Context, unit string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if target := a.component[unit]; target != "" {
		return target, nil
	}
	var all struct {
		Members []struct {
			ID string `json:"@odata.id"`
		}
	}
	if err := a.do(ctx, http.MethodGet, "/redfish/v1/ComponentIntegrity", nil, &all); err != nil {
		return "", err
	}
	for _, m := range all.Members {
		var c struct {
			Links struct {
				ComponentsProtected []struct {
					ID string `json:"@odata.id"`
				}
			}
			Actions struct {
				Quote struct {
					Target string `json:"target"`
				} `json:"#ComponentIntegrity.SPDMGetSignedMeasurements"`
			}
		}
		if err := a.do(ctx, http.MethodGet, m.ID, nil, &c); err != nil {
			return "", err
		}
		for _, p := range c.Links.ComponentsProtected {
			if name, err := url.PathUnescape(path.Base(p.ID)); err == nil && c.Actions.Quote.Target != "" {
				a.component[name] = c.Actions.Quote.Target
			}
		}
	}
	if target := a.component[unit]; target != "" {
		return target, nil
	}
	return "", fmt.Errorf("%w: no component protects unit %s", errSilent, unit)
}

// do makes one request. Whatever keeps an answer from coming is errSilent.
func (a *rackAPI) do(ctx context.Context, method, uri string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.base+uri, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("OData-Version", "4.0")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errSilent, err)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%w: %s %s: %s", errSilent, method, uri, resp.Status)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %s %s: %w", errSilent, method, uri, err)
	}
	return nil
}

// A happening is an event of a controller that bears on evidence.
type happening struct {
	unit string // whose BMC says it; "" where slot says it
	slot uint8
	kind string // firmware/wire, EventKind
	code uint16
}

// follow reads the event stream until it ends, and calls connected once it is open.
func (a *rackAPI) follow(ctx context.Context, connected func(), tell func(happening)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/redfish/v1/EventService/SSE", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("event stream: %s", resp.Status)
	}
	connected()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 256<<10)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			for _, h := range parseEvent([]byte(data)) {
				tell(h)
			}
		}
	}
	return errors.Join(errors.New("the event stream ended"), lines.Err())
}

// parseEvent reads one Event resource. What it cannot read says nothing.
func parseEvent(data []byte) (all []happening) {
	var e struct {
		Events []struct {
			Oem struct {
				Racklet struct {
					Source, Kind string
					Code         uint16
					Slot         uint8
				}
			}
		}
	}
	if json.Unmarshal(data, &e) != nil {
		return nil
	}
	for _, one := range e.Events {
		if r := one.Oem.Racklet; r.Kind != "" {
			all = append(all, happening{r.Source, r.Slot, r.Kind, r.Code})
		}
	}
	return all
}
