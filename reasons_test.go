package racklet

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack"
)

// reasonLike are texts that look like the name of a reason, by the families
// that package rack has.
var reasonLike = func() *regexp.Regexp {
	families, seen := []string{}, map[string]bool{}
	for _, r := range rack.Reasons {
		family, _, _ := strings.Cut(r.Name, ".")
		if !seen[family] {
			seen[family] = true
			families = append(families, family)
		}
	}
	return regexp.MustCompile(`^(` + strings.Join(families, "|") + `)(\.[a-z][a-z-]*)+$`)
}()

// notReasons end texts that look like reasons and are names of something else.
var notReasons = []string{".json", ".yaml", ".internal", ".sock", ".log", ".bin", ".img", ".flash", ".key", ".pem", ".virt"}

// failureName returns the name in MakeFailure("name", …), whatever its family.
func failureName(n ast.Node) *ast.BasicLit {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return nil
	}
	name := ""
	switch f := call.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if name != "MakeFailure" || !ok || lit.Kind != token.STRING {
		return nil
	}
	return lit
}

// TestReasonsAreKnown reads every text in the source of the firmware, stage 1
// and the verifier: whatever names a reason must be in rack.Reasons, so that
// "racklet why" knows its cure. Firmware cannot import that table itself.
func TestReasonsAreKnown(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || strings.HasSuffix(s.dir, "test") || below(s.dir, "rack") || !(below(s.dir, "firmware") || below(s.dir, "source") || below(s.dir, "system") || below(s.dir, "artifact")) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if lit := failureName(n); lit != nil {
				text, _ := strconv.Unquote(lit.Value) // it was parsed
				if _, ok := rack.LookupReason(text); !ok && text != "" && !reasonLike.MatchString(text) {
					t.Errorf("%s: reason %q is not in rack.Reasons", s.fset.Position(lit.Pos()), text)
				}
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil || !reasonLike.MatchString(text) {
				return true
			}
			for _, end := range notReasons {
				if strings.HasSuffix(text, end) {
					return true
				}
			}
			used[text] = true
			if _, ok := rack.LookupReason(text); !ok {
				t.Errorf("%s: reason %q is not in rack.Reasons", s.fset.Position(lit.Pos()), text)
			}
			return true
		})
	}
	if len(used) < 20 {
		t.Errorf("only %d reasons are used: %v", len(used), used)
	}
	for _, r := range rack.Reasons {
		if !used[r.Name] {
			t.Logf("%s is not used yet", r.Name)
		}
	}
}
