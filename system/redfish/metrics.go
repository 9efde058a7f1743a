package redfish

import (
	"bytes"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

// metricsURI is where Prometheus looks if nobody tells it otherwise.
const metricsURI = "/metrics"

// sameScrape is how long one encoding serves all who ask: many scrapers cost as much as one.
const sameScrape = 100 * time.Millisecond

// meters are what the service counts itself, and the registry of all metrics. Whatever a controller or a unit
// says becomes a label only if it is a word of a list of ours: a hostile unit cannot make series.
type meters struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec   // of HTTP
	latency     *prometheus.HistogramVec // of HTTP, streams excepted
	refused     *prometheus.CounterVec   // logins
	events      *prometheus.CounterVec
	failures    *prometheus.CounterVec
	stages      *prometheus.HistogramVec
	connections atomic.Int64

	mu      sync.Mutex
	at      time.Time
	format  expfmt.Format
	encoded []byte
}

func newMeters(s *Service) *meters {
	m := &meters{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m.requests = counter("racklet_http_requests_total", "HTTP requests answered, by the entity of the privilege registry that was asked.", "resource", "method", "code")
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "racklet_http_request_seconds", Help: "Time to answer HTTP requests, without consoles and event streams.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method"})
	m.refused = counter("racklet_login_failures_total", "Logins that were refused.", "how")
	m.events = counter("racklet_events_total", "Events that controllers logged since the service started, and notes of the service about them.", "kind", "severity")
	m.failures = counter("racklet_unit_verification_failures_total", "Checks that failed on a unit since the service started, by their name.", "unit", "reason")
	m.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "racklet_boot_stage_seconds", Help: "How long units took for the stages of their boots, since the service started.",
		Buckets: []float64{.1, .25, .5, 1, 2, 4, 8, 15, 30, 60, 120, 300},
	}, []string{"stage"})
	for _, how := range []string{"session", "basic"} { // a series that begins with the first attack shows no increase
		m.refused.WithLabelValues(how)
	}
	m.registry.MustRegister(m.requests, m.latency, m.refused, m.events, m.failures, m.stages, hardware{s},
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// methods that have a label of their own.
var methods = map[string]string{}

func init() {
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		methods[m] = m
	}
}

