// Package githost is the rack's built-in Git server and artefact mirror: what a
// self-contained rack uses in place of a hosting service.
//
//	operator ── git push ──▶ 127.0.0.1:PORT, TLS, token ─┐
//	                                                     ├─ Host ─┬─ /NAME.git  git http-backend, by CGI
//	units ── fetch ─────▶ gateway, inside the rack, TLS ─┘        └─ /v2/       mirror of OCI artefacts
//
// Git's smart HTTP protocol is left to Git itself. Both listeners have the same
// key, so a pin holds for both; a second key is prepared to move to, since pins
// come in pairs. Nobody trusts this server: what it serves is verified by
// signatures and digests where it is used.
package githost

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// User is the name that goes with the operator's token.
const User = "racklet"

// Bounds of what one request may carry, in bytes, and of what units, which
// nobody trusts, may have git do for them at the same time.
const (
	maxPush    = 512 << 20
	maxFetch   = 1 << 20 // of what a unit wants and has
	allFetches = 32
	ownFetches = 4 // of one address
)

// Times of a unit's request.
const (
	bodyTimeout   = 30 * time.Second // until its body is there
	answerTimeout = 5 * time.Minute  // until it has read the answer
)

// Config of a host.
type Config struct {
	Dir    string       // its own: repositories, keys, token
	Mirror http.Handler // serves /v2/; nil: nothing there
	Names  []string     // further names and addresses for the certificate
	Log    *slog.Logger
}

// Host is the server. Its handlers may be used at once.
type Host struct {
	cfg      Config
	Identity *Identity
	token    string
	git      string // path of git
	backend  string // path of git http-backend

	fetches  fetches
	instead  atomic.Pointer[string] // where units' repositories are, if not in repositories()
	patience time.Duration          // bodyTimeout, but in tests
}

// New prepares the directory and returns the host. It needs git.
func New(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, patience: bodyTimeout}
	var err error
	if h.git, err = exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("start git host: %w", err)
	}
	out, err := exec.CommandContext(ctx, h.git, "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("start git host: git --exec-path: %w", err)
	}
	h.backend = filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(h.backend); err != nil {
		return nil, fmt.Errorf("start git host: %w", err)
	}
	if err := os.MkdirAll(h.repositories(), 0o700); err != nil {
		return nil, fmt.Errorf("start git host: %w", err)
	}
	if h.Identity, err = LoadIdentity(cfg.Dir, cfg.Names...); err != nil {
		return nil, err
	}
	if h.token, err = loadToken(filepath.Join(cfg.Dir, "token")); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Host) repositories() string { return filepath.Join(h.cfg.Dir, "git") }

// Pretend has units see the repositories below another directory, as if the host had been taken over; "" ends it. The
// operator goes on seeing the right ones.
func (h *Host) Pretend(dir string) { h.instead.Store(&dir) }

// root is where the repositories are that somebody sees.
func (h *Host) root(operator bool) string {
	if dir := h.instead.Load(); !operator && dir != nil && *dir != "" {
		return *dir
	}
	return h.repositories()
}

// Token is the operator's password.
func (h *Host) Token() string { return h.token }

func loadToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		raw := make([]byte, 16)
		if _, err := rand.Read(raw); err != nil {
			return "", fmt.Errorf("make token: %w", err)
		}
		b = []byte(hex.EncodeToString(raw))
		err = writeFile(file, b)
	}
	if err != nil {
		return "", fmt.Errorf("load token: %w", err)
	}
	if len(b) < 32 {
		return "", fmt.Errorf("load token: %s is damaged; remove it to get a new one", file)
	}
	return string(b), nil
}

