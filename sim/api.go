package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/sim/netswitch"
	"github.com/racklet/racklet/sim/plant"
)

func quietLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 64 << 10

// Problem is the body of every error.
type Problem struct {
	Error string `json:"error" doc:"what was wrong"`
}

// apiError is an error with its HTTP status.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func bad(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) error {
	return &apiError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &apiError{http.StatusConflict, fmt.Sprintf(format, args...)}
}

// Handler serves /sim/v1. Whoever can reach it owns the rack's physics: serve it
// on a Unix socket of one user.
func (r *Rack) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, op := range routes() {
		mux.HandleFunc(op.method+" "+op.path, func(w http.ResponseWriter, req *http.Request) {
			req.Body = http.MaxBytesReader(w, req.Body, maxRequest)
			v, err := op.handle(r, w, req)
			if err != nil {
				status := http.StatusInternalServerError
				var e *apiError
				if errors.As(err, &e) {
					status = e.status
				}
				reply(w, status, Problem{err.Error()})
				return
			}
			switch {
			case op.media != "": // the handler has written its own
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				reply(w, http.StatusOK, v)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		reply(w, http.StatusNotFound, Problem{fmt.Sprintf("%s %s: no such operation; see /sim/v1/openapi.json", req.Method, req.URL.Path)})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func body[T any](req *http.Request) (v T, err error) {
	d := json.NewDecoder(req.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, bad("request body: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, bad("request body: more than one JSON value")
	}
	return v, nil
}

func (r *Rack) slot(req *http.Request) (*tray, error) {
	s := req.PathValue("slot")
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n < 1 || n > uint64(r.cfg.Rack.Spec.Slots) {
		return nil, missing("slot %q: want 1 to %d", s, r.cfg.Rack.Spec.Slots)
	}
	for _, t := range r.trays {
		if uint64(t.slot) == n {
			return t, nil
		}
	}
	return nil, missing("slot %d holds no compute unit", n)
}

func (r *Rack) getState(http.ResponseWriter, *http.Request) (any, error) { return r.State(), nil }

func (r *Rack) getOpenAPI(w http.ResponseWriter, _ *http.Request) (any, error) {
	b, err := OpenAPI()
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
	return nil, nil
}

func (r *Rack) getPlantFaults(http.ResponseWriter, *http.Request) (any, error) {
	return r.plant.Faults(), nil
}

func (r *Rack) setPlantFaults(_ http.ResponseWriter, req *http.Request) (any, error) {
	f, err := body[plant.Faults](req)
	if err != nil {
		return nil, err
	}
	r.plant.SetFaults(f)
	return r.plant.Faults(), nil
}

func (r *Rack) setAmbient(_ http.ResponseWriter, req *http.Request) (any, error) {
	a, err := body[AmbientRequest](req)
	if err != nil {
		return nil, err
	}
	if !(a.Celsius >= -40 && a.Celsius <= 80) {
		return nil, bad("celsius %v: want -40 to 80", a.Celsius)
	}
	r.plant.SetAmbient(a.Celsius)
	return nil, nil
}

func (r *Rack) setCable(_ http.ResponseWriter, req *http.Request) (any, error) {
	p := r.netw.Port(req.PathValue("port"))
	if p == nil {
		return nil, missing("port %q: the switch has no such port", req.PathValue("port"))
	}
	c, err := body[CableRequest](req)
	if err != nil {
		return nil, err
	}
	if err := p.SetFault(netswitch.FromDevice, c.FromDevice); err != nil {
		return nil, bad("fromDevice: %v", err)
	}
	if err := p.SetFault(netswitch.ToDevice, c.ToDevice); err != nil {
		return nil, bad("toDevice: %v", err)
	}
	for _, t := range r.trays {
		if t.port == p {
			t.carrier(req.Context())
		}
	}
	return nil, nil
}

func (r *Rack) capture(w http.ResponseWriter, req *http.Request) (any, error) {
	ctx := req.Context()
	var port *netswitch.Port
	if name := req.URL.Query().Get("port"); name != "" {
		if port = r.netw.Port(name); port == nil {
			return nil, missing("port %q: the switch has no such port", name)
		}
	}
	if s := req.URL.Query().Get("seconds"); s != "" {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || !(n > 0 && n <= 86400) {
			return nil, bad("seconds %q: want more than 0, at most 86400", s)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(n*float64(time.Second)))
		defer cancel()
	}
	w.Header().Set("Content-Type", "application/x-pcapng")
	if err := r.netw.Capture(ctx, flusher{w, http.NewResponseController(w)}, port); err != nil {
		r.cfg.Log.Debug("capture ended", "err", err) // the client is gone; it cannot be told
	}
	return nil, nil
}

// flusher sends each write at once.
type flusher struct {
	w io.Writer
	c *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}

func (r *Rack) jamBus(http.ResponseWriter, *http.Request) (any, error) {
	r.bus.jam(true)
	return nil, nil
}

func (r *Rack) freeBus(http.ResponseWriter, *http.Request) (any, error) {
	r.bus.jam(false)
	return nil, nil
}

func (r *Rack) hangRMC(http.ResponseWriter, *http.Request) (any, error) {
	r.rmc.mu.Lock()
	defer r.rmc.mu.Unlock()
	r.rmc.hung = true
	return nil, nil
}

func (r *Rack) restartRMC(http.ResponseWriter, *http.Request) (any, error) {
	r.rmc.mu.Lock()
	defer r.rmc.mu.Unlock()
	r.rmc.restart = true
	return nil, nil
}

func (r *Rack) pullTray(_ http.ResponseWriter, req *http.Request) (any, error) {
	return nil, r.present(req, false)
}

func (r *Rack) insertTray(_ http.ResponseWriter, req *http.Request) (any, error) {
	return nil, r.present(req, true)
}

func (r *Rack) present(req *http.Request, in bool) error {
	t, err := r.slot(req)
	if err != nil {
		return err
	}
	r.plant.SetPresent(int(t.slot), in)
	return nil
}

func (r *Rack) pressReset(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, err
	}
	if m := t.machine(); m != nil {
		m.Kill() // without power lost: the boot ROM begins again, the BMC sees the line
		return nil, nil
	}
	return nil, conflict("unit %s does not run", t.name)
}

func (r *Rack) pauseUnit(_ http.ResponseWriter, req *http.Request) (any, error) {
	return nil, r.running(req, (*machine.Machine).Pause)
}

func (r *Rack) resumeUnit(_ http.ResponseWriter, req *http.Request) (any, error) {
	return nil, r.running(req, (*machine.Machine).Resume)
}

func (r *Rack) running(req *http.Request, do func(*machine.Machine, context.Context) error) error {
	t, err := r.slot(req)
	if err != nil {
		return err
	}
	m := t.machine()
	if m == nil {
		return conflict("unit %s does not run", t.name)
	}
	return do(m, req.Context())
}

func (r *Rack) hangBMC(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc == nil {
		return nil, conflict("the BMC of slot %d has no power", t.slot)
	}
	t.hung = true
	return nil, nil
}

func (r *Rack) restartBMC(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc == nil {
		return nil, conflict("the BMC of slot %d has no power", t.slot)
	}
	t.restart = true
	return nil, nil
}

// maxClock is ten years in seconds.
const maxClock = 10 * 365 * 24 * 3600

func (r *Rack) setClock(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, err
	}
	c, err := body[ClockRequest](req)
	if err != nil {
		return nil, err
	}
	if c.AheadSeconds > maxClock || c.AheadSeconds < -maxClock {
		return nil, bad("aheadSeconds %d: want at most %d either way", c.AheadSeconds, maxClock)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clockAhead = c.AheadSeconds
	return nil, nil
}

func (r *Rack) setService(_ http.ResponseWriter, req *http.Request) (any, error) {
	down, ok := r.services[req.PathValue("service")]
	if !ok {
		return nil, missing("service %q: want git or mirror", req.PathValue("service"))
	}
	s, err := body[ServiceRequest](req)
	if err != nil {
		return nil, err
	}
	down.Store(s.Down)
	return nil, nil
}

// neighbourhood is what units see of Git host and mirror: nothing of the one
// that is down.
func (r *Rack) neighbourhood(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		service := "git"
		if strings.HasPrefix(req.URL.Path, "/v2/") {
			service = "mirror"
		}
		if r.services[service].Load() {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, req)
	})
}

func (r *Rack) setChip(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, err
	}
	return nil, setChip(req, t.chips, trayChips)
}

func (r *Rack) setRackChip(_ http.ResponseWriter, req *http.Request) (any, error) {
	return nil, setChip(req, r.rmc.chips, rackChips)
}

func setChip(req *http.Request, bus *chip.Bus, chips map[string]uint16) error {
	addr, ok := chips[req.PathValue("chip")]
	if !ok {
		return missing("chip %q: not on this board", req.PathValue("chip"))
	}
	c, err := body[ChipRequest](req)
	if err != nil {
		return err
	}
	bus.SetFault(addr, chip.Fault(c))
	return nil
}

func (r *Rack) flipFlash(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, f, err := r.flip(req)
	if err != nil {
		return nil, err
	}
	if f.Offset >= int64(t.flash.Size()) {
		return nil, bad("offset %d: the flash has %d bytes", f.Offset, t.flash.Size())
	}
	return nil, t.flash.FlipBit(uint32(f.Offset), f.Bit)
}

func (r *Rack) flipDisk(_ http.ResponseWriter, req *http.Request) (any, error) {
	t, f, err := r.flip(req)
	if err != nil {
		return nil, err
	}
	err = flipFile(machine.DiskPath(t.dir), f.Offset, f.Bit)
	if errors.Is(err, os.ErrNotExist) {
		return nil, conflict("unit %s has no data disk before its first start", t.name)
	}
	return nil, err
}

// flipFile inverts one bit of a file.
func flipFile(name string, offset int64, bit uint8) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return bad("offset %d: %v", offset, err)
	}
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], offset)
	return err
}

func (r *Rack) flip(req *http.Request) (*tray, FlipRequest, error) {
	t, err := r.slot(req)
	if err != nil {
		return nil, FlipRequest{}, err
	}
	f, err := body[FlipRequest](req)
	if err == nil && (f.Bit > 7 || f.Offset < 0) {
		err = bad("offset %d, bit %d: want an offset from 0 and a bit from 0 to 7", f.Offset, f.Bit)
	}
	return t, f, err
}
