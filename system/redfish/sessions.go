package redfish

import (
	"errors"
	"net/http"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

func (s *Service) addSessions(t *router) {
	t.add(sessionServiceURI, resource{get: func([]string) object { return s.sessionService() }, patch: s.patchSessionService})
	list := func([]string) object {
		var ids []string
		for _, e := range s.access.Sessions() {
			ids = append(ids, e.ID)
		}
		return members("SessionCollection", sessionsURI, "Sessions", ids)
	}
	t.add(sessionsURI, resource{get: list, post: s.postSession})
	t.add(sessionsURI+"/Members", resource{post: s.postSession})
	t.add(sessionsURI+"/*", resource{get: func(p []string) object {
		if e, ok := s.access.Session(p[0]); ok {
			return s.session(&e)
		}
		return nil
	}, remove: func(w http.ResponseWriter, r *http.Request, p []string) {
		s.access.EndSession(p[0])
		w.WriteHeader(http.StatusNoContent)
	}})
}

func (s *Service) sessionService() object {
	r := s.access.Rules()
	return object{
		"@odata.type": "#SessionService.v1_2_0.SessionService", "@odata.id": sessionServiceURI, "Id": "SessionService", "Name": "Sessions",
		"ServiceEnabled": true, "Status": enabled(), "Sessions": ref(sessionsURI), "SessionTimeout": seconds(r.SessionTimeout),
		"AbsoluteSessionTimeout": seconds(r.AbsoluteTimeout), "AbsoluteSessionTimeoutEnabled": r.AbsoluteTimeoutOn,
	}
}

func (s *Service) patchSessionService(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var changes []func(*access.Rules)
	also := func(f func(*access.Rules)) { changes = append(changes, f) }
	if !patched(w, body, s.sessionService(), map[string]field{
		"SessionTimeout":                whole(30, 86_400, func(v int) { also(func(r *access.Rules) { r.SessionTimeout = time.Duration(v) * time.Second }) }),
		"AbsoluteSessionTimeout":        whole(30, 30*86_400, func(v int) { also(func(r *access.Rules) { r.AbsoluteTimeout = time.Duration(v) * time.Second }) }),
		"AbsoluteSessionTimeoutEnabled": setBool(func(v bool) { also(func(r *access.Rules) { r.AbsoluteTimeoutOn = v }) }),
	}) {
		return
	}
	s.changeRules(w, r, changes, s.sessionService)
}

func (s *Service) session(e *access.Session) object {
	o := object{
		"@odata.type": "#Session.v1_8_0.Session", "@odata.id": sessionsURI + "/" + e.ID, "Id": e.ID, "Name": "Session of " + e.Account,
		"UserName": e.Account, "Password": nil, "SessionType": "Redfish", "ClientOriginIPAddress": e.From, "CreatedTime": stamp(e.Created),
	}
	if a, ok := s.access.Account(e.Account); ok {
		o["Roles"] = []string{string(a.Role)}
	}
	return o
}

func (s *Service) postSession(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	name, password := "", ""
	if !created(w, body, map[string]field{
		"UserName": setText(func(v string) { name = v }),
		"Password": setSecret(func(v string) { password = v }),
	}, "UserName", "Password") {
		return
	}
	if rec, ok := w.(*recorder); ok && rec.entry.Who == "" {
		rec.entry.Who = shorten(name)
	}
	a, err := s.access.Check(r.Context(), name, password, r.RemoteAddr)
	switch {
	case errors.Is(err, access.ErrTooFast):
		failTooFast(w)
		return
	case err != nil:
		s.refusedLogin(r, name, "session", err)
		s.failLogin(w)
		return
	}
	if rec, ok := w.(*recorder); ok && rec.entry.Role == "" {
		rec.entry.Role, rec.entry.How = string(a.Role), "session"
	}
	e, token, err := s.access.NewSession(a.Name, r.RemoteAddr)
	switch {
	case errors.Is(err, access.ErrFull):
		fail(w, http.StatusServiceUnavailable, critical(base("SessionLimitExceeded", "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.",
			"Reduce the number of other sessions before trying to establish the session or increase the limit of simultaneous sessions, if supported.")))
		return
	case err != nil:
		s.failLogin(w)
		return
	}
	h := w.Header()
	h.Set("X-Auth-Token", token)
	h.Set("Location", sessionsURI+"/"+e.ID)
	h.Set("Cache-Control", "no-store")
	o := s.session(&e)
	if a.ChangeRequired {
		o["@Message.ExtendedInfo"] = []object{msgChangeRequired(accountsURI + "/" + a.Name).object()}
	}
	s.write(w, r, http.StatusCreated, o)
}