// writeFile writes a file of our own, whole or not at all.
func writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Chmod(0o600), func() error { _, err := f.Write(b); return err }(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

var repositoryName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// Repository returns the path of the bare repository of that name, which it
// makes when there is none. fresh says that it just did, or that nothing has
// been pushed yet.
func (h *Host) Repository(ctx context.Context, name string) (path string, fresh bool, err error) {
	if !repositoryName.MatchString(name) {
		return "", false, fmt.Errorf("repository %q: want lower case letters, digits and -", name)
	}
	path = filepath.Join(h.repositories(), name+".git")
	if _, err := os.Stat(filepath.Join(path, "HEAD")); errors.Is(err, os.ErrNotExist) {
		if err := h.create(ctx, path, ""); err != nil {
			return "", false, err
		}
	}
	refs, err := h.run(ctx, path, "for-each-ref", "--count=1")
	if err != nil {
		return "", false, err
	}
	return path, len(refs) == 0, nil
}

// Import makes a repository of that name with all branches of one on this machine; what it had before is gone.
func (h *Host) Import(ctx context.Context, name, from string) error {
	if !repositoryName.MatchString(name) {
		return fmt.Errorf("repository %q: want lower case letters, digits and -", name)
	}
	from, err := filepath.Abs(from)
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return h.create(ctx, filepath.Join(h.repositories(), name+".git"), from)
}

// create makes a repository, a copy of from unless that is "". It is made aside: one without its settings would take
// what git finds damaged, one with half of its branches would never get the others.
func (h *Host) create(ctx context.Context, path, from string) error {
	fresh := path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if _, err := h.run(ctx, "", "init", "--quiet", "--bare", "--initial-branch=main", fresh); err != nil {
		return err
	}
	for key, value := range map[string]string{
		"transfer.fsckObjects": "true", "receive.autogc": "false", "receive.maxInputSize": "512m", "core.sharedRepository": "0600",
	} {
		if _, err := h.run(ctx, fresh, "config", key, value); err != nil {
			return err
		}
	}
	if from != "" {
		if _, err := h.run(ctx, fresh, "fetch", "--quiet", "--no-tags", from, "+refs/heads/*:refs/heads/*"); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// environment is what git sees of ours: no configuration of user or system.
func (h *Host) environment() []string {
	return []string{"HOME=" + h.cfg.Dir, "GIT_CONFIG_NOSYSTEM=1", "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
}

func (h *Host) run(ctx context.Context, dir string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, h.git, args...)
	c.Dir, c.Env = dir, h.environment()
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// Reader is the handler for units: fetch and mirror, nothing can be changed.
func (h *Host) Reader() http.Handler { return h.handler(false) }

// Writer is the handler for the operator: everything, behind the token.
func (h *Host) Writer() http.Handler {
	next := h.handler(true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || user != User || subtle.ConstantTimeCompare([]byte(password), []byte(h.token)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="racklet"`)
			http.Error(w, "this needs the operator's token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var gitPath = regexp.MustCompile(`^/([a-z0-9][a-z0-9-]{0,39})\.git/(info/refs|git-upload-pack|git-receive-pack)$`)

func (h *Host) handler(write bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.cfg.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
		if strings.HasPrefix(r.URL.Path, "/v2/") && h.cfg.Mirror != nil {
			h.cfg.Mirror.ServeHTTP(w, r)
			return
		}
		m := gitPath.FindStringSubmatch(r.URL.Path)
		if m == nil {
			http.NotFound(w, r)
			return
		}
		if !write && (m[2] == "git-receive-pack" || r.URL.Query().Get("service") == "git-receive-pack") {
			http.Error(w, "units cannot push", http.StatusForbidden)
			return
		}
		root := h.root(write)
		if _, err := os.Stat(filepath.Join(root, m[1]+".git", "HEAD")); err != nil {
			http.NotFound(w, r)
			return
		}
		limit := int64(maxPush)
		if !write {
			limit = maxFetch
			done, ok := h.fetches.begin(r)
			if !ok {
				w.Header().Set("Retry-After", "5")
				http.Error(w, "too many requests at the same time", http.StatusServiceUnavailable)
				return
			}
			defer done()
			c := http.NewResponseController(w)
			now := time.Now()
			if err := errors.Join(c.SetReadDeadline(now.Add(h.patience)), c.SetWriteDeadline(now.Add(answerTimeout))); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		release, err := spool(w, r, h.cfg.Dir, limit)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		defer release()
		env := append(h.environment(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1")
		if p := r.Header.Get("Git-Protocol"); p != "" {
			env = append(env, "GIT_PROTOCOL="+p)
		}
		if write {
			env = append(env, "REMOTE_USER="+User) // what makes http-backend take a push
		}
		(&cgi.Handler{Path: h.backend, Dir: h.cfg.Dir, Env: env, InheritEnv: []string{}, Stderr: logWriter{h.cfg.Log},
			Logger: slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelWarn)}).ServeHTTP(w, r)
	})
}

// fetches counts requests of units, by address.
type fetches struct {
	mu  sync.Mutex
	all int
	own map[string]int
}

// begin counts a request until done is called; it is not ok when there are too many.
func (f *fetches) begin(r *http.Request) (done func(), ok bool) {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all >= allFetches || f.own[from] >= ownFetches {
		return nil, false
	}
	if f.own == nil {
		f.own = map[string]int{}
	}
	f.all++
	f.own[from]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all--
		if f.own[from]--; f.own[from] == 0 {
			delete(f.own, from)
		}
	}, true
}

// spool gives a body of unknown length one: CGI knows no chunked bodies
// (RFC 3875, 4.1.2), and that is how git sends a large push.
func spool(w http.ResponseWriter, r *http.Request, dir string, limit int64) (release func(), err error) {
	if r.ContentLength > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	if r.ContentLength >= 0 {
		return func() {}, nil
	}
	f, err := os.CreateTemp(dir, "push-")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	n, err := io.Copy(f, r.Body)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	r.Body, r.ContentLength, r.TransferEncoding = f, n, nil
	return func() { f.Close() }, nil
}

type logWriter struct{ log *slog.Logger }

func (l logWriter) Write(p []byte) (int, error) {
	l.log.Warn("git", "says", strings.TrimSpace(string(p)))
	return len(p), nil
}
