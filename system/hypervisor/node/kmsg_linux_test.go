package node

import "testing"

func TestFormatRecord(t *testing.T) {
	for record, want := range map[string]string{
		"6,339,5140900,-;NET: Registered\n SUBSYSTEM=x\n": "[    5.140900] NET: Registered\n",
		"6,1,61000001;two; parts":                         "[   61.000001] two; parts\n",
		"nothing":                                         "",
		"6,1,x;text":                                      "",
		"6;text":                                          "",
	} {
		if got := formatRecord(record); got != want {
			t.Errorf("%q: %q, want %q", record, got, want)
		}
	}
}
