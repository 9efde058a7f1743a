package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/racklet/racklet/system/kubernetes/pki"
)

// Config says where a control plane keeps its data and how nodes and it find each other.
type Config struct {
	Program string // racklet-kube itself
	Dir     string // data, keys, logs; this user's alone
	Sockets string // directory of the Unix sockets, which must have a short name
	NodeCA  string // file: authorities of the nodes' certificates, "" is none
	// Unix socket of an HTTP CONNECT proxy that leads to nodes and pods, "" is the host's own network.
	Egress string
	// Unix socket that answers SubjectAccessReviews of nodes at /authorize, "" is none.
	Authorize string
	// What nodes and pods reach the API server as.
	Advertise netip.AddrPort
	PodRanges []netip.Prefix
	Services  []netip.Prefix // ranges of cluster IPs, the first's first address is the API server's
	Features  []string       // feature gates, NAME=true
	Etcd      Etcd
	Redfish   string // Unix socket of the rack's management API, "" runs no rack controller
	Objects   string // file with the rack's objects as the owners signed them, "" is none
}

// Etcd is an external store instead of kine on SQLite.
type Etcd struct {
	Servers       []string
	CA, Cert, Key string // files
}

// Identities of people and programs. A user of the rack is member of one of the groups.
const (
	Administrators = "racklet:administrators"
	Operators      = "racklet:operators"
	Viewers        = "racklet:viewers"
)

// Validate says what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("no data directory: want --data DIR")
	case len(c.PodRanges) == 0 || len(c.Services) == 0:
		return errors.New("no address ranges: want --pods and --services")
	case !c.Advertise.IsValid():
		return errors.New("no address for nodes: want --advertise ADDRESS:PORT")
	}
	for _, a := range c.PodRanges {
		for _, b := range c.Services {
			if a.Overlaps(b) {
				return fmt.Errorf("pod range %v and service range %v overlap", a, b)
			}
		}
	}
	if len(c.Sockets)+len("/kubernetes.sock") > 100 {
		return fmt.Errorf("the directory of the sockets has too long a name: %s", c.Sockets)
	}
	return nil
}

func (c *Config) path(names ...string) string {
	return filepath.Join(append([]string{c.Dir}, names...)...)
}

func (c *Config) keys() pki.Folder { return pki.Folder{Dir: c.path("pki"), Now: now} }

// serviceIP is the cluster IP of the API server.
func (c *Config) serviceIP() netip.Addr { return c.Services[0].Masked().Addr().Next() }

// leaves are all certificates that the control plane keeps.
func (c *Config) leaves() []pki.Leaf {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), c.Advertise.Addr().AsSlice(), c.serviceIP().AsSlice()}
	return []pki.Leaf{
		{Name: "apiserver", CN: "kube-apiserver", Server: true, IPs: ips, DNS: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{Name: "controller-manager-serving", CN: "kube-controller-manager", Server: true, IPs: ips[:1]},
		{Name: "scheduler-serving", CN: "kube-scheduler", Server: true, IPs: ips[:1]},
		{Name: "authorize-serving", CN: "node-authorizer", Server: true, IPs: ips[:1]},
		{Name: "kubelet-client", CN: "kube-apiserver-kubelet-client"},
		{Name: "authorize-client", CN: "kube-apiserver", Groups: []string{"racklet:authorize"}},
		{Name: "front-proxy", CN: "front-proxy", Signer: "front-proxy-ca"},
		{Name: "bootstrap", CN: "racklet-kube", Groups: []string{"system:masters"}},
		{Name: "controller-manager", CN: "system:kube-controller-manager"},
		{Name: "scheduler", CN: "system:kube-scheduler"},
		{Name: "controller", CN: "racklet:controller"},
		{Name: "administrator", CN: "administrator", Groups: []string{Administrators}},
		{Name: "operator", CN: "operator", Groups: []string{Operators}},
		{Name: "viewer", CN: "viewer", Groups: []string{Viewers}},
	}
}

