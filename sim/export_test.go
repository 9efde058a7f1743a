package sim

import "net/http"

// Neighbourhood is neighbourhood, for tests.
func (r *Rack) Neighbourhood(next http.Handler) http.Handler { return r.neighbourhood(next) }
