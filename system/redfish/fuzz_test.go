package redfish_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/system/redfish"
)

// fuzzService answers requests without sockets.
type fuzzService struct{ handler http.Handler }

func newFuzzService(f *testing.F) *fuzzService {
	r := wiretest.NewRack(1)
	o := description(1, "Off")
	o.Line = r.Line()
	s, err := redfish.New(o)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		<-done
		r.Close()
	})
	return &fuzzService{s.Local("fuzzer")}
}

// try sends a request: the answer has a status of HTTP, JSON in it, and errors explain themselves.
func (h *fuzzService) try(t *testing.T, method, target, body string) {
	u, err := url.ParseRequestURI(target)
	if err != nil || u.Host != "" || strings.HasSuffix(u.Path, "/SSE") || strings.HasSuffix(u.Path, "/SSE/") || strings.HasSuffix(u.Path, "/$metadata") {
		return
	}
	req, err := http.NewRequest(method, "http://rack", strings.NewReader(body))
	if err != nil {
		return
	}
	req.URL.Path, req.URL.RawPath, req.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, req)
	if w.Code == http.StatusUpgradeRequired || w.Code == http.StatusNoContent || method == "HEAD" || w.Body.Len() == 0 {
		return // a console without WebSocket; a reset
	}
	var o map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil && !strings.Contains(u.Path, "/Console") {
		t.Fatalf("%s %s: %d %v in %s", method, target, w.Code, err, w.Body)
	}
	if w.Code >= 500 && w.Code != 501 && w.Code != 503 {
		t.Errorf("%s %s %q: %d %s", method, target, body, w.Code, w.Body)
	}
}
