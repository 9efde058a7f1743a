package redfish_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/system/redfish"
	"github.com/racklet/racklet/system/redfish/access"
)

// monitoring is where the dashboard and the alert rules are.
var monitoring = filepath.Join("..", "..", "examples", "monitoring")

// TestAlertRules lets promtool fire each rule by its fault, and holds that none is left out.
func TestAlertRules(t *testing.T) {
	tool := racktest.Tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = monitoring
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
	b, err := os.ReadFile(filepath.Join(monitoring, "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range alertRules(t) {
		if !strings.Contains(string(b), "\n      - alertname: "+r.Alert+"\n") {
			t.Errorf("%s has no test", r.Alert)
		}
	}
}

type alertRule struct{ Alert, Expr string }

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(monitoring, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(b, &file); err != nil || len(file.Groups) != 1 || len(file.Groups[0].Rules) < 20 {
		t.Fatalf("alerts.yml: %v", err)
	}
	return file.Groups[0].Rules
}

// dashboardQueries are the expressions of the dashboard with its variables filled in.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(monitoring, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var all []string
	fill := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1m", "$instance", ".*", "$unit", ".*")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, fill.Replace(target.Expr))
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d expressions", len(all))
	}
	return all
}

// prometheus runs a real one, configured by the file that is shipped, before a rack, and answers queries.
type prometheus struct {
	*testing.T
	url string
}