// clients are the leaves that have a kubeconfig file.
var clients = []string{"bootstrap", "controller-manager", "scheduler", "controller", "administrator", "operator", "viewer"}

// writeFiles writes the configuration files of all components; local is the API server's address on
// this host, authorizer that of the node authorizer, or "".
func (c *Config) writeFiles(local, authorizer string) error {
	secret, err := c.keys().SecretKey()
	if err != nil {
		return err
	}
	files := map[string]any{
		"audit.json":         auditPolicy(),
		"admission.json":     admission(),
		"encryption.json":    encryption(secret),
		"authorization.json": authorization(c.path("config", "authorizer.kubeconfig"), authorizer != ""),
	}
	if c.Egress != "" {
		files["egress.json"] = object{
			"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
			"egressSelections": []object{{"name": "cluster", "connection": object{"proxyProtocol": "HTTPConnect", "transport": object{"uds": object{"udsName": c.Egress}}}}},
		}
	}
	if authorizer != "" {
		files["authorizer.kubeconfig"] = kubeconfig("https://"+authorizer+"/authorize", c.keys().Path("ca.crt"), c.keys().Path("authorize-client"))
	}
	for _, name := range clients {
		files[name+".kubeconfig"] = kubeconfig("https://"+local, c.keys().Path("ca.crt"), c.keys().Path(name))
	}
	if err := os.MkdirAll(c.path("config"), 0o700); err != nil {
		return err
	}
	for name, v := range files {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		if _, err := pki.Replace(c.path("config", name), append(b, '\n')); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

// kubeconfig names files, so that renewed certificates are taken up.
func kubeconfig(server, ca, pair string) object {
	return object{
		"apiVersion": "v1", "kind": "Config", "current-context": "rack",
		"clusters": []object{{"name": "rack", "cluster": object{"server": server, "certificate-authority": ca}}},
		"users":    []object{{"name": "rack", "user": object{"client-certificate": pair, "client-key": pair}}},
		"contexts": []object{{"name": "rack", "context": object{"cluster": "rack", "user": "rack"}}},
	}
}

// auditPolicy records who did what, but not the contents, which may be secret, and not the
// heartbeats.
func auditPolicy() object {
	return object{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": []string{"RequestReceived"},
		"rules": []object{
			{"level": "None", "resources": []object{{"group": "coordination.k8s.io", "resources": []string{"leases"}}}},
			{"level": "None", "resources": []object{{"group": "", "resources": []string{"events"}}, {"group": "events.k8s.io", "resources": []string{"events"}}}},
			{"level": "None", "nonResourceURLs": []string{"/healthz*", "/livez*", "/readyz*", "/openapi/*", "/version", "/metrics"}},
			{"level": "None", "userGroups": []string{"system:nodes"}, "verbs": []string{"get", "list", "watch", "patch", "update"}, "resources": []object{{"group": "", "resources": []string{"nodes", "nodes/status", "pods", "pods/status"}}}},
			{"level": "None", "users": []string{"system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"}, "verbs": []string{"get", "list", "watch"}},
			{"level": "Metadata"},
		},
	}
}

// admission makes the baseline of the Pod Security Standards the default. Our own components on the
// nodes need more, which is what their namespace is for.
func admission() object {
	return object{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
		"plugins": []object{{"name": "PodSecurity", "configuration": object{
			"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
			"defaults":   object{"enforce": "baseline", "enforce-version": "latest", "warn": "restricted", "warn-version": "latest", "audit": "restricted", "audit-version": "latest"},
			"exemptions": object{"namespaces": []string{"kube-system"}},
		}}},
	}
}

func encryption(key string) object {
	return object{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
		"resources": []object{{"resources": []string{"secrets"}, "providers": []object{
			{"secretbox": object{"keys": []object{{"name": "rack", "secret": key}}}},
			{"identity": object{}},
		}}},
	}
}

// authorization asks the verifier about nodes before anything else. A verifier that does not answer
// has no opinion: nodes hold out until their certificates expire.
func authorization(kubeconfig string, webhook bool) object {
	list := []object{{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}}
	if webhook {
		list = append([]object{{"type": "Webhook", "name": "attestation", "webhook": object{
			"timeout": "2s", "authorizedTTL": "1s", "unauthorizedTTL": "1s", "subjectAccessReviewVersion": "v1",
			"matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
			"connectionInfo":  object{"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
			"matchConditions": []object{{"expression": "'system:nodes' in request.groups"}},
		}}}, list...)
	}
	return object{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": list}
}

func join[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ",")
}

// apiserverArgs are the API server's flags.
func (c *Config) apiserverArgs(local netip.AddrPort) []string {
	k, conf := c.keys().Path, func(name string) string { return c.path("config", name) }
	args := []string{
		"--bind-address=" + local.Addr().String(), fmt.Sprintf("--secure-port=%d", local.Port()),
		"--advertise-address=" + c.Advertise.Addr().String(), "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + k("apiserver"), "--tls-private-key-file=" + k("apiserver"), "--tls-min-version=VersionTLS13",
		"--client-ca-file=" + conf("clients.crt"), "--anonymous-auth=false",
		"--authorization-config=" + conf("authorization.json"),
		"--kubelet-certificate-authority=" + conf("kubelets.crt"), "--kubelet-client-certificate=" + k("kubelet-client"), "--kubelet-client-key=" + k("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + k("service-account.pub"), "--service-account-signing-key-file=" + k("service-account"),
		"--service-cluster-ip-range=" + join(c.Services),
		"--enable-admission-plugins=NodeRestriction", "--admission-control-config-file=" + conf("admission.json"),
		"--requestheader-client-ca-file=" + k("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + k("front-proxy"), "--proxy-client-key-file=" + k("front-proxy"), "--enable-aggregator-routing=true",
		"--audit-policy-file=" + conf("audit.json"), "--audit-log-path=" + c.path("audit", "audit.log"), "--audit-log-maxsize=16", "--audit-log-maxbackup=4",
		"--encryption-provider-config=" + conf("encryption.json"),
		"--allow-privileged=true", "--profiling=false",
	}
	if c.Egress != "" {
		args = append(args, "--egress-selector-config-file="+conf("egress.json"))
	}
	if e := c.Etcd; len(e.Servers) > 0 {
		args = append(args, "--etcd-servers="+strings.Join(e.Servers, ","))
		if e.CA != "" {
			args = append(args, "--etcd-cafile="+e.CA, "--etcd-certfile="+e.Cert, "--etcd-keyfile="+e.Key)
		}
	} else {
		args = append(args, "--etcd-servers=unix://"+c.kineSocket())
	}
	return append(args, c.gates()...)
}

func (c *Config) kineSocket() string { return filepath.Join(c.Sockets, "kine.sock") }

func (c *Config) gates() []string {
	if len(c.Features) == 0 {
		return nil
	}
	return []string{"--feature-gates=" + strings.Join(c.Features, ",")}
}

// withKubeconfig are the flags that controller manager and scheduler share.
func (c *Config) withKubeconfig(name string, port uint16) []string {
	file := c.path("config", name+".kubeconfig")
	return append([]string{
		"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file, "--leader-elect=false", "--profiling=false",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--tls-cert-file=" + c.keys().Path(name+"-serving"), "--tls-private-key-file=" + c.keys().Path(name+"-serving"),
	}, c.gates()...)
}

// controllerManagerArgs leave out what signs certificates: nothing joins but through the verifier.
func (c *Config) controllerManagerArgs(port uint16) []string {
	k := c.keys().Path
	return append(c.withKubeconfig("controller-manager", port),
		"--use-service-account-credentials=true", "--service-account-private-key-file="+k("service-account"), "--root-ca-file="+k("ca.crt"),
		"--controllers=*,-certificatesigningrequest-signing-controller,-certificatesigningrequest-approving-controller",
		"--allocate-node-cidrs=false", "--cluster-cidr="+join(c.PodRanges), "--service-cluster-ip-range="+join(c.Services),
	)
}
