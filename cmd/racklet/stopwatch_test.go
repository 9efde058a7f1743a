package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestStopwatch takes the times of a boot from a log, those of stages too that
// nobody looked at, and the CPU seconds from between two looks.
func TestStopwatch(t *testing.T) {
	start := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	entry := func(seconds float64, kind, stage string) LogEntry {
		return LogEntry{Created: at(seconds).Format(time.RFC3339Nano), Kind: kind, Stage: stage}
	}
	w := &stopwatch{
		units: []string{"unit-1"},
		looks: map[string][]look{"unit-1": {{at(-5), 90}, {at(1), 1}, {at(3), 2}, {at(5), 4}}},
		at:    map[string]map[string]lap{},
		log: func(context.Context, string) ([]LogEntry, error) {
			return []LogEntry{
				entry(-20, "stage", "powered"), entry(-19, "stage", "failed"), // an earlier boot
				entry(0, "stage", "powered"), entry(0, "rail", ""), entry(0.5, "stage", "medium"),
				entry(2, "stage", "bootstrap"), entry(2.2, "stage", "network"), entry(2.4, "stage", "network"), entry(9, "stage", "running"),
			}, nil
		},
	}
	if err := w.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w.write(&out)
	got := strings.Join(strings.Fields(out.String()), " ")
	want := "seconds since power-on (CPU seconds) unit-1 powered 0.0 (0.0) medium 0.5 (0.5) bootstrap 2.0 (1.5) network 2.2 (1.6) running 9.0 (4.0)"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
