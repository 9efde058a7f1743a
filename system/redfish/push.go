package redfish

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

// Limits of event subscriptions.
const (
	maxPushes   = 32
	maxQueue    = 1000 // events that wait for one destination
	maxBatch    = 20   // in one delivery
	pushTimeout = 10 * time.Second
	mostWait    = 5 * time.Minute // between attempts, with back-off
	pushFile    = "subscriptions.json"
)

// Retry policies (EventDestination schema, DeliveryRetryPolicy).
const (
	retryTerminate = "TerminateAfterRetries"
	retrySuspend   = "SuspendRetries"
	retryForever   = "RetryForever"
	retryBackoff   = "RetryForeverWithBackoff"
)

// destination is a subscription as it is kept.
type destination struct {
	ID          string
	Destination string
	Context     string
	Policy      string
	Headers     map[string]string `json:",omitempty"` // sent with each delivery, never shown
	Pins        []string          `json:",omitempty"` // of the destination's TLS key
	Filter      filter
	Suspended   bool   `json:",omitempty"`
	Last        uint64 // number of the newest event that arrived; all before it did, or were not wanted
	Lost        int    // events that did not find room in the queue
}

// filter says which events a destination wants; empty lists want all.
type filter struct {
	Registries, Messages, NotMessages, Origins, Types, Severities []string `json:",omitempty"`
	Subordinate                                                   bool     `json:",omitempty"`
}

func (f *filter) wants(o object) bool {
	id, _ := o["MessageId"].(string)
	severity, _ := o["MessageSeverity"].(string)
	origin := ""
	if at, ok := o["OriginOfCondition"].(object); ok {
		origin, _ = at["@odata.id"].(string)
	}
	prefix, _, _ := strings.Cut(id, ".")
	last := id[strings.LastIndexByte(id, '.')+1:]
	in := func(list []string, values ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(list, v) })
	}
	if !in(f.Registries, prefix) || !in(f.Messages, id, prefix+"."+last) || !in(f.Severities, severity) ||
		len(f.NotMessages) > 0 && in(f.NotMessages, id, prefix+"."+last) || !in(f.Types, typeOf(origin)) {
		return false
	}
	return len(f.Origins) == 0 || slices.ContainsFunc(f.Origins, func(uri string) bool {
		return uri == origin || f.Subordinate && strings.HasPrefix(origin, uri+"/")
	})
}

// typeOf is the type of the resources that events are about.
func typeOf(uri string) string {
	switch {
	case strings.HasPrefix(uri, root+"/Systems/"):
		return "ComputerSystem"
	case strings.HasPrefix(uri, root+"/Managers/"):
		return "Manager"
	case strings.HasPrefix(uri, tasksURI+"/"):
		return "Task"
	}
	return "EventService"
}

// push delivers to one destination.
type push struct {
	destination
	queue    []queued
	attempts int
	failure  string // of the last attempt
	wake     chan struct{}
	stop     context.CancelFunc // nil: not started
	client   *http.Client
}

type queued struct {
	number uint64
	record object
}

// pushes are all subscriptions.
type pushes struct {
	s *Service

	mu    sync.Mutex
	next  int
	all   map[string]*push
	retry retry
	ctx   context.Context // of run; nil: not yet
	wait  sync.WaitGroup
}

// retry says how often and when deliveries are tried again.
type retry struct {
	Attempts int
	Interval time.Duration
}

type pushDocument struct {
	Version      int
	Next         int
	Retry        retry
	Destinations []destination
}

