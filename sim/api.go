package sim

import (
	"log"
	"log/slog"
	"net/http"
)

func quietLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// Handler serves /sim/v1.
func (r *Rack) Handler() http.Handler { return http.NewServeMux() }
