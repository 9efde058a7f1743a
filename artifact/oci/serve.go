package oci

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// repositoryName is the grammar of names (distribution-spec v1.1, "Pulling manifests").
var repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// Handler serves layouts read-only by the distribution API: GET and HEAD below /v2/. Where several
// layouts hold a repository or a blob, the first one answers. Blobs can be had in ranges, so that a
// client can resume. The layouts are read at each request: a release that is added is served at once.
func Handler(dirs ...string) http.Handler {
	return &handler{dirs}
}

type handler struct{ dirs []string }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this mirror is read-only")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "the API is below /v2/")
		return
	}
	if rest == "" { // "Determining Support"
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, "{}")
		return
	}
	// A name may itself contain "/manifests/" or "/blobs/": the last one counts.
	for _, kind := range []string{"/manifests/", "/blobs/"} {
		i := strings.LastIndex(rest, kind)
		if i < 0 || strings.Contains(rest[i+len(kind):], "/") {
			continue
		}
		name, ref := rest[:i], rest[i+len(kind):]
		if !repositoryName.MatchString(name) {
			refuse(w, http.StatusBadRequest, "NAME_INVALID", "repository name")
			return
		}
		if kind == "/manifests/" {
			h.manifest(w, r, name, ref)
		} else {
			h.blob(w, r, name, ref)
		}
		return
	}
	refuse(w, http.StatusNotFound, "UNSUPPORTED", "only manifests and blobs can be pulled")
}

func (h *handler) manifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	for _, dir := range h.dirs {
		l := Layout{dir}
		idx, err := l.Index()
		if err != nil {
			continue
		}
		for _, d := range idx.Manifests {
			if d.Annotations[AnnotationRepository] == name && (string(d.Digest) == ref || d.Annotations[v1.AnnotationRefName] == ref) {
				serveBlob(w, r, l, d.Digest, d.MediaType)
				return
			}
		}
	}
	refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", ref)
}

func (h *handler) blob(w http.ResponseWriter, r *http.Request, name, ref string) {
	d := digest.Digest(ref)
	if checkDigest(d) != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "want sha256:HEX")
		return
	}
	for _, dir := range h.dirs {
		l := Layout{dir}
		if reachable(l, name, d) {
			serveBlob(w, r, l, d, "application/octet-stream")
			return
		}
	}
	refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", ref)
}

// reachable reports whether one of the repository's manifests is, or names, the blob.
func reachable(l Layout, name string, want digest.Digest) bool {
	idx, err := l.Index()
	if err != nil {
		return false
	}
	for _, d := range idx.Manifests {
		if d.Annotations[AnnotationRepository] != name {
			continue
		}
		if d.Digest == want {
			return true
		}
		m, err := l.Manifest(d.Digest)
		if err != nil {
			continue
		}
		for _, b := range append(m.Layers, m.Config) {
			if b.Digest == want {
				return true
			}
		}
	}
	return false
}

// serveBlob sends a file as it is: whoever fetches it compares the digest.
func serveBlob(w http.ResponseWriter, r *http.Request, l Layout, d digest.Digest, mediaType string) {
	f, err := os.Open(l.Path(d))
	if err != nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", string(d))
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("ETag", `"`+string(d)+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// refuse answers in the form of distribution-spec, "Error Codes".
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`+"\n", code, message)
}
