package deb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/racklet/racklet/artifact/cache"
)

// A Fetcher gets locked packages: from the cache, else from the mirrors in their order.
type Fetcher struct {
	Cache    cache.Cache
	Mirrors  Mirrors
	Client   *http.Client                       // nil: NewClient()
	Progress func(p Package, have, total int64) // nil: none; bytes
	Stall    time.Duration                      // a mirror that sends nothing for so long is left; 0: one minute
}

// NewClient returns an HTTP client that speaks http, https and file, goes through the proxy of the
// environment or else of apt, and gives up on servers that do not answer, not on slow lines.
func NewClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 60 * time.Second
	t.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	apt, asked := "", false
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		u, err := http.ProxyFromEnvironment(r)
		if u != nil || err != nil || r.URL.Scheme != "http" {
			return u, err
		}
		if !asked {
			apt, asked = AptProxy(), true
		}
		if apt == "" {
			return nil, nil
		}
		return url.Parse(apt)
	}
	return &http.Client{Transport: t}
}

// ErrNoMirror says that nobody told where packages are to be had.
var ErrNoMirror = errors.New("no Debian mirror is known: name one with --mirror URL (make: MIRROR=URL); Debian's site lists them")

// A GoneError says that the mirrors answered, and none of them has the locked version any more.
type GoneError struct {
	Package Package
	Mirrors []string
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("package %s %s (%s, locked as %q) is gone from %s: mirrors keep only recent versions; run `make update-locks` to lock the present one",
		e.Package.Package, e.Package.Version, e.Package.Suite, e.Package.Name, strings.Join(e.Mirrors, ", "))
}

// errGone is one mirror's 404 or 410.
var errGone = errors.New("not there")

// Fetch returns the path of the package's file in the cache, downloading it when it is not there.
// An interrupted download is taken up where it ended, by the next mirror too. What a mirror sends
// counts only when its SHA-256 is the locked one.
func (f *Fetcher) Fetch(ctx context.Context, p Package) (string, error) {
	if name, err := f.Cache.Lookup(p.SHA256); err == nil {
		return name, nil
	}
	mirrors := f.Mirrors.For(p.Suite)
	if len(mirrors) == 0 {
		return "", fmt.Errorf("fetch %s: %w", p.Package, ErrNoMirror)
	}
	part, err := f.Cache.Partial(p.SHA256)
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", p.Package, err)
	}
	defer part.Close()
	if name, err := f.Cache.Lookup(p.SHA256); err == nil { // another process was faster
		return name, nil
	}
	var failures []error
	gone := 0
	for _, m := range mirrors {
		err := f.download(ctx, m, p, part)
		if err == nil {
			var name string
			if name, err = part.Commit(); err == nil {
				return name, nil
			}
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if errors.Is(err, errGone) {
			gone++
		}
		failures = append(failures, fmt.Errorf("mirror %s: %w", m, err))
	}
	if gone == len(mirrors) {
		return "", &GoneError{Package: p, Mirrors: mirrors}
	}
	return "", fmt.Errorf("fetch %s %s: %w", p.Package, p.Version, errors.Join(failures...))
}

// download appends what is missing of p to part.
func (f *Fetcher) download(ctx context.Context, mirror string, p Package, part *cache.Partial) error {
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if have > p.Size {
		if err := part.Restart(); err != nil {
			return err
		}
		have = 0
	}
	if have == p.Size {
		return nil
	}
	stall := f.Stall
	if stall == 0 {
		stall = time.Minute
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, "GET", mirror+"/"+escapePath(p.Path), nil)
	if err != nil {
		return err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	res, err := f.client().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK: // from the start, whatever we asked for
		if have > 0 {
			if err := part.Restart(); err != nil {
				return err
			}
			have = 0
		}
	case http.StatusPartialContent:
		if !strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)) {
			return fmt.Errorf("asked for bytes from %d, got %q", have, res.Header.Get("Content-Range"))
		}
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w: %s", errGone, res.Status)
	default:
		return fmt.Errorf("answered %s", res.Status)
	}
	w := &progress{w: part, have: have, alive: func() { watch.Reset(stall) }, tell: func(n int64) {
		if f.Progress != nil {
			f.Progress(p, n, p.Size)
		}
	}}
	n, err := io.Copy(w, io.LimitReader(res.Body, p.Size-have+1))
	if err != nil {
		if c := context.Cause(ctx); c != nil {
			err = c
		}
		return fmt.Errorf("after %d of %d bytes: %w", have+n, p.Size, err)
	}
	if have+n != p.Size {
		if have+n > p.Size {
			err = part.Restart()
		}
		return errors.Join(fmt.Errorf("sent %d bytes, the lock says %d", have+n, p.Size), err)
	}
	if f.Progress != nil {
		f.Progress(p, p.Size, p.Size)
	}
	return nil
}

func (f *Fetcher) client() *http.Client {
	if f.Client == nil {
		f.Client = NewClient()
	}
	return f.Client
}

// escapePath keeps the plus signs and tildes of pool paths readable for servers of all ages.
func escapePath(p string) string { return (&url.URL{Path: p}).EscapedPath() }

// progress is a writer that tells of what passes.
type progress struct {
	w     io.Writer
	have  int64
	alive func()      // at each write
	tell  func(int64) // now and then
	last  time.Time
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.have += int64(n)
	p.alive()
	if now := time.Now(); now.Sub(p.last) > 200*time.Millisecond {
		p.last = now
		p.tell(p.have)
	}
	return n, err
}
