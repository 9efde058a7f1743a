package redfish_test

import "testing"

// FuzzAccess sends bodies to everything that takes one of accounts, sessions, certificates and subscriptions.
func FuzzAccess(f *testing.F) {
	targets := []string{
		"/redfish/v1/AccountService/Accounts", "/redfish/v1/SessionService/Sessions", "/redfish/v1/EventService/Subscriptions",
		"/redfish/v1/CertificateService/Actions/CertificateService.GenerateCSR", "/redfish/v1/CertificateService/Actions/CertificateService.ReplaceCertificate",
		"/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", "/redfish/v1/AccountService", "/redfish/v1/SessionService", "/redfish/v1/EventService",
	}
	for i, body := range []string{
		`{"UserName":"ada","Password":"correct horse battery","RoleId":"Operator","AccountTypes":["Redfish"],"Enabled":false}`, `{"UserName":"ada","Password":7}`,
		`{"Destination":"https://x.example","Protocol":"Redfish","HttpHeaders":[{"X":"y"}],"OriginResources":[{"@odata.id":"/x"}],"Oem":{"Racklet":{"TLSPins":["sha256//"]}}}`,
		`{"CommonName":"a","AlternativeNames":["DNS:a"],"CertificateCollection":{"@odata.id":7}}`, `{"CertificateString":"-----BEGIN CERTIFICATE-----","CertificateType":"PEM","CertificateUri":{}}`,
		`{"Message":"x","EventGroupId":1e9}`, `{"MinPasswordLength":8.5}`, `{"SessionTimeout":null}`, `{"DeliveryRetryAttempts":-1}`,
	} {
		f.Add(uint8(i), body)
	}
	s := newFuzzService(f)
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		method := "POST"
		if int(which)%len(targets) > 5 {
			method = "PATCH"
		}
		s.try(t, method, targets[int(which)%len(targets)], body)
	})
}
