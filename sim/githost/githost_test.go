package githost

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/source"
)

// git runs an ordinary git client in dir and returns what it printed.
func git(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	return gitIn(t, nil, dir, args...)
}

func gitIn(t *testing.T, env []string, dir string, args ...string) (string, error) {
	t.Helper()
	c := exec.Command(racktest.Tool(t, "git"), args...)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=T", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=T", "GIT_COMMITTER_EMAIL=t@example.com"}
	c.Env = append(c.Env, env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(t, dir, args...)
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

func serve(t *testing.T, h http.Handler, id *Identity) *url.URL {
	s := httptest.NewUnstartedServer(h)
	s.TLS = id.Config()
	s.StartTLS()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPushAndFetch(t *testing.T) {
	racktest.Tool(t, "git")
	mirror := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("mirror " + r.URL.Path)) })
	h, err := New(t.Context(), Config{Dir: t.TempDir(), Mirror: mirror})
	if err != nil {
		t.Fatal(err)
	}
	if _, fresh, err := h.Repository(t.Context(), "rack"); err != nil || !fresh {
		t.Fatalf("new repository: fresh %v, %v", fresh, err)
	}
	writer, reader := serve(t, h.Writer(), h.Identity), serve(t, h.Reader(), h.Identity)
	tls := []string{"-c", "http.sslCAInfo=" + h.Identity.CAFile}

	work := t.TempDir()
	must(t, work, "init", "-q", "-b", "main")
	// More than http.postBuffer (1 MiB) of what does not compress: a chunked push.
	big := make([]byte, 3<<20)
	rand.Read(big)
	if err := os.WriteFile(filepath.Join(work, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, work, "add", "big")
	must(t, work, "commit", "-q", "-m", "first")
	push := func(u *url.URL, user *url.Userinfo) (string, error) {
		to := *u
		to.Path, to.User = "/rack.git", user
		return git(t, work, append(slices.Clone(tls), "push", to.String(), "main")...)
	}
	if out, err := push(writer, nil); err == nil {
		t.Errorf("pushed without a token: %s", out)
	}
	if out, err := push(writer, url.UserPassword(User, "wrong")); err == nil {
		t.Errorf("pushed with a wrong token: %s", out)
	}
	if out, err := push(reader, url.UserPassword(User, h.Token())); err == nil || !strings.Contains(out, "403") {
		t.Errorf("pushed from inside the rack: %v: %s", err, out)
	}
	if out, err := push(writer, url.UserPassword(User, h.Token())); err != nil {
		t.Fatalf("push: %v: %s", err, out)
	}
	if _, fresh, err := h.Repository(t.Context(), "rack"); err != nil || fresh {
		t.Errorf("repository after push: fresh %v, %v", fresh, err)
	}

	// Fetch with git itself, and see that the pin is the server's.
	from := *reader
	from.Path = "/rack.git"
	clone := filepath.Join(t.TempDir(), "clone")
	must(t, ".", append(slices.Clone(tls), "-c", "http.pinnedPubkey="+strings.Join(h.Identity.Pins, ";"), "clone", "-q", from.String(), clone)...)
	if got, want := must(t, clone, "rev-parse", "HEAD"), must(t, work, "rev-parse", "HEAD"); got != want {
		t.Errorf("cloned %s, want %s", got, want)
	}
	if out, err := git(t, ".", "clone", "-q", from.String(), clone+"2"); err == nil {
		t.Errorf("cloned without knowing the certificate: %s", out)
	}

	client, err := source.PinnedClient(h.Identity.Pins[:1])
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for path, want := range map[string]int{
		"/v2/racklet/os/manifests/x": 200, "/rack.git/info/refs?service=git-upload-pack": 200,
		"/": 404, "/other.git/info/refs?service=git-upload-pack": 404, "/rack.git/HEAD": 404, "/rack.git/../token": 404, "/token": 404,
		"/rack.git/info/refs?service=git-receive-pack": 403, "/rack.git/git-receive-pack": 403,
	} {
		r, err := client.Get("https://" + reader.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
		}
	}
}

