package redfish_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/system/redfish/access"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew")

const openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// scraped returns the lines of a scrape.
func (s *service) scraped() []string {
	s.Helper()
	resp, b := s.do("GET", "/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(kind, openMetrics) {
		s.Fatalf("metrics: %d %s", resp.StatusCode, kind)
	}
	return strings.Split(string(b), "\n")
}

// TestMetrics holds a scrape against the rules of OpenMetrics 1.0.
func TestMetrics(t *testing.T) {
	s := start(t, description(2, "On"))
	lines := s.scraped()
	if n := len(lines); n < 100 || lines[n-2] != "# EOF" || lines[n-1] != "" {
		t.Fatalf("a scrape of %d lines ends with %q", n, lines[max(n-2, 0):])
	}
	var name, kind, help, unit string
	seen := map[string]bool{}
	for _, l := range lines[:len(lines)-2] {
		if v, ok := strings.CutPrefix(l, "# HELP "); ok {
			name, help, _ = strings.Cut(v, " ")
			kind, unit = "", ""
			if seen[name] || help == "" {
				t.Errorf("%s: again, or without help", name)
			}
			seen[name] = true
			continue
		}
		if v, ok := strings.CutPrefix(l, "# TYPE "+name+" "); ok {
			kind = v
			continue
		}
		if v, ok := strings.CutPrefix(l, "# UNIT "+name+" "); ok {
			unit = v
			continue
		}
		sample, _, _ := strings.Cut(l, " ")
		sample, _, _ = strings.Cut(sample, "{")
		suffix, own := strings.CutPrefix(sample, name)
		allowed := map[string][]string{"counter": {"_total"}, "histogram": {"_bucket", "_sum", "_count"}, "gauge": {""}, "summary": {"", "_sum", "_count"}}[kind]
		if !own || !slices.Contains(allowed, suffix) || unit != "" && !strings.HasSuffix(name, "_"+unit) {
			t.Errorf("%s in the %s %s (%s)", l, kind, name, unit)
		}
	}
	for _, want := range []string{
		`racklet_rack_energy_joules_total{rack="lab"} `, `racklet_unit_energy_joules_total{unit="unit-2"} `, `racklet_fan_speed_rpm{fan="fan-1",rack="lab"} 1800.0`,
		`racklet_unit_stage{stage="running",unit="unit-1"} 1.0`, `racklet_unit_temperature_celsius{unit="unit-1"} 31.5`, "process_resident_memory_bytes ",
	} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("no %s", want)
		}
	}
	for accept, kind := range map[string]string{"": openMetrics, "*/*": "text/plain", "text/plain;version=0.0.4": "text/plain", "application/openmetrics-text": "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": openMetrics, "nonsense": "text/plain"} {
		resp, _ := s.do("GET", "/metrics", "", "Accept", accept)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(got, kind) {
			t.Errorf("Accept %q: %d %s", accept, resp.StatusCode, got)
		}
	}
}

// TestMetricsLint lets promtool judge the names.
func TestMetricsLint(t *testing.T) {
	tool := racktest.Tool(t, "promtool")
	s := start(t, description(1, "On"))
	_, b := s.do("GET", "/metrics", "", "Accept", "text/plain")
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestMetricsOfHostileUnit: what units and controllers make up does not become series.
func TestMetricsOfHostileUnit(t *testing.T) {
	s := start(t, description(1, "On"))
	names := func() (n int) {
		for _, l := range s.scraped() {
			if strings.HasPrefix(l, "racklet_") && !strings.HasPrefix(l, "racklet_http_") {
				n++
			}
		}
		return n
	}
	forge := func(i int) {
		text := fmt.Sprintf("evil-%d\"} 1", i)
		s.rack.BMCs[1].Record(wire.EventKind(100+i), uint16(i), text, wire.MakeFailure(text, text, text))
		s.rack.BMCs[1].SetReport(wire.Report{Release: wire.MakeText32(text)})
		s.rack.BMCs[1].Update(func(st *wire.UnitState) { st.Failure = wire.MakeFailure(text, "", "") })
	}
	counted := func() string {
		for _, l := range s.scraped() {
			if v, ok := strings.CutPrefix(l, `racklet_unit_verification_failures_total{reason="other",unit="unit-1"} `); ok {
				return v
			}
		}
		return ""
	}
	forge(0)
	s.until("the first is counted", func() bool { return counted() == "1.0" })
	before := names()
	for i := range 20 {
		forge(i)
	}
	s.until("all are counted", func() bool { return counted() == "21.0" })
	if after := names(); after > before+2 { // kinds that the wire knows
		t.Errorf("%d series, then %d", before, after)
	}
	for _, l := range s.scraped() {
		if strings.Contains(l, "evil") {
			t.Errorf("%s", l)
		}
	}
}

// TestMetricsAccess: /metrics asks for a login, and of those who have one a role that may read.
func TestMetricsAccess(t *testing.T) {
	n := listen(t, "", nil)
	n.account("prometheus", access.ReadOnly)
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, 401}, {[]string{"Authorization", "Basic " + basic("prometheus", "wrong")}, 401}, {[]string{"X-Auth-Token", "made up"}, 401},
		{[]string{"Authorization", "Basic " + basic("prometheus", password)}, 200},
	} {
		if resp, b := n.do(n.client, "GET", "/metrics", "", c.header...); resp.StatusCode != c.want || (resp.StatusCode != 200) == bytes.Contains(b, []byte("racklet_")) {
			t.Errorf("%q: %d %.80s", c.header, resp.StatusCode, b)
		}
	}
	token, _ := n.login("prometheus", password)
	if resp, _ := n.do(n.client, "POST", "/metrics", strings.Repeat("x", 1<<20), "X-Auth-Token", token, "Content-Type", "text/plain"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
	_, b := n.do(n.client, "GET", "/metrics", "", "X-Auth-Token", token)
	if want := regexp.MustCompile(`racklet_login_failures_total\{how="basic"\} 1(\.0)?\n`); !want.Match(b) {
		t.Error("the refused login is not counted")
	}
}

// TestMetricsDocument holds that docs/metrics.md lists every metric as it is.
func TestMetricsDocument(t *testing.T) {
	s := listen(t, "", nil).service
	table := "| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n"
	for _, m := range s.Metrics() {
		labels := "`" + strings.ReplaceAll(m.Labels, ", ", "`, `") + "`"
		if m.Labels == "" {
			labels = ""
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, m.Unit, labels, m.Help)
	}
	name := filepath.Join("..", "..", "docs", "metrics.md")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	doc := regexp.MustCompile(`(?ms)^\| Metric \|.*?\n\n`)
	switch {
	case *update:
		if err := os.WriteFile(name, doc.ReplaceAll(b, []byte(table+"\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	case string(doc.Find(b)) != table+"\n":
		t.Errorf("the table of docs/metrics.md is out of date: go test -run TestMetricsDocument ./system/redfish -update")
	}
}
