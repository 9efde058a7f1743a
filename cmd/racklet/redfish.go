package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// errNoRack means that no rack serves the state directory: it was never
// started, or was stopped.
var errNoRack = errors.New("no rack is running here")

// A redfishClient speaks Redfish (DSP0266) to the rack's management API, over
// its Unix socket or over the network. It knows no more than any other client could.
type redfishClient struct {
	http  *http.Client
	base  string // https://HOST:PORT, or localBase
	token string // of a session, on the network
}

// localBase stands for a rack at the other end of a Unix socket.
const localBase = "http://rack"

// dialRedfish returns a client for the socket. Nothing is connected yet.
func dialRedfish(socket string) *redfishClient {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &redfishClient{
		base: localBase,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			MaxIdleConns: 8,
		}},
	}
}

// A redfishError is what the service said of a request it refused.
type redfishError struct {
	Status     int
	Message    string
	Resolution string
}

func (e *redfishError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the management API answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return strings.TrimSuffix(e.Message, ".")
}

// request makes a request to the management API.
func (c *redfishClient) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("OData-Version", "4.0")
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	return req, nil
}

func (c *redfishClient) do(ctx context.Context, method, path string, body, into any) error {
	_, err := c.exchange(ctx, method, path, body, into)
	return err
}

// exchange sends a body as JSON, decodes the answer and returns its headers.
func (c *redfishClient) exchange(ctx context.Context, method, path string, body, into any) (http.Header, error) {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	return c.send(ctx, method, path, "application/json", encoded, into)
}

// send sends a body of some kind, decodes the answer and returns its headers.
func (c *redfishClient) send(ctx context.Context, method, path, kind string, body []byte, into any) (http.Header, error) {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, c.refused(resp.StatusCode, b)
	}
	if into == nil || len(b) == 0 {
		return resp.Header, nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	return resp.Header, nil
}

// refused is the error of an answer. A session that has ended is told with its cure.
func (c *redfishClient) refused(status int, b []byte) error {
	err := parseRedfishError(status, b)
	if status == http.StatusUnauthorized && c.token != "" {
		return hint(fmt.Errorf("the session at %s has ended", c.base), "log in again: racklet login --rack %s --user NAME", c.base)
	}
	return err
}

// explain turns a missing or dead socket into errNoRack.
func (c *redfishClient) explain(err error) error {
	if c.base != localBase {
		return c.explainRemote(err)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNoRack
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("ask the management API: %w", err)
}

func parseRedfishError(status int, b []byte) error {
	var body struct {
		Error struct {
			Message string `json:"message"`
			Info    []struct {
				Message    string
				Resolution string
			} `json:"@Message.ExtendedInfo"`
		} `json:"error"`
	}
	e := &redfishError{Status: status}
	if json.Unmarshal(b, &body) == nil {
		e.Message = body.Error.Message
		if len(body.Error.Info) > 0 {
			e.Message, e.Resolution = body.Error.Info[0].Message, body.Error.Info[0].Resolution
		}
	}
	return e
}

func (c *redfishClient) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

func (c *redfishClient) post(ctx context.Context, path string, body any) error {
	return c.do(ctx, http.MethodPost, path, body, nil)
}

func (c *redfishClient) patch(ctx context.Context, path string, body any) error {
	return c.do(ctx, http.MethodPatch, path, body, nil)
}

// link is a Redfish reference.
type link struct {
	ID string `json:"@odata.id"`
}

// collection is a Redfish resource collection.
type collection struct {
	Members []link
}