// TestHostileUnit has a unit send more than a fetch needs, and start requests
// that it does not finish.
func TestHostileUnit(t *testing.T) {
	racktest.Tool(t, "git")
	h, err := New(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Repository(t.Context(), "rack"); err != nil {
		t.Fatal(err)
	}
	hasty, err := New(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	hasty.patience = 50 * time.Millisecond
	u := serve(t, h.Reader(), h.Identity)
	client, err := source.PinnedClient(h.Identity.Pins)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	post := func(body io.Reader, length int64) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String()+"/rack.git/git-upload-pack", body)
		if err != nil {
			return 0, err
		}
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		res, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	zeros := func() io.Reader { return io.LimitReader(zero{}, 2<<20) }
	for name, length := range map[string]int64{"length": 2 << 20, "chunked": -1} {
		if code, err := post(zeros(), length); code != http.StatusRequestEntityTooLarge {
			t.Errorf("a body of 2 MiB, %s: %d, %v", name, code, err)
		}
	}

	// Bodies that never come: some are waited for, the rest sent away.
	var wg sync.WaitGroup
	var away, held atomic.Int32
	ends := make([]*io.PipeWriter, 3*ownFetches)
	for i := range ends {
		var body *io.PipeReader
		body, ends[i] = io.Pipe()
		wg.Go(func() {
			code, _ := post(body, -1)
			body.Close()
			if code == http.StatusServiceUnavailable {
				away.Add(1)
			} else {
				held.Add(1)
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for int(away.Load()) < len(ends)-ownFetches && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if away.Load() != int32(len(ends)-ownFetches) || held.Load() != 0 {
		t.Errorf("%d of %d unfinished requests sent away, %d ended", away.Load(), len(ends), held.Load())
	}
	for _, w := range ends {
		w.Close()
	}
	wg.Wait()

	// And those that are waited for are not for ever.
	u = serve(t, hasty.Reader(), hasty.Identity)
	body, end := io.Pipe()
	defer end.Close()
	if code, err := post(body, -1); code == http.StatusOK {
		t.Errorf("a request without a body: %d, %v", code, err)
	}
	for _, h := range []*Host{h, hasty} {
		h.fetches.mu.Lock()
		if h.fetches.all != 0 || len(h.fetches.own) != 0 {
			t.Errorf("%d requests left, by address %v", h.fetches.all, h.fetches.own)
		}
		h.fetches.mu.Unlock()
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestIdentity keeps keys and token over restarts, and notices damage.
func TestIdentity(t *testing.T) {
	racktest.Tool(t, "git")
	dir := t.TempDir()
	a, err := New(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(t.Context(), Config{Dir: dir, Names: []string{"git.rack.internal", "10.77.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Identity.Pins, b.Identity.Pins) || a.Token() != b.Token() || len(a.Identity.Pins) != 2 || a.Identity.Pins[0] == a.Identity.Pins[1] {
		t.Errorf("pins %v then %v", a.Identity.Pins, b.Identity.Pins)
	}
	for _, name := range []string{"tls.key", "tls-next.key", "token"} {
		file := filepath.Join(dir, name)
		fi, err := os.Stat(file)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("damaged %s: %v", name, err)
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImport takes a rack repository made by source and fetches it as a unit does.
func TestImport(t *testing.T) {
	racktest.Tool(t, "git")
	h, err := New(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	must(t, work, "init", "-q", "-b", "main")
	must(t, work, "commit", "-q", "--allow-empty", "-m", "first")
	must(t, work, "branch", "racklet-metadata")
	if err := h.Import(t.Context(), "rack", work); err != nil {
		t.Fatal(err)
	}
	u := serve(t, h.Reader(), h.Identity)
	out := must(t, ".", "-c", "http.sslCAInfo="+h.Identity.CAFile, "ls-remote", u.String()+"/rack.git")
	if !strings.Contains(out, "refs/heads/main") || !strings.Contains(out, "refs/heads/racklet-metadata") {
		t.Errorf("refs:\n%s", out)
	}
	// An environment that names authorities of its own does not get in the way
	// of the directory.
	other, err := LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GIT_SSL_CAINFO=" + other.CAFile}
	if out, err := gitIn(t, env, ".", "-c", "http.sslCAPath="+h.Identity.CADir, "ls-remote", u.String()+"/rack.git"); err != nil {
		t.Errorf("ls-remote: %v\n%s", err, out)
	}
	if out, err := gitIn(t, env, ".", "-c", "http.sslCAPath="+other.CADir, "ls-remote", u.String()+"/rack.git"); err == nil {
		t.Errorf("a foreign authority was accepted: %s", out)
	}
	if err := h.Import(t.Context(), "rack", filepath.Join(work, "missing")); err == nil {
		t.Error("imported nothing")
	}
	if _, _, err := h.Repository(t.Context(), "../x"); err == nil {
		t.Error("repository outside")
	}
}