// request counts one that was answered. Form is that of its URI, "" if there is nothing.
func (m *meters) request(form, method string, status int, took time.Duration) {
	resource, name := forms[form], methods[method]
	if resource == "" {
		resource = "none"
	}
	if name == "" {
		name = "other"
	}
	m.requests.WithLabelValues(resource, name, strconv.Itoa(status)).Inc()
	if !strings.HasSuffix(form, "/SSE") && !strings.HasSuffix(form, "/Console") {
		m.latency.WithLabelValues(name).Observe(took.Seconds())
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status  int
	answers *answers // of a request that may change something; else nil
}

// first notes that the answer begins. Who has it reads nothing from before the change.
func (w *statusWriter) first(status int) {
	if w.answers != nil {
		w.answers.changed()
	}
	w.status = status
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	if w.status < http.StatusOK {
		w.first(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status < http.StatusOK {
		w.first(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// countEvent counts an entry of a log. Controllers keep their events, and a service that starts reads those again
// that an earlier one has counted: only new ones count.
func (s *Service) countEvent(c *controller, e *entry) {
	s.answers.changed()
	if u := s.byName(c.name); u != nil && c == &u.controller && e.event.Kind == wire.EventStage {
		s.timeStage(u, e)
	}
	if e.created.Before(s.start) {
		return
	}
	s.meters.events.WithLabelValues(kindLabel(e.event.Kind), e.severity()).Inc()
	if f := &e.event.Failure; !f.IsZero() && c != &s.rmc {
		s.meters.failures.WithLabelValues(c.name, reasonLabel(f)).Inc()
	}
}

func kindLabel(k wire.EventKind) string {
	if name := k.String(); name != "unknown" {
		return name
	}
	return "other"
}

// reasonLabel is the name of a check that is known.
func reasonLabel(f *wire.Failure) string {
	if r, ok := rack.LookupReason(f.Reason.String()); ok {
		return r.Name
	}
	return "other"
}

// bootTimes is how long a unit took for the stages of a boot.
type bootTimes struct {
	boot    uint32
	stage   wire.Stage
	at      time.Time
	seconds [wire.StageRunning]float64
	began   time.Time
	whole   float64 // from power to running; 0: it did not arrive yet
}

// timeStage notes that a unit has reached a stage.
func (s *Service) timeStage(u *unit, e *entry) {
	stage := wire.Stage(e.event.Code)
	s.mu.Lock()
	b := &u.boot
	last, took := b.stage, e.created.Sub(b.at).Seconds()
	counts := b.boot == e.event.Boot && !b.at.IsZero() && last > wire.StageOff && last < wire.StageRunning && took >= 0
	if stage <= last || b.boot != e.event.Boot || b.at.IsZero() { // another boot, or the same from the start
		*b = bootTimes{boot: e.event.Boot, began: e.created}
		counts = counts && stage != wire.StageOff
	}
	if counts && stage > last {
		b.seconds[last] += took
	}
	b.stage, b.at = stage, e.created
	if stage == wire.StageRunning && b.seconds != [wire.StageRunning]float64{} {
		b.whole = max(e.created.Sub(b.began).Seconds(), 0)
	}
	s.mu.Unlock()
	if counts && !e.created.Before(s.start) {
		s.meters.stages.WithLabelValues(last.String()).Observe(took)
	}
}

func (s *Service) addMetrics(t *router) {
	t.add(metricsURI, resource{raw: s.serveMetrics})
}

// serveMetrics answers a scrape in OpenMetrics 1.0, or in the older text format when that is asked for.
func (s *Service) serveMetrics(w http.ResponseWriter, r *http.Request, _ []string) {
	format := expfmt.NegotiateIncludingOpenMetrics(r.Header)
	if r.Header.Get("Accept") == "" || format.FormatType() != expfmt.TypeTextPlain && format.FormatType() != expfmt.TypeOpenMetrics {
		format, _ = expfmt.NewOpenMetricsFormat(expfmt.OpenMetricsVersion_1_0_0)
	}
	b, err := s.meters.encode(format)
	if err != nil {
		s.log.Error("encode metrics", "error", err)
		fail(w, http.StatusInternalServerError, msgInternal())
		return
	}
	h := w.Header()
	h.Del("OData-Version")
	h.Set("Content-Type", string(format))
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

func (m *meters) encode(format expfmt.Format) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.encoded != nil && m.format == format && time.Since(m.at) < sameScrape {
		return m.encoded, nil
	}
	families, err := m.registry.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := expfmt.NewEncoder(&b, format, expfmt.WithUnit())
	for _, f := range families {
		if u := unitOf(f.GetName()); u != "" {
			f.Unit = &u
		}
		if err := e.Encode(f); err != nil {
			return nil, err
		}
	}
	if c, ok := e.(expfmt.Closer); ok { // # EOF
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	m.at, m.format, m.encoded = time.Now(), format, b.Bytes()
	return m.encoded, nil
}

// unitOf is the unit that a metric's name ends in.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	switch u := name[strings.LastIndexByte(name, '_')+1:]; u {
	case "watts", "joules", "volts", "amperes", "celsius", "seconds", "bytes", "percent", "rpm", "ratio":
		return u
	}
	return ""
}

// hardware collects what the service knows of the rack.
type hardware struct{ s *Service }

// Describe implements prometheus.Collector.
func (h hardware) Describe(to chan<- *prometheus.Desc) {
	for i := range families {
		to <- families[i].desc
	}
}

// Collect implements prometheus.Collector.
func (h hardware) Collect(to chan<- prometheus.Metric) {
	var all []prometheus.Metric // the lock is not held while somebody takes them
	h.s.mu.RLock()
	for i := range families {
		f := &families[i]
		kind := prometheus.GaugeValue
		if f.counter {
			kind = prometheus.CounterValue
		}
		f.read(h.s, func(v float64, labels ...string) {
			all = append(all, prometheus.MustNewConstMetric(f.desc, kind, v, labels...))
		})
	}
	h.s.mu.RUnlock()
	for _, m := range all {
		to <- m
	}
}

// family is a metric of the rack.
type family struct {
	name, help string
	labels     []string
	counter    bool
	read       func(s *Service, add func(v float64, labels ...string)) // the lock is held for reading
	desc       *prometheus.Desc
}

func gauge(name, help string, labels []string, read func(*Service, func(float64, ...string))) family {
	return family{name: name, help: help, labels: labels, read: read, desc: prometheus.NewDesc(name, help, labels, nil)}
}

func counter(f family) family { f.counter = true; return f }

// rackValue is a value of the rack as its controller says it; there is none before it has answered.
func rackValue(name, help string, get func(*wire.RackState) float64) family {
	return gauge("racklet_rack_"+name, help, []string{"rack"}, func(s *Service, add func(float64, ...string)) {
		if !s.rmc.seen.IsZero() {
			add(get(&s.rack), s.o.Rack.Metadata.Name)
		}
	})
}

// unitValue is a value of each unit as its BMC says it; there is none before it has answered.
func unitValue(name, help string, get func(*wire.UnitState) float64) family {
	return eachUnit(name, help, nil, func(_ *Service, u *unit, add func(float64, ...string)) {
		if !u.seen.IsZero() {
			add(get(&u.state))
		}
	})
}

func eachUnit(name, help string, labels []string, read func(*Service, *unit, func(float64, ...string))) family {
	return gauge("racklet_unit_"+name, help, append([]string{"unit"}, labels...), func(s *Service, add func(float64, ...string)) {
		for _, u := range s.units {
			read(s, u, func(v float64, more ...string) { add(v, append([]string{u.name}, more...)...) })
		}
	})
}

// reportValue is a value of the last report of each unit in this boot.
func reportValue(name, help string, get func(*wire.Report) float64) family {
	return eachUnit(name, help, nil, func(s *Service, u *unit, add func(float64, ...string)) {
		if u.report.Age != wire.AgeNever {
			add(get(&u.report.Report))
		}
	})
}

func truth(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func rackFlag(f uint16) func(*wire.RackState) float64 {
	return func(r *wire.RackState) float64 { return truth(r.Flags&f != 0) }
}

// conditions of a unit, as its BMC says.
var conditions = []struct {
	name string
	flag uint16
}{
	{"evidence-void", wire.FlagEvidenceVoid}, {"fallback-slot", wire.FlagFallbackSlot}, {"stale", wire.FlagStale}, {"sensor-lost", wire.FlagSensorLost},
	{"capped", wire.FlagCapped}, {"heartbeat-lost", wire.FlagReportStale}, {"waiting-for-grant", wire.FlagWaitGrant}, {"store-worn", wire.FlagStoreWorn},
}

// families are the metrics of the rack, in the order of docs/metrics.md.
var families = []family{
	gauge("racklet_build_info", "The program; its value is 1.", []string{"version", "goversion"}, func(s *Service, add func(float64, ...string)) {
		add(1, s.o.Version, runtime.Version())
	}),
	gauge("racklet_rack_info", "The rack; its value is 1.", []string{"rack", "id"}, func(s *Service, add func(float64, ...string)) {
		add(1, s.o.Rack.Metadata.Name, s.o.Rack.Spec.ID)
	}),
	gauge("racklet_rack_available", "Whether the RMC answers; else its values are its last.", []string{"rack"}, func(s *Service, add func(float64, ...string)) {
		add(truth(s.rmc.online), s.o.Rack.Metadata.Name)
	}),
	gauge("racklet_rack_age_seconds", "Time since the RMC answered last.", []string{"rack"}, func(s *Service, add func(float64, ...string)) {
		add(s.age(&s.rmc), s.o.Rack.Metadata.Name)
	}),
	rackValue("power_watts", "Power drawn from the supply.", func(r *wire.RackState) float64 { return thousandths(r.Milliwatts) }),
	counter(rackValue("energy_joules_total", "Energy drawn from the supply over the RMC's life.", func(r *wire.RackState) float64 { return thousandths(r.Millijoules) })),
	rackValue("supply_volts", "Voltage of the supply.", func(r *wire.RackState) float64 { return thousandths(r.SupplyMillivolts) }),
	rackValue("inlet_celsius", "Temperature of the air at the inlet.", func(r *wire.RackState) float64 { return thousandths(r.InletMilliCelsius) }),
	rackValue("budget_watts", "The most that the rack may draw: units and reserve.", func(r *wire.RackState) float64 { return thousandths(r.BudgetMilliwatts) }),
	rackValue("granted_watts", "Power that the RMC has granted to units.", func(r *wire.RackState) float64 { return thousandths(r.GrantedMilliwatts) }),
	rackValue("failsafe", "Fans are at full speed because the RMC does not know enough.", rackFlag(wire.RackFailsafe)),
	rackValue("sensor_lost", "A sensor of the RMC does not answer.", rackFlag(wire.RackSensorLost)),
	rackValue("throttling", "Inlet or a unit is too hot: grants are reduced.", rackFlag(wire.RackThrottling)),
	rackValue("over_budget", "The rack draws more than its budget.", rackFlag(wire.RackOverBudget)),
	rackValue("uptime_seconds", "Time since the RMC started.", func(r *wire.RackState) float64 { return thousandths(r.UptimeMillis) }),
	counter(rackValue("restarts_total", "Restarts of the RMC over its life.", func(r *wire.RackState) float64 { return float64(r.Resets) })),
	counter(rackValue("frame_errors_total", "Frames that the RMC dropped on the bus and on the management line since it started.", func(r *wire.RackState) float64 { return float64(r.FrameErrors) })),
	fanValue("speed_rpm", "Speed of a fan.", func(f wire.FanState) float64 { return float64(f.RPM) }),
	fanValue("duty_percent", "Drive of a fan.", func(f wire.FanState) float64 { return float64(f.DutyPercent) }),
	fanValue("stalled", "A fan is driven and does not turn.", func(f wire.FanState) float64 { return truth(f.Flags&wire.FanStalled != 0) }),

	gauge("racklet_unit_info", "A compute unit; its value is 1.", []string{"unit", "rack", "slot", "platform"}, func(s *Service, add func(float64, ...string)) {
		for _, u := range s.units {
			add(1, u.name, s.o.Rack.Metadata.Name, strconv.Itoa(int(u.slot)), u.spec.Spec.Platform)
		}
	}),
	eachUnit("available", "Whether the unit's BMC answers; else its values are its last.", nil, func(_ *Service, u *unit, add func(float64, ...string)) { add(truth(u.online)) }),
	eachUnit("age_seconds", "Time since the unit's BMC answered last.", nil, func(s *Service, u *unit, add func(float64, ...string)) { add(s.age(&u.controller)) }),
	eachUnit("present", "Whether the tray is in its slot.", nil, func(s *Service, u *unit, add func(float64, ...string)) { add(truth(!s.absent(u))) }),
	unitValue("desired_power", "Whether the unit shall have power.", func(u *wire.UnitState) float64 { return truth(u.Power == wire.PowerOn) }),
	unitValue("powered", "Whether the unit's rail is on.", func(u *wire.UnitState) float64 { return truth(u.Rail) }),
	eachUnit("state", "1 for the state that the BMC is in.", []string{"state"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for st := wire.StateOff; !u.seen.IsZero() && st <= wire.StateFaulted; st++ {
			add(truth(u.state.State == st), st.String())
		}
	}),
	eachUnit("stage", "1 for the stage that the unit has reached.", []string{"stage"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for st := wire.StageOff; !u.seen.IsZero() && st <= wire.StageFailed; st++ {
			add(truth(u.state.Stage == st), st.String())
		}
	}),
	eachUnit("condition", "1 for each condition that holds.", []string{"condition"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for _, c := range conditions {
			if !u.seen.IsZero() {
				stale := c.flag == wire.FlagStale && u.report.Age != wire.AgeNever && u.report.Report.Stale // the unit says so itself
				add(truth(u.state.Flags&c.flag != 0 || stale), c.name)
			}
		}
	}),
	eachUnit("failed_check", "1 for the check that failed last; absent when the last boot passed.", []string{"reason"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		if f := &u.state.Failure; !f.IsZero() {
			add(1, reasonLabel(f))
		}
	}),
	unitValue("power_watts", "Power of the unit.", func(u *wire.UnitState) float64 { return thousandths(u.Milliwatts) }),
	counter(unitValue("energy_joules_total", "Energy of the unit over its BMC's life.", func(u *wire.UnitState) float64 { return thousandths(u.Millijoules) })),
	unitValue("rail_volts", "Voltage of the unit's rail.", func(u *wire.UnitState) float64 { return thousandths(u.Millivolts) }),
	unitValue("rail_amperes", "Current of the unit's rail.", func(u *wire.UnitState) float64 { return thousandths(u.Milliamps) }),
	unitValue("temperature_celsius", "Temperature of the tray.", func(u *wire.UnitState) float64 { return thousandths(u.MilliCelsius) }),
	unitValue("power_grant_watts", "Power that the RMC has granted to the unit.", func(u *wire.UnitState) float64 { return thousandths(u.GrantMilliwatts) }),
	unitValue("power_cap_watts", "Power cap of the unit; 0: none.", func(u *wire.UnitState) float64 { return thousandths(u.CapMilliwatts) }),
	unitValue("rail_seconds", "Time since the unit's rail came on.", func(u *wire.UnitState) float64 { return thousandths(u.RailMillis) }),
	counter(unitValue("boots_total", "Times that the unit's rail came on over its BMC's life.", func(u *wire.UnitState) float64 { return float64(u.BootCount) })),
	unitValue("resets", "Resets of the unit since its rail came on.", func(u *wire.UnitState) float64 { return float64(u.Resets) }),
	unitValue("desired_generation", "Generation of the desired state that the BMC holds.", func(u *wire.UnitState) float64 { return float64(u.DesiredGeneration) }),
	unitValue("observed_generation", "Generation of the desired state that is reached.", func(u *wire.UnitState) float64 { return float64(u.ObservedGeneration) }),
	unitValue("floor_sequence", "Sequence of the metadata that the BMC never goes below.", func(u *wire.UnitState) float64 { return float64(u.Floors.Sequence) }),
	eachUnit("boot_slot", "1 for the boot slot in use.", []string{"slot"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for slot := wire.SlotA; !u.seen.IsZero() && slot <= wire.SlotB; slot++ {
			add(truth(u.state.BootSlot == slot), slotLetter(slot))
		}
	}),
	eachUnit("boot_slot_valid", "Whether the image in a boot slot is valid.", []string{"slot"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for slot := wire.SlotA; !u.seen.IsZero() && slot <= wire.SlotB; slot++ {
			add(truth(u.slots[slot].State == wire.SlotValid), slotLetter(slot))
		}
	}),
	reportValue("uptime_seconds", "Uptime of the unit's operating system, as it reported last.", func(r *wire.Report) float64 { return float64(r.UptimeSeconds) }),
	reportValue("cpu_percent", "Busy time of the unit's processors, as it reported last.", func(r *wire.Report) float64 { return float64(r.CPUPermille) / 10 }),
	reportValue("memory_used_bytes", "Memory in use, as the unit reported last.", func(r *wire.Report) float64 { return float64(r.MemoryUsedKiB) * 1024 }),
	reportValue("memory_total_bytes", "Memory of the unit, as it reported last.", func(r *wire.Report) float64 { return float64(r.MemoryTotalKiB) * 1024 }),
	eachUnit("report_age_seconds", "Time since the unit reported last.", nil, func(s *Service, u *unit, add func(float64, ...string)) {
		if u.report.Age != wire.AgeNever {
			add(s.reportAge(u).Seconds())
		}
	}),
	eachUnit("boot_seconds", "How long the last boot took from power to running.", nil, func(_ *Service, u *unit, add func(float64, ...string)) {
		if u.boot.whole > 0 {
			add(u.boot.whole)
		}
	}),
	eachUnit("boot_stage_seconds", "How long the last boot took for each stage that it has left.", []string{"stage"}, func(_ *Service, u *unit, add func(float64, ...string)) {
		for st, v := range u.boot.seconds {
			if v > 0 {
				add(v, wire.Stage(st).String())
			}
		}
	}),

	lineCount("requests_total", "Requests to controllers.", func(s *Service) uint64 { return s.conn.Stats().Requests }),
	lineCount("retries_total", "Requests that were sent again.", func(s *Service) uint64 { return s.conn.Stats().Retries }),
	lineCount("timeouts_total", "Requests without an answer after all retries.", func(s *Service) uint64 { return s.conn.Stats().Timeouts }),
	lineCount("strays_total", "Answers that nobody waited for.", func(s *Service) uint64 { return s.conn.Stats().Strays }),
	lineCount("dropped_total", "Bad frames and packets on the management line.", func(s *Service) uint64 { return s.conn.Stats().Dropped }),

	gauge("racklet_http_connections", "Open connections of all listeners.", nil, func(s *Service, add func(float64, ...string)) { add(float64(s.meters.connections.Load())) }),
	gauge("racklet_sessions", "Open sessions.", nil, func(s *Service, add func(float64, ...string)) { add(float64(len(s.access.Sessions()))) }),
	gauge("racklet_event_readers", "Clients of the event stream.", nil, func(s *Service, add func(float64, ...string)) { add(float64(s.events.count())) }),
	eachUnit("console_readers", "Clients that look at the unit's console.", nil, func(_ *Service, u *unit, add func(float64, ...string)) { add(float64(u.console.count())) }),
}

func fanValue(name, help string, get func(wire.FanState) float64) family {
	return gauge("racklet_fan_"+name, help, []string{"rack", "fan"}, func(s *Service, add func(float64, ...string)) {
		for i, f := range s.rack.Fans[:min(s.rack.FanCount, wire.MaxFans)] {
			add(get(f), s.o.Rack.Metadata.Name, fanID(i))
		}
	})
}

// lineCount counts what happened between the service and the controllers.
func lineCount(name, help string, get func(*Service) uint64) family {
	return counter(gauge("racklet_bus_"+name, help, []string{"rack"}, func(s *Service, add func(float64, ...string)) {
		add(float64(get(s)), s.o.Rack.Metadata.Name)
	}))
}
