package redfish

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

const (
	accountServiceURI = root + "/AccountService"
	accountsURI       = accountServiceURI + "/Accounts"
	rolesURI          = accountServiceURI + "/Roles"
	sessionServiceURI = root + "/SessionService"
	sessionsURI       = sessionServiceURI + "/Sessions"
)

func (s *Service) addAccounts(t *router) {
	t.add(accountServiceURI, resource{get: func([]string) object { return s.accountService() }, patch: s.patchAccountService})
	t.add(accountsURI, resource{get: func([]string) object {
		var ids []string
		for _, a := range s.access.Accounts() {
			ids = append(ids, a.Name)
		}
		return members("ManagerAccountCollection", accountsURI, "Accounts", ids)
	}, post: s.postAccount})
	t.add(accountsURI+"/*", resource{get: func(p []string) object {
		if a, ok := s.access.Account(p[0]); ok {
			return s.account(&a)
		}
		return nil
	}, patch: s.patchAccount, remove: s.deleteAccount})
	t.add(accountsURI+"/*/Certificates", resource{get: func(p []string) object {
		a, ok := s.access.Account(p[0])
		if !ok {
			return nil
		}
		var ids []string
		for _, c := range a.Certificates {
			ids = append(ids, c.ID)
		}
		return members("CertificateCollection", accountsURI+"/"+a.Name+"/Certificates", "Client certificates of "+a.Name, ids)
	}, post: s.postAccountCertificate})
	t.add(accountsURI+"/*/Certificates/*", resource{get: s.accountCertificate, remove: func(w http.ResponseWriter, r *http.Request, p []string) {
		if err := s.access.RemoveCertificate(p[0], p[1]); err != nil {
			s.failAccess(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}})
	t.add(rolesURI, resource{get: func([]string) object {
		var ids []string
		for _, r := range access.Roles {
			ids = append(ids, string(r))
		}
		return members("RoleCollection", rolesURI, "Roles", ids)
	}})
	t.add(rolesURI+"/*", resource{get: func(p []string) object {
		for _, r := range access.Roles {
			if string(r) == p[0] {
				return object{"@odata.type": "#Role.v1_3_3.Role", "@odata.id": rolesURI + "/" + p[0], "Id": p[0], "Name": p[0],
					"RoleId": p[0], "IsPredefined": true, "AssignedPrivileges": r.Privileges()}
			}
		}
		return nil
	}})
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func basicState(on bool) string {
	if on {
		return "Enabled"
	}
	return "Disabled"
}

func (s *Service) accountService() object {
	r := s.access.Rules()
	return object{
		"@odata.type": "#AccountService.v1_18_1.AccountService", "@odata.id": accountServiceURI, "Id": "AccountService", "Name": "Accounts",
		"ServiceEnabled": true, "Status": enabled(), "Accounts": ref(accountsURI), "Roles": ref(rolesURI),
		"PrivilegeMap":      ref(privilegeRegistryURI),
		"MinPasswordLength": r.MinPassword, "MaxPasswordLength": access.MaxPassword, "PasswordGuidanceMessage": s.access.Guidance(),
		"AccountLockoutThreshold": r.LockoutThreshold, "AccountLockoutDuration": seconds(r.LockoutDuration),
		"AccountLockoutCounterResetAfter": seconds(r.LockoutReset), "AccountLockoutCounterResetEnabled": true, "AuthFailureLoggingThreshold": 1,
		"LocalAccountAuth": "Enabled", "HTTPBasicAuth": basicState(r.Basic), "SupportedAccountTypes": []string{"Redfish"},
		"MultiFactorAuth": object{"ClientCertificate": object{"Enabled": true, "CertificateMappingAttribute": "Whole", "RespondToUnauthenticatedClients": true}},
	}
}

func whole(low, high int, f func(int)) field {
	return setNumber(float64(low), float64(high), func(v float64) { f(int(v)) })
}

func (s *Service) patchAccountService(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var changes []func(*access.Rules)
	also := func(f func(*access.Rules)) { changes = append(changes, f) }
	if !patched(w, body, s.accountService(), map[string]field{
		"MinPasswordLength":               whole(8, 64, func(v int) { also(func(r *access.Rules) { r.MinPassword = v }) }),
		"AccountLockoutThreshold":         whole(0, 100, func(v int) { also(func(r *access.Rules) { r.LockoutThreshold = v }) }),
		"AccountLockoutDuration":          whole(0, 86_400, func(v int) { also(func(r *access.Rules) { r.LockoutDuration = time.Duration(v) * time.Second }) }),
		"AccountLockoutCounterResetAfter": whole(1, 86_400, func(v int) { also(func(r *access.Rules) { r.LockoutReset = time.Duration(v) * time.Second }) }),
		"HTTPBasicAuth":                   setEnum([]string{"Enabled", "Disabled"}, func(v string) { also(func(r *access.Rules) { r.Basic = v == "Enabled" }) }),
	}) {
		return
	}
	s.changeRules(w, r, changes, s.accountService)
}

func (s *Service) changeRules(w http.ResponseWriter, r *http.Request, changes []func(*access.Rules), get func() object) {
	err := s.access.SetRules(func(r *access.Rules) {
		for _, f := range changes {
			f(r)
		}
	})
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	s.answer(w, r, get)
}

func (s *Service) account(a *access.Account) object {
	uri := accountsURI + "/" + a.Name
	return object{
		"@odata.type": "#ManagerAccount.v1_14_1.ManagerAccount", "@odata.id": uri, "Id": a.Name, "Name": "Account " + a.Name,
		"UserName": a.Name, "RoleId": string(a.Role), "Enabled": a.Enabled, "Locked": a.Locked(s.clock.Now()), "Password": nil,
		"PasswordChangeRequired": a.ChangeRequired, "AccountTypes": []string{"Redfish"}, "StrictAccountTypes": true,
		"Certificates": ref(uri + "/Certificates"), "Links": object{"Role": ref(rolesURI + "/" + string(a.Role))},
	}
}

func setText(f func(string)) field {
	return field{set: func(v any, name, pointer string) *message {
		t, ok := v.(string)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		f(t)
		return nil
	}}
}

// setSecret is setText for what must not be repeated in an answer.
func setSecret(f func(string)) field {
	return field{set: func(v any, name, pointer string) *message {
		t, ok := v.(string)
		if !ok {
			m := msgType("***", name, pointer)
			return &m
		}
		f(t)
		return nil
	}}
}

var roleNames = []string{string(access.Administrator), string(access.Operator), string(access.ReadOnly)}

// accountTypes takes the only one there is, as clients send it.
var accountTypes = field{set: func(v any, name, pointer string) *message {
	if list, ok := v.([]any); ok && len(list) == 1 && list[0] == "Redfish" {
		return nil
	}
	m := msgNotInList(v, name, pointer, []string{"Redfish"})
	return &m
}}

// created applies the properties of a POST to their fields and answers if something is
// wrong or missing.
func created(w http.ResponseWriter, body object, writable map[string]field, required ...string) bool {
	_, wrong := fields(body, object{}, writable, "#")
	for _, name := range required {
		if _, ok := body[name]; !ok {
			wrong = append(wrong, about("#/"+name, base("PropertyMissing", fmt.Sprintf("The property %s is a required property and must be included in the request.", name),
				"Ensure that the property is in the request body and has a valid value and resubmit the request if the operation failed.", name)))
		}
	}
	if len(wrong) > 0 {
		fail(w, http.StatusBadRequest, wrong...)
		return false
	}
	return true
}

func (s *Service) postAccount(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	a := access.Account{Enabled: true}
	password := ""
	if !created(w, body, map[string]field{
		"UserName":               setText(func(v string) { a.Name = v }),
		"Password":               setSecret(func(v string) { password = v }),
		"RoleId":                 setEnum(roleNames, func(v string) { a.Role = access.Role(v) }),
		"Enabled":                setBool(func(v bool) { a.Enabled = v }),
		"PasswordChangeRequired": setBool(func(v bool) { a.ChangeRequired = v }),
		"AccountTypes":           accountTypes,
	}, "UserName", "Password", "RoleId") {
		return
	}
	if err := s.access.Create(a, password); err != nil {
		s.failAccess(w, r, err)
		return
	}
	made, _ := s.access.Account(a.Name)
	w.Header().Set("Location", accountsURI+"/"+a.Name)
	s.write(w, r, http.StatusCreated, s.account(&made))
}

func (s *Service) patchAccount(w http.ResponseWriter, r *http.Request, p []string, body object) {
	a, ok := s.access.Account(p[0])
	if !ok {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	password, required, requiredGiven := "", false, false
	var changes []func(*access.Account)
	also := func(f func(*access.Account)) { changes = append(changes, f) }
	if !patched(w, body, s.account(&a), map[string]field{
		"Password":               setSecret(func(v string) { password = v }),
		"RoleId":                 setEnum(roleNames, func(v string) { also(func(a *access.Account) { a.Role = access.Role(v) }) }),
		"Enabled":                setBool(func(v bool) { also(func(a *access.Account) { a.Enabled = v }) }),
		"PasswordChangeRequired": setBool(func(v bool) { required, requiredGiven = v, true }),
		"AccountTypes":           accountTypes,
		"Locked": {set: func(v any, name, pointer string) *message {
			if v == true {
				m := msgNotInList(v, name, pointer, []string{"false"})
				m.resolution = "Failed logins lock an account; to keep someone out, set Enabled to false."
				return &m
			}
			if v != false {
				m := msgType(v, name, pointer)
				return &m
			}
			also(func(a *access.Account) { a.LockedUntil = time.Time{} })
			return nil
		}},
	}) {
		return
	}
	_, passwordGiven := body["Password"]
	if requiredGiven {
		also(func(a *access.Account) { a.ChangeRequired = required })
	}
	if passwordGiven {
		keep := ""
		if who := by(r); who != nil && who.account == a.Name {
			keep = who.session
		}
		if err := s.access.SetPassword(a.Name, password, keep, false); err != nil {
			s.failAccess(w, r, err)
			return
		}
	}
	if len(changes) > 0 {
		err := s.access.Update(a.Name, func(a *access.Account) error {
			for _, f := range changes {
				f(a)
			}
			return nil
		})
		if err != nil {
			s.failAccess(w, r, err)
			return
		}
	}
	s.answer(w, r, func() object { now, _ := s.access.Account(a.Name); return s.account(&now) })
}

func (s *Service) deleteAccount(w http.ResponseWriter, r *http.Request, p []string) {
	if err := s.access.Delete(p[0]); err != nil {
		s.failAccess(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// failAccess answers for a change that the store refused.
func (s *Service) failAccess(w http.ResponseWriter, r *http.Request, err error) {
	resolution := err.Error() + "."
	format := func(name string) message {
		m := about("#/"+name, base("PropertyValueFormatError", fmt.Sprintf("The value for the property %s is not a format that the property can accept.", name), resolution, "***", name))
		if name != "Password" {
			m.args[0] = ""
		}
		return m
	}
	switch {
	case errors.Is(err, access.ErrUnknown):
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
	case errors.Is(err, access.ErrPassword):
		fail(w, http.StatusBadRequest, format("Password"))
	case errors.Is(err, access.ErrName):
		fail(w, http.StatusBadRequest, format("UserName"))
	case errors.Is(err, access.ErrCertificate):
		fail(w, http.StatusBadRequest, format("CertificateString"))
	case errors.Is(err, access.ErrExists):
		fail(w, http.StatusConflict, base("ResourceAlreadyExists", "The requested resource already exists.", "Do not repeat the create operation: "+resolution))
	case errors.Is(err, access.ErrFull):
		fail(w, http.StatusConflict, base("CreateLimitReachedForResource", "The create operation failed because the resource has reached the limit of possible resources.",
			"Either delete resources and resubmit the request if the operation failed or do not resubmit the request."))
	default:
		s.log.Error("a change was not kept", "path", r.URL.Path, "error", err)
		fail(w, http.StatusInternalServerError, msgInternal())
	}
}

func (s *Service) postAccountCertificate(w http.ResponseWriter, r *http.Request, p []string, body object) {
	text := ""
	if !created(w, body, map[string]field{
		"CertificateString": setText(func(v string) { text = v }),
		"CertificateType":   setEnum([]string{"PEM"}, func(string) {}),
	}, "CertificateString", "CertificateType") {
		return
	}
	chain, err := parseChain(text)
	if err != nil || len(chain) != 1 {
		s.failAccess(w, r, access.ErrCertificate)
		return
	}
	id, err := s.access.AddCertificate(p[0], chain[0])
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	w.Header().Set("Location", accountsURI+"/"+p[0]+"/Certificates/"+id)
	s.write(w, r, http.StatusCreated, s.accountCertificate([]string{p[0], id}))
}

func (s *Service) accountCertificate(p []string) object {
	a, _ := s.access.Account(p[0])
	i := slices.IndexFunc(a.Certificates, func(c access.Certificate) bool { return c.ID == p[1] })
	if i < 0 {
		return nil
	}
	c, err := x509.ParseCertificate(a.Certificates[i].DER)
	if err != nil {
		return nil
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	return certificateObject(accountsURI+"/"+a.Name+"/Certificates/"+p[1], "Client certificate of "+a.Name, c, text, "User")
}
