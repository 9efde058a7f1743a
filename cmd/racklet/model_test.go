package main

import (
	"encoding/json"
	"testing"
)

// TestPrintable shows that a hostile unit's text reaches no terminal as a command.
func TestPrintable(t *testing.T) {
	var c computerSystem
	raw := `{"Oem":{"Racklet":{"Stage":"failed","Reason":"os.\u001b[2Jblob","Seen":"\u009b31m\u202eevil\u0007 größer","Expected":"plain"}}}`
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		t.Fatal(err)
	}
	u := c.status()
	if u.Reason != "os.·[2Jblob" || u.Seen != "·31m·evil· größer" || u.Expected != "plain" {
		t.Errorf("reason %q, seen %q, expected %q", u.Reason, u.Seen, u.Expected)
	}
	e := eventRecord{Message: "a\x1b]52;c;AAAA\x07b"}
	if got := e.entry().Message; got != "a·]52;c;AAAA·b" {
		t.Errorf("message %q", got)
	}
}
