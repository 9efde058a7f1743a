package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// kubeProgram is Kubernetes in one program, beside this one: a module of its own (system/kubernetes).
const kubeProgram = "racklet-kube"

func (l layout) nodeCA() string { return filepath.Join(l.enroll(), "ca.crt") } // certifies nodes

// objects is where the control plane finds the rack's objects as the owners signed them.
func (l layout) objects() string { return filepath.Join(l.state, "objects.json") }

// writeObjects passes on a verified state.
func writeObjects(l layout, v *source.Verified) error {
	set := v.Set
	objects := []any{set.Rack}
	for _, u := range set.Units {
		objects = append(objects, u)
	}
	for _, name := range slices.Sorted(maps.Keys(set.Releases)) {
		objects = append(objects, set.Releases[name])
	}
	for _, name := range slices.Sorted(maps.Keys(set.Thermal)) {
		objects = append(objects, set.Thermal[name])
	}
	for _, name := range slices.Sorted(maps.Keys(set.Power)) {
		objects = append(objects, set.Power[name])
	}
	return writeJSON(l.objects(), map[string]any{"commit": v.Commit, "sequence": v.Sequence, "objects": objects})
}

// A controlPlane is the child process that runs the rack's Kubernetes.
type controlPlane struct {
	layout  layout
	program string
	spec    rack.RackKubernetes
	log     *slog.Logger
}

// newControlPlane returns nil for a rack without Kubernetes.
func newControlPlane(l layout, r *rack.Rack, log *slog.Logger) (*controlPlane, error) {
	spec := r.Spec.Kubernetes
	if spec.Placement == "" {
		return nil, nil
	}
	program, err := findKubeProgram()
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(program, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", program, err)
	}
	have := strings.TrimSpace(string(out))
	if want := spec.Version; want != "" && have != want && !strings.HasPrefix(have, want+"+") {
		return nil, hint(fmt.Errorf("the rack shall run Kubernetes %s, and %s is %s", want, program, have), "build that version of Racklet, or sign another spec.kubernetes.version")
	}
	return &controlPlane{l, program, spec, log}, nil
}

func findKubeProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	program := filepath.Join(filepath.Dir(self), kubeProgram)
	if _, err := os.Stat(program); err != nil {
		return "", hint(fmt.Errorf("no %s beside %s", kubeProgram, self), "build it with: make kubernetes")
	}
	return program, nil
}

// run keeps the control plane running until ctx ends, then waits until it has stopped.
func (p *controlPlane) run(ctx context.Context) error {
	backoff := time.Second
	for {
		start := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > time.Minute {
			backoff = time.Second
		}
		p.log.Error("the control plane ended; starting it again", "error", err, "after", backoff, "log", p.logName())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, 30*time.Second)
	}
}

func (p *controlPlane) logName() string { return filepath.Join(p.layout.kubernetes(), "server.log") }

