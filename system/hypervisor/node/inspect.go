package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// InspectPort is where a unit shows itself, at its address in the tunnel, by
// TLS 1.3 with the certificate of its identity.
const InspectPort = 10260

// operators are the groups whose members a unit shows itself to, as the
// organisation of their client certificates. Units are not among them.
var operators = []string{"racklet:administrators", "racklet:operators", "racklet:viewers"}

// errStranger is a client with a good certificate that is no operator.
var errStranger = errors.New("the client is no operator of this rack")

// inspectTLS reads the identity at each connection, which is renewed while the
// service runs.
func inspectTLS(identity string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(identity, "serving.crt"), filepath.Join(identity, "serving.key"))
		if err != nil {
			return nil, err
		}
		ca, err := os.ReadFile(filepath.Join(identity, "ca.crt"))
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, errors.New("the identity names no authority")
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, SessionTicketsDisabled: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 || !slices.ContainsFunc(s.PeerCertificates[0].Subject.Organization, func(o string) bool { return slices.Contains(operators, o) }) {
					return errStranger
				}
				return nil
			}}, nil
	}}
}

// inspect serves what an operator may see of a unit. Nothing can be changed
// through it, and no file but those below the log directory can be read.
//
//	GET /v1/logs                    the files, with size and time
//	GET /v1/logs/PATH?tail=BYTES    one of them, or its end
//	GET /v1/processes               what runs
//	GET /v1/kernel-log              the kernel's messages
func inspect(logs, proc, kmsg string) http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, _ *http.Request) {
		list, err := listLogs(logs)
		reply(w, list, err)
	})
	mux.HandleFunc("GET /v1/logs/{name...}", func(w http.ResponseWriter, r *http.Request) {
		tail := int64(-1)
		if text := r.URL.Query().Get("tail"); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				http.Error(w, fmt.Sprintf("tail=%q: want a number of bytes", text), http.StatusBadRequest)
				return
			}
			tail = n
		}
		if err := sendLog(w, logs, r.PathValue("name"), tail); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("GET /v1/processes", func(w http.ResponseWriter, _ *http.Request) {
		list, err := listProcesses(proc)
		reply(w, list, err)
	})
	mux.HandleFunc("GET /v1/kernel-log", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := sendKernelLog(w, kmsg); err != nil {
			fail(w, err)
		}
	})
	return mux
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, fs.ErrNotExist) {
		code = http.StatusNotFound
	} else if errors.Is(err, errNoFile) {
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

// A LogInfo is one file below the log directory.
type LogInfo struct {
	Name     string `json:"name"`     // below the log directory
	Size     int64  `json:"size"`     // bytes
	Modified string `json:"modified"` // RFC 3339
}

// maxListed bounds a listing.
const maxListed = 4096

func listLogs(dir string) ([]LogInfo, error) {
	out := []LogInfo{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(out) >= maxListed {
			return nil // gone meanwhile, or nothing that is shown
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		out = append(out, LogInfo{rel, info.Size(), info.ModTime().UTC().Format("2006-01-02T15:04:05Z")})
		return err
	})
	return out, err
}

var errNoFile = errors.New("that is no log file")

// sendLog sends a regular file. Links that lead out of the directory lead nowhere (os.Root).
func sendLog(w http.ResponseWriter, dir, name string, tail int64) error {
	if name == "" || path.Clean("/"+name) != "/"+name {
		return errNoFile
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if info, err := root.Stat(name); err != nil { // before it is opened: opening a pipe would wait
		return err
	} else if !info.Mode().IsRegular() {
		return errNoFile
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if tail >= 0 && info.Size() > tail {
		if _, err := f.Seek(-tail, io.SeekEnd); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = io.Copy(w, io.LimitReader(f, info.Size()))
	if err != nil {
		return nil // the client is gone, or too much has been sent to say so
	}
	return nil
}

// A ProcessInfo is one process of a unit (proc_pid_stat(5), proc_pid_cmdline(5)).
type ProcessInfo struct {
	PID         int     `json:"pid"`
	Parent      int     `json:"parent"`
	Name        string  `json:"name"`
	State       string  `json:"state"`
	CPUSeconds  float64 `json:"cpuSeconds"`
	ResidentKiB int64   `json:"residentKiB"`
	Group       string  `json:"group"` // control group
	Command     string  `json:"command"`
}

func listProcesses(proc string) ([]ProcessInfo, error) {
	list, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	out := []ProcessInfo{}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // ended meanwhile
		}
		p, err := parseStat(string(stat))
		if err != nil {
			return nil, err
		}
		p.PID = pid
		if b, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil {
			p.Command = strings.TrimSpace(strings.ReplaceAll(string(b[:min(len(b), 1024)]), "\x00", " "))
		}
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil {
			_, p.Group, _ = strings.Cut(strings.TrimSpace(string(b)), "::")
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b ProcessInfo) int { return a.PID - b.PID })
	return out, nil
}

const (
	clockTicks = 100 // per second, on every Linux that Go runs on
	pageKiB    = 4
)

func parseStat(text string) (p ProcessInfo, err error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')') // the name may hold blanks and brackets
	if open < 0 || end < open {
		return p, fmt.Errorf("read process: %q", text)
	}
	p.Name = text[open+1 : end]
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return p, fmt.Errorf("read process: %d fields", len(f))
	}
	number := func(i int) int64 {
		n, e := strconv.ParseInt(f[i], 10, 64)
		err = errors.Join(err, e)
		return n
	}
	p.State = f[0]
	p.Parent = int(number(1))
	p.CPUSeconds = float64(number(11)+number(12)) / clockTicks
	p.ResidentKiB = number(21) * pageKiB
	return p, err
}

// serveInspect serves with the identity that is there.
func serveInspect(ctx context.Context) error {
	c, err := readCluster(identityDir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(c.Tunnel.String(), strconv.Itoa(InspectPort)))
	if err != nil {
		return err
	}
	return serve(ctx, tls.NewListener(l, inspectTLS(identityDir)), inspect(logDir, "/proc", "/dev/kmsg"))
}
