// Package schema holds the JSON Schema (draft 2020-12) of every kind of rack
// object, for editors and for checks outside of Racklet. The files are made by
// tools/schema from the types and comments of package rack. Racklet itself
// decodes with package rack/manifest, which checks more: references, slots,
// budgets.
package schema

import (
	"embed"
	"io/fs"
)

//go:generate go run ../../tools/schema -out .

//go:embed *.json
var files embed.FS

// Files returns the schemas by file name: the lower-case kind and .json.
func Files() map[string][]byte {
	all := map[string][]byte{}
	names, _ := fs.Glob(files, "*.json") // the pattern is well formed
	for _, name := range names {
		all[name], _ = files.ReadFile(name) // embedded, hence there
	}
	return all
}
