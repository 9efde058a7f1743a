package racklet

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requirementIDs are the rows that docs/requirements.md must have.
func requirementIDs() (ids []string) {
	// Key requirements: five for each component of the five layers.
	for _, layer := range []struct{ layer, components int }{{5, 3}, {4, 4}, {3, 3}, {2, 3}, {1, 2}} {
		for c := 1; c <= layer.components; c++ {
			for r := 1; r <= 5; r++ {
				ids = append(ids, fmt.Sprintf("L%d.%d-%d", layer.layer, c, r))
			}
		}
	}
	// User goals and values of RFC-0001, goals of layers and document of RFC-0002.
	for _, row := range []struct {
		prefix string
		n      int
	}{{"UG", 9}, {"V", 7}, {"L5-G", 3}, {"L4-G", 3}, {"L3-G", 4}, {"L2-G", 3}, {"L1-G", 2}, {"RFC-G", 3}} {
		for i := 1; i <= row.n; i++ {
			ids = append(ids, fmt.Sprintf("%s%d", row.prefix, i))
		}
	}
	return ids
}

var (
	requirementRow = regexp.MustCompile(`(?m)^\| ([A-Z][A-Za-z0-9.-]*) \| (.*) \| (.*) \|$`)
	namedTest      = regexp.MustCompile("`([a-z0-9/_]*)\\.((?:Test|Benchmark|Fuzz)[A-Za-z0-9_]*)(?:/[^`]*)?`")
)

// checkRequirements says what is wrong with the text of docs/requirements.md.
// exists reports whether a folder's tests hold a function.
func checkRequirements(doc string, exists func(dir, test string) bool) (wrong []string) {
	rows := map[string]string{}
	for _, m := range requirementRow.FindAllStringSubmatch(doc, -1) {
		id, text, shown := m[1], m[2], m[3]
		if id == "Id" {
			continue
		}
		if _, again := rows[id]; again {
			wrong = append(wrong, id+": two rows")
		}
		rows[id] = shown
		tests := namedTest.FindAllStringSubmatch(shown, -1)
		if len(tests) == 0 && shown != "not yet" {
			wrong = append(wrong, fmt.Sprintf("%s: %q names neither a test as `folder.TestName` nor \"not yet\"", id, shown))
		}
		if strings.Count(shown, "`") != 2*len(tests) {
			wrong = append(wrong, fmt.Sprintf("%s: %q holds a name that is no test", id, shown))
		}
		for _, t := range tests {
			if !exists(t[1], t[2]) {
				wrong = append(wrong, fmt.Sprintf("%s: there is no test %s in folder %q", id, t[2], t[1]))
			}
		}
		if len(text) < 20 {
			wrong = append(wrong, fmt.Sprintf("%s: %q says too little", id, text))
		}
	}
	ids := requirementIDs()
	for _, id := range ids {
		if _, ok := rows[id]; !ok {
			wrong = append(wrong, id+": no row")
		}
	}
	for id := range rows {
		if !slices.Contains(ids, id) {
			wrong = append(wrong, id+": no such requirement")
		}
	}
	slices.Sort(wrong)
	return wrong
}

// testExists looks for a test function in the files of a folder.
func testExists(dir, test string) bool {
	if dir == "" {
		dir = "."
	}
	names, _ := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go")) // the pattern is well formed
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && regexp.MustCompile(`(?m)^func `+test+`\(`).Match(b) {
			return true
		}
	}
	return false
}

// TestRequirements holds docs/requirements.md against the tests that there are.
func TestRequirements(t *testing.T) {
	b, err := os.ReadFile("docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range checkRequirements(string(b), testExists) {
		t.Errorf("docs/requirements.md: %s", w)
	}
	if n := len(requirementIDs()); n != 75+9+7+15+3 {
		t.Errorf("%d requirements", n)
	}
}

// TestRequirementsCheck shows that the check can fail.
func TestRequirementsCheck(t *testing.T) {
	b, err := os.ReadFile("docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	good := regexp.MustCompile(`(?m)^(\| V7 \| .* \|) .* \|$`).ReplaceAllString(string(b), "$1 not yet |")
	for _, c := range []struct{ replacement, want string }{
		{"", "V7: no row"},
		{"| V7 | Affordability, as said before | not yet |\n| V7 | Affordability, as said before | not yet |", "V7: two rows"},
		{"| V7 | Affordability, as said before | later |", "V7: \"later\" names neither"},
		{"| V7 | Affordability, as said before | `rack.TestNone` |", "V7: there is no test TestNone"},
		{"| V7 | Affordability, as said before | `none.TestRequirements` |", "V7: there is no test TestRequirements"},
		{"| V7 | Affordability, as said before | `.TestRequirements` and `docs` |", "V7: \"`.TestRequirements` and `docs`\" holds a name that is no test"},
		{"| V7 | Cheap | not yet |", "V7: \"Cheap\" says too little"},
		{"| V7 | Affordability, as said before | not yet |\n| V8 | Something else altogether | not yet |", "V8: no such requirement"},
		{"| V7 | Affordability, as said before | not yet, but `.TestRequirements` |", ""},
	} {
		doc := regexp.MustCompile(`(?m)^\| V7 \| .*$`).ReplaceAllLiteralString(good, c.replacement)
		wrong := checkRequirements(doc, testExists)
		if c.want == "" && len(wrong) > 0 || c.want != "" && !slices.ContainsFunc(wrong, func(w string) bool { return strings.HasPrefix(w, c.want) }) {
			t.Errorf("%s: %q, want %q", c.replacement, wrong, c.want)
		}
	}
}
