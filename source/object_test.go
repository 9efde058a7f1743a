package source

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// rawTree writes a tree object in the order given.
func rawTree(entries ...entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		b.WriteString(e.mode + " " + e.name + "\x00")
		b.Write(e.id[:])
	}
	return b.Bytes()
}

// TestTreeNames: a file and a folder of one name are in Git's order, with
// names between them or not; what they would be as a file system, nobody knows.
func TestTreeNames(t *testing.T) {
	blob := object{plumbing.BlobObject, []byte("content")}
	blobID := plumbing.ComputeHash(blob.kind, blob.content)
	inner := object{plumbing.TreeObject, rawTree(entry{modeFile, "inner", blobID})}
	innerID := plumbing.ComputeHash(inner.kind, inner.content)
	file, between, folder := entry{modeFile, "a", blobID}, entry{modeFile, "a-b", blobID}, entry{modeFolder, "a", innerID}
	for name, c := range map[string]struct {
		entries []entry
		good    bool
	}{
		"control":  {[]entry{file, between, {modeFolder, "b", innerID}}, true},
		"adjacent": {[]entry{file, folder}, false},
		"apart":    {[]entry{file, between, folder}, false},
		"twice":    {[]entry{file, file}, false},
	} {
		raw := rawTree(c.entries...)
		id := plumbing.ComputeHash(plumbing.TreeObject, raw)
		o := objects{blobID: blob, innerID: inner, id: {plumbing.TreeObject, raw}}
		files, err := o.files(id, "rack")
		if (err == nil) != c.good {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
		if err != nil {
			continue
		}
		if err := fs.WalkDir(newFS(files), ".", func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
