package redfish

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/racklet/racklet/system/redfish/access"
)

const (
	eventServiceURI  = root + "/EventService"
	subscriptionsURI = eventServiceURI + "/Subscriptions"
)

var (
	retryPolicies = []string{retryTerminate, retrySuspend, retryForever, retryBackoff}
	severities    = []string{"OK", "Warning", "Critical"}
)

func (s *Service) addSubscriptions(t *router) {
	t.add(eventServiceURI, resource{get: func([]string) object { return s.eventService() }, patch: s.patchEventService})
	t.add(eventServiceURI+"/SSE", resource{raw: func(w http.ResponseWriter, r *http.Request, _ []string) { s.serveSSE(w, r) }})
	t.add(eventServiceURI+"/Actions/EventService.SubmitTestEvent", resource{post: s.postTestEvent})
	t.add(subscriptionsURI, resource{get: func([]string) object {
		s.pushes.mu.Lock()
		defer s.pushes.mu.Unlock()
		return members("EventDestinationCollection", subscriptionsURI, "Subscriptions", s.pushes.ids())
	}, post: s.postSubscription})
	one := subscriptionsURI + "/*"
	t.add(one, resource{get: func(p []string) object { return s.subscription(p[0]) }, patch: s.patchSubscription, remove: func(w http.ResponseWriter, r *http.Request, p []string) {
		if err := s.pushes.remove(p[0]); err != nil {
			s.failAccess(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}})
	suspend := func(name string, on bool) {
		t.add(one+"/Actions/EventDestination."+name, resource{post: func(w http.ResponseWriter, r *http.Request, p []string, body object) {
			if !parameters(w, body, "EventDestination."+name, map[string]field{"DeliverBufferedEventDuration": setText(func(string) {})}) {
				return
			}
			if err := s.pushes.change(p[0], func(d *push) { d.Suspended, d.attempts = on, 0 }); err != nil {
				s.failAccess(w, r, err)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}})
	}
	suspend("ResumeSubscription", false)
	suspend("SuspendSubscription", true)
}

func (s *Service) eventService() object {
	s.pushes.mu.Lock()
	again := s.pushes.retry
	s.pushes.mu.Unlock()
	return object{
		"@odata.type": "#EventService.v1_12_0.EventService", "@odata.id": eventServiceURI, "Id": "EventService", "Name": "Events",
		"ServiceEnabled": true, "Status": enabled(), "ServerSentEventUri": eventServiceURI + "/SSE", "EventFormatTypes": []string{"Event"},
		"DeliveryRetryAttempts": again.Attempts, "DeliveryRetryIntervalSeconds": seconds(again.Interval), "RegistryPrefixes": []string{"Racklet", "TaskEvent"},
		"ResourceTypes": []string{"ComputerSystem", "Manager", "Task", "EventService"}, "Severities": severities,
		"ExcludeMessageId": true, "ExcludeRegistryPrefix": false, "IncludeOriginOfConditionSupported": false, "SubordinateResourcesSupported": true,
		"SSEFilterPropertiesSupported": object{
			"EventFormatType": true, "MessageId": true, "MetricReportDefinition": false, "OriginResource": true,
			"RegistryPrefix": true, "ResourceType": true, "SubordinateResources": false,
		},
		"Subscriptions": ref(subscriptionsURI),
		"Actions":       object{"#EventService.SubmitTestEvent": object{"target": eventServiceURI + "/Actions/EventService.SubmitTestEvent"}},
	}
}

func (s *Service) patchEventService(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var changes []func(*retry)
	if !patched(w, body, s.eventService(), map[string]field{
		"DeliveryRetryAttempts":        whole(0, 100, func(v int) { changes = append(changes, func(a *retry) { a.Attempts = v }) }),
		"DeliveryRetryIntervalSeconds": whole(1, 3600, func(v int) { changes = append(changes, func(a *retry) { a.Interval = time.Duration(v) * time.Second }) }),
	}) {
		return
	}
	p := s.pushes
	p.mu.Lock()
	was := p.retry
	for _, f := range changes {
		f(&p.retry)
	}
	err := p.save()
	if err != nil {
		p.retry = was
	}
	p.mu.Unlock()
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	s.answer(w, r, s.eventService)
}

func list(v []string) []string {
	if v == nil {
		return []string{}
	}
	return v
}

func (s *Service) subscription(id string) object {
	s.pushes.mu.Lock()
	defer s.pushes.mu.Unlock()
	d := s.pushes.all[id]
	if d == nil {
		return nil
	}
	status, uri := enabled(), subscriptionsURI+"/"+id
	switch {
	case d.Suspended:
		status = object{"State": "Disabled", "Health": "Critical"}
	case d.attempts > 0:
		status["Health"] = "Warning"
	}
	origins := []object{}
	for _, o := range d.Filter.Origins {
		origins = append(origins, ref(o))
	}
	return object{
		"@odata.type": "#EventDestination.v1_16_0.EventDestination", "@odata.id": uri, "Id": id, "Name": "Subscription " + id,
		"Destination": d.Destination, "Context": d.Context, "Protocol": "Redfish", "SubscriptionType": "RedfishEvent", "EventFormatType": "Event",
		"DeliveryRetryPolicy": d.Policy, "HttpHeaders": []object{}, "VerifyCertificate": true, "Status": volatile{status},
		"RegistryPrefixes": list(d.Filter.Registries), "MessageIds": list(d.Filter.Messages), "ExcludeMessageIds": list(d.Filter.NotMessages),
		"ResourceTypes": list(d.Filter.Types), "Severities": list(d.Filter.Severities), "SubordinateResources": d.Filter.Subordinate,
		"OriginResources": origins, "OriginResources@odata.count": len(origins),
		"Actions": object{
			"#EventDestination.ResumeSubscription":  object{"target": uri + "/Actions/EventDestination.ResumeSubscription"},
			"#EventDestination.SuspendSubscription": object{"target": uri + "/Actions/EventDestination.SuspendSubscription"},
		},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletSubscription.v1_0_0.Racklet", "TLSPins": list(d.Pins), "Waiting": volatile{len(d.queue)}, "Lost": volatile{d.Lost},
			"Attempts": volatile{d.attempts}, "Failure": volatile{d.failure},
		}},
	}
}

// setList takes a list of texts that pass a check.
func setList(most int, check func(string) bool, want string, f func([]string)) field {
	return field{set: func(v any, name, pointer string) *message {
		raw, ok := v.([]any)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		var texts []string
		for _, e := range raw {
			t, ok := e.(string)
			if !ok || !check(t) || len(raw) > most || len(t) > 256 {
				m := msgRange(v, name, pointer, want)
				return &m
			}
			texts = append(texts, t)
		}
		f(texts)
		return nil
	}}
}

func among(allowed ...string) func(string) bool {
	return func(t string) bool {
		for _, a := range allowed {
			if a == t {
				return true
			}
		}
		return false
	}
}

func anything(t string) bool { return t != "" }

// checkDestination says why events cannot go to a URL, or "".
func checkDestination(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || len(text) > 1024:
		return "Give a URL with a host."
	case u.User != nil:
		return "Give what the destination wants to know of the sender in HttpHeaders: the URL is shown to everybody."
	case u.Fragment != "":
		return "Give a URL without a fragment."
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return ""
	}
	return "Give an https URL. Without TLS events go to this machine only."
}

