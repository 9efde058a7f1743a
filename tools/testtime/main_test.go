package main

import (
	"errors"
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"github.com/racklet/racklet/rack"}
{"Action":"output","Package":"github.com/racklet/racklet/rack","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"github.com/racklet/racklet/rack","Test":"TestA","Elapsed":2.5}
{"Action":"output","Package":"github.com/racklet/racklet/rack","Test":"TestB","Output":"    x_test.go:1: qemu is not installed\n"}
{"Action":"skip","Package":"github.com/racklet/racklet/rack","Test":"TestB","Elapsed":0}
{"Action":"pass","Package":"github.com/racklet/racklet/rack","Elapsed":3}
`

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		err          error
		ok           bool
		says, hides  []string
	}{
		{"good", stream, nil, true,
			[]string{"ok   rack (3.0 s)", "rack TestB: x_test.go:1: qemu is not installed", "2.5 s  rack TestA", "\n1 passed, 0 failed, 1 skipped\n"}, []string{"chatter"}},
		{"failed test", stream + `{"Action":"output","Package":"p","Test":"TestC","Output":"got 1\n"}
{"Action":"fail","Package":"p","Test":"TestC","Elapsed":0.1}
{"Action":"fail","Package":"p","Elapsed":0.2}
`, errors.New("exit status 1"), false, []string{"FAIL p TestC (0.1 s)\n    got 1", "\n1 passed, 1 failed, 1 skipped\n"}, nil},
		{"does not build", stream + `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
`, errors.New("exit status 1"), false, []string{"FAIL p\n    p.go:1: undefined: x", "1 passed, 1 failed"}, nil},
		{"panics", stream + `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: no\n"}
{"Action":"fail","Package":"p","Elapsed":0}
`, errors.New("exit status 1"), false, []string{"unfinished TestD\n    panic: no", "1 passed, 1 failed"}, nil},
		{"go test itself fails", stream, errors.New("exit status 2"), false, []string{"go test: exit status 2"}, nil},
		{"nothing ran", "", nil, false, []string{"no test ran", "0 passed, 0 failed, 0 skipped"}, nil},
		{"foreign line", "no json\n" + stream, nil, true, []string{"no json"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			r.read(strings.NewReader(tt.stream))
			if ok := r.finish(tt.err); ok != tt.ok {
				t.Errorf("finish is %v, want %v", ok, tt.ok)
			}
			for _, want := range tt.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q:\n%s", want, out.String())
				}
			}
			for _, bad := range tt.hides {
				if strings.Contains(out.String(), bad) {
					t.Errorf("says %q", bad)
				}
			}
		})
	}
}
