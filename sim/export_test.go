package sim

import (
	"net/http"
	"time"

	"github.com/racklet/racklet/sim/chip"
)

// Neighbourhood is neighbourhood, for tests.
func (r *Rack) Neighbourhood(next http.Handler) http.Handler { return r.neighbourhood(next) }

// FitEEPROM is fitEEPROM for a tray, for tests.
func FitEEPROM(bus *chip.Bus, file string, today time.Time) error {
	return fitEEPROM(bus, file, trayBoard, today)
}