func (s *Service) postSubscription(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	d := destination{Policy: retryBackoff}
	const most = 32
	if !created(w, body, map[string]field{
		"Destination": {set: func(v any, name, pointer string) *message {
			text, ok := v.(string)
			if !ok {
				m := msgType(v, name, pointer)
				return &m
			}
			if why := checkDestination(text); why != "" {
				m := about(pointer, base("PropertyValueFormatError", "The value '"+shorten(text)+"' for the property Destination is not a format that the property can accept.", why, shorten(text), name))
				return &m
			}
			d.Destination = text
			return nil
		}},
		"Protocol": oneOf("Redfish"), "SubscriptionType": oneOf("RedfishEvent"), "EventFormatType": oneOf("Event"),
		"Context": {set: func(v any, name, pointer string) *message {
			text, ok := v.(string)
			if v != nil && (!ok || len(text) > 512) {
				m := msgRange(v, name, pointer, "at most 512 bytes")
				return &m
			}
			d.Context = text
			return nil
		}},
		"DeliveryRetryPolicy":  setEnum(retryPolicies, func(v string) { d.Policy = v }),
		"RegistryPrefixes":     setList(most, anything, "names of registries", func(v []string) { d.Filter.Registries = v }),
		"MessageIds":           setList(most, anything, "message IDs", func(v []string) { d.Filter.Messages = v }),
		"ExcludeMessageIds":    setList(most, anything, "message IDs", func(v []string) { d.Filter.NotMessages = v }),
		"ResourceTypes":        setList(most, anything, "types of resources", func(v []string) { d.Filter.Types = v }),
		"Severities":           setList(most, among(severities...), "OK, Warning or Critical", func(v []string) { d.Filter.Severities = v }),
		"EventTypes":           setList(most, among("Alert", "StatusChange", "ResourceUpdated", "ResourceAdded", "ResourceRemoved", "MetricReport", "Other"), "types of events", func([]string) {}),
		"SubordinateResources": setBool(func(v bool) { d.Filter.Subordinate = v }),
		"OriginResources": {set: func(v any, name, pointer string) *message {
			uris, ok := v.([]any)
			wrong := msgRange(v, name, pointer, "at most 32 references to resources")
			if !ok || len(uris) > most {
				return &wrong
			}
			for _, e := range uris {
				o, _ := e.(map[string]any)
				uri, _ := o["@odata.id"].(string)
				if uri == "" || len(uri) > 256 {
					return &wrong
				}
				d.Filter.Origins = append(d.Filter.Origins, strings.TrimSuffix(uri, "/"))
			}
			return nil
		}},
		"VerifyCertificate": {set: func(v any, name, pointer string) *message {
			if v == true {
				return nil
			}
			m := msgNotInList(v, name, pointer, []string{"true"})
			m.resolution = "A destination with a certificate of its own is trusted by its key: Oem.Racklet.TLSPins."
			return &m
		}},
		"HttpHeaders": {set: func(v any, name, pointer string) *message {
			var m message
			d.Headers, m = parseHeaders(v, name, pointer)
			if m.id != "" {
				return &m
			}
			return nil
		}},
		"Oem": {sub: map[string]field{"Racklet": {sub: map[string]field{
			"TLSPins": setList(4, func(t string) bool { return strings.HasPrefix(t, "sha256//") && len(t) == 52 }, "pins sha256//BASE64", func(v []string) { d.Pins = v }),
		}}}},
	}, "Destination", "Protocol") {
		return
	}
	id, err := s.pushes.create(d)
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	w.Header().Set("Location", subscriptionsURI+"/"+id)
	s.write(w, r, http.StatusCreated, s.subscription(id))
}