func scrape(t *testing.T, address string, certificate []byte) *prometheus {
	t.Helper()
	tool := racktest.Tool(t, "prometheus")
	dir := t.TempDir()
	b, err := os.ReadFile(filepath.Join(monitoring, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	shipped := string(b)
	for _, change := range [][2]string{{"127.0.0.1:8443", address}, {"scrape_interval: 15s", "scrape_interval: 250ms"}, {"evaluation_interval: 15s", "evaluation_interval: 250ms"}} {
		if !strings.Contains(shipped, change[0]) {
			t.Fatalf("prometheus.yml has no %q", change[0])
		}
		shipped = strings.Replace(shipped, change[0], change[1], 1)
	}
	rules, err := os.ReadFile(filepath.Join(monitoring, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"prometheus.yml": []byte(shipped), "alerts.yml": rules, "rack.pem": certificate, "password": []byte(password)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0", "--log.format=json")
	cmd.Dir = dir
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listens := make(chan string, 1)
	var said strings.Builder
	var wg sync.WaitGroup
	wg.Go(func() {
		own := regexp.MustCompile(`"address":"(127\.0\.0\.1:[1-9]\d*)"`)
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
			if m := own.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case listens <- m[1]:
				default:
				}
			}
		}
		close(listens)
	})
	t.Cleanup(func() {
		cmd.Process.Kill()
		wg.Wait()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	select {
	case at, ok := <-listens:
		if !ok {
			t.Fatal("Prometheus ended")
		}
		return &prometheus{t, "http://" + at}
	case <-time.After(wait):
		t.Fatal("Prometheus does not listen")
	}
	return nil
}

// count is how many series an expression has now.
func (p *prometheus) count(expr string) int {
	p.Helper()
	resp, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0 // it starts
	}
	defer resp.Body.Close()
	var v struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
		return 0
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Status != "success" {
		p.Fatalf("%s: %s %v", expr, b, err)
	}
	return len(v.Data.Result)
}

func basic(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
}

// TestMonitoring scrapes a rack with a real Prometheus: every expression of the dashboard has data, no alert has any while all is
// well, and each has some when its fault is there.
func TestMonitoring(t *testing.T) {
	racktest.Tool(t, "prometheus")
	r := wiretest.NewRack(2)
	o := description(2, "On")
	o.Line, o.PasswordCost, o.Hosts = r.Line(), access.Cost{Time: 1, Memory: 8}, []string{"127.0.0.1"}
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listening, hangUp := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- s.ServeTLS(listening, l) }()
	n := &network{T: t, service: s, owner: s.Local("owner"), address: l.Addr().String()}
	n.client = n.dial(&tls.Config{InsecureSkipVerify: true})
	t.Cleanup(func() {
		hangUp()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
		r.Close()
	})
	n.account("prometheus", access.ReadOnly)
	conn, err := tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
	conn.Close()
	p := scrape(t, n.address, certificate)
	until := func(what string, f func() bool) {
		t.Helper()
		began := time.Now()
		defer func() { t.Log(time.Since(began), what) }()
		for end := time.Now().Add(2 * wait); !f(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("timed out: %s", what)
			}
		}
	}
	for _, u := range o.Units {
		on := "/redfish/v1/Systems/" + u.Metadata.Name
		until(u.Metadata.Name+" answers", func() bool { return strings.Contains(n.own("GET", on, "").Body.String(), `"Available":true`) })
		if w := n.own("POST", on+"/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); w.Code != 204 {
			t.Fatalf("switch %s on: %d %s", u.Metadata.Name, w.Code, w.Body)
		}
	}
	until("units run", func() bool { return p.count(`racklet_unit_stage{stage="running"} == 1`) == 2 })

	rules := alertRules(t)
	for _, rule := range rules {
		if c := p.count(rule.Expr); c != 0 {
			t.Errorf("%s: %d series while all is well", rule.Alert, c)
		}
	}

	// A boot with measurable stages, a report, a failure: what the dashboard draws.
	one, two := r.BMCs[1], r.BMCs[2]
	one.SetReport(wire.Report{Release: wire.MakeText32("0.1.0"), UptimeSeconds: 7, CPUPermille: 125, MemoryUsedKiB: 100 << 10, MemoryTotalKiB: 1 << 20})
	for _, stage := range []wire.Stage{wire.StagePowered, wire.StageMedium, wire.StageSource, wire.StageOS, wire.StageRunning} {
		one.Record(wire.EventStage, uint16(stage), "", wire.Failure{})
		time.Sleep(5 * time.Millisecond) // each stage takes a time that can be seen
	}
	failure := wire.MakeFailure("slot.signature", "sha256:aa", "sha256:bb")
	two.Record(wire.EventFailure, 0, "boot refused", failure)
	one.Update(func(st *wire.UnitState) {
		st.MilliCelsius, st.BootCount = 91_000, st.BootCount+9
		st.Flags |= wire.FlagSensorLost | wire.FlagStale | wire.FlagReportStale | wire.FlagFallbackSlot | wire.FlagEvidenceVoid | wire.FlagStoreWorn
	})
	one.SetSlots([2]wire.SlotInfo{{State: wire.SlotValid}, {State: wire.SlotInvalid}})
	two.Update(func(st *wire.UnitState) {
		st.Failure, st.Stage, st.State = failure, wire.StageFailed, wire.StateFaulted
	})
	r.Update(func(st *wire.RackState) {
		st.Flags |= wire.RackFailsafe | wire.RackThrottling | wire.RackOverBudget | wire.RackSensorLost
		st.Fans[0].Flags |= wire.FanStalled
		st.FrameErrors += 100_000
	})
	for i := range 13 { // fewer than what makes the service refuse logins from this address
		n.do(n.client, "GET", "/redfish/v1/Systems", "", "Authorization", "Basic "+basic(fmt.Sprintf("stranger-%d", i), "no"))
	}
	later := []string{"RackletUnitSilent", "RackletTrayMissing", "RackletAPIErrors", "RackletRMCSilent", "RackletDown"}
	fires := func(alert string) {
		t.Helper()
		i := slices.IndexFunc(rules, func(r alertRule) bool { return r.Alert == alert })
		until(alert+" has data", func() bool { return p.count(rules[i].Expr) > 0 })
	}
	for _, rule := range rules {
		if !slices.Contains(later, rule.Alert) {
			fires(rule.Alert)
		}
	}
	until("the rule without a wait fires", func() bool {
		return p.count(`ALERTS{alertname="RackletVerificationFailed",alertstate="firing",unit="unit-2",reason="slot.signature"}`) == 1
	})
	for _, expr := range dashboardQueries(t) {
		until("the dashboard's "+expr, func() bool { return p.count(expr) > 0 })
	}
	two.SetFaults(wiretest.Faults{Silent: true})
	fires("RackletUnitSilent")
	for range 8 {
		if w := n.own("POST", "/redfish/v1/Systems/unit-2/Actions/ComputerSystem.Reset", `{"ResetType":"ForceOff"}`); w.Code != 503 {
			t.Errorf("order to a silent BMC: %d", w.Code)
		}
	}
	fires("RackletAPIErrors")
	r.Update(func(st *wire.RackState) { st.PresentMask &^= 1 << 2 })
	fires("RackletTrayMissing")
	r.SetFaults(wiretest.Faults{Silent: true})
	fires("RackletRMCSilent")
	hangUp()
	fires("RackletDown")
}
