package node

import "testing"

// TestCommands holds our names against those that upstream gives its programs.
func TestCommands(t *testing.T) {
	for name, command := range Commands {
		if got := command().Name(); got != name {
			t.Errorf("%s calls itself %s", name, got)
		}
	}
}