// parseHeaders takes an object or a list of objects with one header each.
func parseHeaders(v any, name, pointer string) (map[string]string, message) {
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	headers := map[string]string{}
	for _, e := range all {
		o, ok := e.(map[string]any)
		if !ok && v != nil {
			return nil, msgType("***", name, pointer)
		}
		for k, v := range o {
			text, ok := v.(string)
			k = textproto.CanonicalMIMEHeaderKey(k)
			taken := among("Host", "Connection", "Content-Length", "Content-Type", "Transfer-Encoding", "Upgrade", "Te", "Trailer")(k)
			if !ok || taken || len(headers) >= 16 || len(k)+len(text) > 4096 || !headerName(k) || strings.ContainsFunc(text, unicode.IsControl) {
				return nil, msgRange("***", name, pointer, "at most 16 headers of 4 KiB, none of those that the service sets")
			}
			headers[k] = text
		}
	}
	return headers, message{}
}

// headerName says whether a text is a token (RFC 9110, 5.6.2).
func headerName(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func (s *Service) patchSubscription(w http.ResponseWriter, r *http.Request, p []string, body object) {
	current := s.subscription(p[0])
	if current == nil {
		s.failAccess(w, r, access.ErrUnknown)
		return
	}
	var changes []func(*push)
	if !patched(w, body, current, map[string]field{
		"Context": {set: func(v any, name, pointer string) *message {
			text, ok := v.(string)
			if !ok || len(text) > 512 {
				m := msgRange(v, name, pointer, "at most 512 bytes")
				return &m
			}
			changes = append(changes, func(d *push) { d.Context = text })
			return nil
		}},
		"DeliveryRetryPolicy": setEnum(retryPolicies, func(v string) { changes = append(changes, func(d *push) { d.Policy = v }) }),
	}) {
		return
	}
	if err := s.pushes.change(p[0], func(d *push) {
		for _, f := range changes {
			f(d)
		}
	}); err != nil {
		s.failAccess(w, r, err)
		return
	}
	s.answer(w, r, func() object { return s.subscription(p[0]) })
}

// testMessage goes to everybody who listens, whatever they filter.
const testMessage = registryPrefix + "TestEvent"

// postTestEvent sends an event to everybody who listens, whatever they filter.
func (s *Service) postTestEvent(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	text := "A test event."
	ignored := setText(func(string) {})
	if !parameters(w, body, "EventService.SubmitTestEvent", map[string]field{
		"Message": setText(func(v string) { text = shorten(v) }), "MessageId": ignored, "EventId": ignored, "EventTimestamp": ignored, "EventType": ignored,
		"Severity": ignored, "MessageSeverity": oneOf(severities...), "OriginOfCondition": ignored, "EventGroupId": setNumber(0, 1<<53, func(float64) {}),
		"MessageArgs": setList(16, anything, "texts", func([]string) {}), "Resolution": ignored,
	}) {
		return
	}
	s.announce(s.clock.Now(), message{id: testMessage, text: text, severity: "OK", resolution: "None.", args: []string{text}}, eventServiceURI)
	w.WriteHeader(http.StatusNoContent)
}