func openPushes(s *Service) (*pushes, error) {
	p := &pushes{s: s, next: 1, all: map[string]*push{}, retry: retry{3, 30 * time.Second}}
	if s.o.Dir == "" {
		return p, nil
	}
	name := filepath.Join(s.o.Dir, pushFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	var d pushDocument
	if err := json.Unmarshal(b, &d); err != nil || d.Version < 1 || d.Version > 2 || len(d.Destinations) > maxPushes {
		return nil, fmt.Errorf("read subscriptions: %s is damaged (%v)", name, err)
	}
	p.next, p.retry = d.Next, d.Retry
	for _, e := range d.Destinations {
		if d.Version == 1 { // it had other numbers
			e.Last = s.chronicle.last
		}
		p.all[e.ID] = newPush(e)
	}
	return p, nil
}

func newPush(d destination) *push {
	return &push{destination: d, wake: make(chan struct{}, 1), client: pushClient(&d)}
}

// save writes all subscriptions. The lock is held.
func (p *pushes) save() error {
	if p.s.o.Dir == "" {
		return nil
	}
	d := pushDocument{Version: 2, Next: p.next, Retry: p.retry, Destinations: []destination{}}
	for _, id := range p.ids() {
		d.Destinations = append(d.Destinations, p.all[id].destination)
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := access.Replace(filepath.Join(p.s.o.Dir, pushFile), append(b, '\n')); err != nil {
		return fmt.Errorf("keep subscriptions: %w", err)
	}
	return nil
}

// ids are in the order in which the subscriptions were made. The lock is held.
func (p *pushes) ids() []string {
	ids := slices.Collect(maps.Keys(p.all))
	slices.SortFunc(ids, func(a, b string) int {
		if c := len(a) - len(b); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return ids
}

// pushClient speaks to one destination: no proxies, no redirects, TLS with the system's authorities
// or pinned keys; without TLS it goes to this machine only, whatever the name resolves to.
func pushClient(d *destination) *http.Client {
	dialer := &net.Dialer{Timeout: pushTimeout}
	if strings.HasPrefix(d.Destination, "http:") {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if host, _, err := net.SplitHostPort(address); err != nil || !loopback(host) {
				return errors.New("events go without TLS to this machine only")
			}
			return nil
		}
	}
	t := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	if pins := d.Pins; len(pins) > 0 {
		t.TLSClientConfig.InsecureSkipVerify = true // the pin says more than an authority
		t.TLSClientConfig.VerifyConnection = func(c tls.ConnectionState) error {
			if !slices.Contains(pins, pinOf(c.PeerCertificates[0])) {
				return errors.New("the destination has another TLS key than is pinned")
			}
			return nil
		}
	}
	return &http.Client{Transport: t, Timeout: pushTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// run delivers until ctx ends.
func (p *pushes) run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	for _, e := range p.all {
		p.start(e)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.wait.Wait()
}

// start starts a destination's deliveries if the service runs. The lock is held.
func (p *pushes) start(e *push) {
	if p.ctx == nil || e.stop != nil {
		return
	}
	var ctx context.Context
	ctx, e.stop = context.WithCancel(p.ctx)
	p.wait.Go(func() { p.deliver(ctx, e) })
}

// offer queues an event for those who want it and have not got it.
func (p *pushes) offer(number uint64, record object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.all {
		if number > d.Last && (d.Filter.wants(record) || record["MessageId"] == testMessage) {
			d.add(queued{number, record})
		}
	}
}

func (d *push) add(q queued) {
	if len(d.queue) >= maxQueue {
		d.queue = append(d.queue[:0:0], d.queue[1:]...)
		d.Lost++
	}
	d.queue = append(d.queue, q)
	d.nudge()
}

func (d *push) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// deliver posts what is queued, in order, until ctx ends.
func (p *pushes) deliver(ctx context.Context, d *push) {
	defer d.client.CloseIdleConnections()
	for {
		p.mu.Lock()
		var batch []queued
		if !d.Suspended {
			batch = slices.Clone(d.queue[:min(len(d.queue), maxBatch)])
		}
		lost := d.Lost
		p.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-d.wake:
			}
			continue
		}
		err := d.post(ctx, batch)
		if ctx.Err() != nil {
			return
		}
		wait := p.settle(d, batch, lost, err)
		if wait == 0 {
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// settle notes how a delivery went and returns how long to wait before the next.
func (p *pushes) settle(d *push, batch []queued, lost int, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		d.attempts, d.failure = 0, ""
		d.queue = d.queue[max(len(batch)-(d.Lost-lost), 0):] // the oldest may have been pushed out meanwhile
		d.Last = batch[len(batch)-1].number
		if err := p.save(); err != nil {
			p.s.log.Warn("deliveries may come again after a restart", "error", err)
		}
		return 0
	}
	d.attempts, d.failure = d.attempts+1, err.Error()
	p.s.log.Warn("events were not delivered", "subscription", d.ID, "attempt", d.attempts, "error", err)
	if d.attempts > p.retry.Attempts {
		switch d.Policy {
		case retryTerminate:
			delete(p.all, d.ID)
			d.stop()
			p.save()
			return time.Hour
		case retrySuspend:
			d.Suspended = true
			p.save()
			return time.Nanosecond
		}
	}
	wait := p.retry.Interval
	if d.Policy == retryBackoff {
		wait = min(wait<<min(d.attempts-1, 16), mostWait)
		wait += time.Duration(rand.Int64N(int64(wait)/4 + 1))
	}
	return wait
}

// post sends one delivery.
func (d *push) post(ctx context.Context, batch []queued) error {
	list := make([]object, len(batch))
	for i, q := range batch {
		list[i] = maps.Clone(q.record)
		list[i]["MemberId"], list[i]["Context"] = strconv.Itoa(i), d.Context
	}
	body, err := json.Marshal(object{
		"@odata.type": "#Event.v1_13_0.Event", "Id": list[0]["EventId"], "Name": "Events of the rack", "Context": d.Context,
		"Events": list, "Events@odata.count": len(list),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Destination, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range d.Headers {
		req.Header.Set(k, v)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("OData-Version", "4.0")
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the destination answered %s", resp.Status)
	}
	return nil
}

// create adds a subscription. It begins with what comes from now on.
func (p *pushes) create(d destination) (string, error) {
	p.s.chronicle.mu.Lock() // no event comes in between
	defer p.s.chronicle.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxPushes {
		return "", access.ErrFull
	}
	d.ID, d.Last = strconv.Itoa(p.next), p.s.chronicle.last
	e := newPush(d)
	p.all[d.ID] = e
	p.next++
	if err := p.save(); err != nil {
		delete(p.all, d.ID)
		return "", err
	}
	p.start(e)
	return d.ID, nil
}

// change changes a subscription, or its state, and keeps that.
func (p *pushes) change(id string, f func(*push)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.all[id]
	if d == nil {
		return access.ErrUnknown
	}
	was := d.destination
	f(d)
	if err := p.save(); err != nil {
		d.destination = was
		return err
	}
	d.nudge()
	return nil
}

// remove ends a subscription.
func (p *pushes) remove(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.all[id]
	if d == nil {
		return access.ErrUnknown
	}
	delete(p.all, id)
	if err := p.save(); err != nil {
		p.all[id] = d
		return err
	}
	if d.stop != nil {
		d.stop()
	}
	return nil
}
