package redfish

import (
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A Metric as docs/metrics.md lists it.
type Metric struct{ Name, Type, Unit, Labels, Help string }

// Metrics lists all metrics that are Racklet's own, those of the rack first.
func (s *Service) Metrics() (all []Metric) {
	list := func(kind string, d *prometheus.Desc) {
		m := described.FindStringSubmatch(d.String())
		all = append(all, Metric{m[1], kind, unitOf(m[1]), strings.ReplaceAll(m[3], ",", ", "), m[2]})
	}
	for _, f := range families {
		kind := "gauge"
		if f.counter {
			kind = "counter"
		}
		list(kind, f.desc)
	}
	m := s.meters
	for _, v := range []struct {
		kind string
		prometheus.Collector
	}{{"counter", m.events}, {"counter", m.failures}, {"histogram", m.stages}, {"counter", m.requests}, {"histogram", m.latency}, {"counter", m.refused}} {
		c := make(chan *prometheus.Desc, 1)
		v.Describe(c)
		list(v.kind, <-c)
	}
	return all
}

var described = regexp.MustCompile(`^Desc{fqName: "(.*)", help: "(.*)", constLabels: {}, variableLabels: {(.*)}}$`)

// AppendJSON encodes a value, Volatile values among them.
func AppendJSON(v any) ([]byte, error) { return appendJSON(nil, v, nil) }

// Volatile marks a value that changes by itself.
func Volatile(v any) any { return volatile{v} }