// once runs it to its end. It ends by itself when its input closes, which happens even if this
// process is killed.
func (p *controlPlane) once(ctx context.Context) error {
	args, err := p.args()
	if err != nil {
		return err
	}
	if err := privateDir(p.layout.kubernetes()); err != nil {
		return err
	}
	log, err := os.OpenFile(p.logName(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, p.program, append([]string{"attached", "server"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	if err := cmd.Run(); err != nil {
		return err
	}
	return errors.New("it ended by itself")
}

func (p *controlPlane) args() ([]string, error) {
	sockets, err := p.layout.sockets()
	if err != nil {
		return nil, err
	}
	socket := func(name string) string { return filepath.Join(sockets, name+".sock") }
	args := []string{
		"--data", p.layout.kubernetes(), "--sockets", sockets, "--pods", p.spec.Pods, "--services", p.spec.Services,
		"--egress-socket", socket("egress"), "--authorize-socket", socket("enroll"),
		"--redfish", socket("redfish"), "--objects", p.layout.objects(),
	}
	if _, err := os.Stat(p.layout.nodeCA()); err == nil {
		args = append(args, "--node-ca", p.layout.nodeCA())
	}
	if len(p.spec.Features) > 0 {
		args = append(args, "--feature-gates", strings.Join(p.spec.Features, ","))
	}
	return args, nil
}

// KubernetesStatus is the control plane as its supervisor sees it.
type KubernetesStatus struct {
	Version    string            `json:"version"`
	Ready      bool              `json:"ready"`
	Address    string            `json:"address"`
	Components []ComponentStatus `json:"components"`
}

// ComponentStatus is one process of the control plane.
type ComponentStatus struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // waiting, starting, ready, unhealthy, stopped
	PID       int       `json:"pid,omitempty"`
	Restarts  int       `json:"restarts"`
	Since     time.Time `json:"since"`
	LastError string    `json:"lastError,omitempty"`
}

// readKubernetes asks the control plane how it is; a rack without one has nil.
func readKubernetes(ctx context.Context, l layout) (*KubernetesStatus, error) {
	socket, err := l.socket("kubernetes")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(socket); err != nil {
		return nil, nil
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kubernetes/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil // its server is gone and left the socket behind
	}
	defer resp.Body.Close()
	s := new(KubernetesStatus)
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(s); err != nil {
		return nil, fmt.Errorf("read the control plane's status: %w", err)
	}
	return s, nil
}

// line sums the control plane up.
func (k *KubernetesStatus) line() string {
	var not []string
	for _, c := range k.Components {
		if c.State != "ready" {
			not = append(not, c.Name+" "+c.State)
		}
	}
	if len(not) == 0 {
		return "kubernetes " + k.Version + ": ready"
	}
	return "kubernetes " + k.Version + ": " + strings.Join(not, ", ")
}

// roles are the users that the control plane keeps certificates for.
var roles = []string{"administrator", "operator", "viewer"}

// kubeconfigFile is where the control plane keeps a role's configuration.
func (env *environment) kubeconfigFile(role string) (string, error) {
	l := layout{env.state}
	name := filepath.Join(l.kubernetes(), "config", role+".kubeconfig")
	if _, err := os.Stat(name); err != nil {
		return "", hint(fmt.Errorf("the rack in %s has no Kubernetes", l.state), "start one whose Rack object has spec.kubernetes: racklet up")
	}
	return name, nil
}

func roleFlag(c *cobra.Command, role *string) {
	c.Flags().StringVar(role, "as", roles[0], "`role` to act in: "+strings.Join(roles, ", "))
	c.RegisterFlagCompletionFunc("as", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
}

func checkRole(role string) error {
	for _, r := range roles {
		if r == role {
			return nil
		}
	}
	return &usageError{fmt.Errorf("--as %q: want one of %s", role, strings.Join(roles, ", "))}
}

func newKubectl(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "kubectl ARGS...",
		GroupID: "operate",
		Short:   "Run kubectl on the rack's Kubernetes",
		Long: `Kubectl is the upstream client, compiled in, with the administrator's certificate of the rack in
the state directory. All arguments are kubectl's own, but for a leading --state DIR. For another role, or for your
own kubectl, see "racklet help kubeconfig".`,
		Example: `  racklet kubectl get nodes
  racklet kubectl get computeunits
  racklet kubectl logs deploy/web`,
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) >= 2 && args[0] == "--state" {
				env.state, args = args[1], args[2:]
			}
			state, err := filepath.Abs(env.state)
			if err != nil {
				return err
			}
			env.state = state
			program, err := findKubeProgram()
			if err != nil {
				return err
			}
			config, err := env.kubeconfigFile(roles[0])
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(c.Context(), program, append([]string{"kubectl"}, args...)...)
			cmd.Env = append(os.Environ(), "KUBECONFIG="+config)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = env.stdin, env.stdout, env.stderr
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			var exit *exec.ExitError
			if err := cmd.Run(); errors.As(err, &exit) {
				return exitCode(max(exit.ExitCode(), 1)) // kubectl has said why
			} else if err != nil {
				return fmt.Errorf("run kubectl: %w", err)
			}
			return nil
		},
	}
}

func newKubeconfig(env *environment) *cobra.Command {
	var role string
	var credential bool
	c := &cobra.Command{
		Use:     "kubeconfig",
		GroupID: "operate",
		Short:   "Print a kubeconfig for your own kubectl",
		Long: `Kubeconfig prints a configuration with which any Kubernetes client speaks to the rack, in one
of three roles: the administrator may do everything, an operator runs workloads and hardware, a viewer sees all but
secrets. Certificates live a day and are renewed by the rack, so the file asks this program for the one of now.`,
		Example: `  racklet kubeconfig > ~/.kube/rack
  racklet kubeconfig --as viewer > viewer.kubeconfig
  kubectl --kubeconfig ~/.kube/rack get nodes`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkRole(role); err != nil {
				return err
			}
			if _, err := env.kubeconfigFile(role); err != nil {
				return err
			}
			if credential {
				return env.printCredential(role)
			}
			return env.printKubeconfig(role)
		},
	}
	roleFlag(c, &role)
	c.Flags().BoolVar(&credential, "credential", false, "print the certificate of now, as clients ask for it")
	c.Flags().MarkHidden("credential")
	return c
}

func (env *environment) printKubeconfig(role string) error {
	l := layout{env.state}
	address, err := os.ReadFile(filepath.Join(l.kubernetes(), "address"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(l.kubernetes(), "pki", "ca.crt"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	type m = map[string]any
	v := m{
		"apiVersion": "v1", "kind": "Config", "current-context": "racklet",
		"clusters": []m{{"name": "racklet", "cluster": m{"server": "https://" + strings.TrimSpace(string(address)), "certificate-authority-data": ca}}},
		"contexts": []m{{"name": "racklet", "context": m{"cluster": "racklet", "user": role}}},
		"users": []m{{"name": role, "user": m{"exec": m{
			"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": self,
			"args": []string{"kubeconfig", "--credential", "--as", role, "--state", l.state},
		}}}},
	}
	out := *env
	if out.output != "json" {
		out.output = "yaml"
	}
	return out.print(v, nil)
}

// printCredential prints an ExecCredential (client.authentication.k8s.io/v1).
func (env *environment) printCredential(role string) error {
	b, err := os.ReadFile(filepath.Join(layout{env.state}.kubernetes(), "pki", role+".pem"))
	if err != nil {
		return err
	}
	end := strings.Index(string(b), "-----BEGIN PRIV")
	if end < 0 {
		return fmt.Errorf("certificate of %s: no key", role)
	}
	type m = map[string]any
	e := json.NewEncoder(env.stdout)
	return e.Encode(m{
		"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
		"status": m{"clientCertificateData": string(b[:end]), "clientKeyData": string(b[end:]), "expirationTimestamp": time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)},
	})
}
