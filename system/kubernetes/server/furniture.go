package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// furniture is what every rack's cluster holds: who may do what, and where pods find the API server.
func (s *Server) furniture() []object {
	rule := func(groups, resources, verbs []string) object {
		return object{"apiGroups": groups, "resources": resources, "verbs": verbs}
	}
	var (
		core  = []string{""}
		rack  = []string{"racklet.io"}
		all   = []string{"*"}
		read  = []string{"get", "list", "watch"}
		write = []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	)
	role := func(name string, rules ...object) object {
		return object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": object{"name": name}, "rules": rules}
	}
	// A role's name and its binding's are one.
	bind := func(name, role, kind, subject string) object {
		return object{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": object{"name": name},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
			"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject}},
		}
	}
	list := []object{
		bind("racklet:administrator", "cluster-admin", "Group", Administrators),

		// Operators run workloads and the rack's hardware; who may do what is not theirs to say.
		role("racklet:operator",
			rule(rack, all, write),
			rule(core, []string{"nodes"}, []string{"get", "list", "watch", "patch", "update"}),
			rule(core, []string{"pods/eviction"}, []string{"create"}),
			rule(core, []string{"namespaces", "persistentvolumes"}, write),
			rule([]string{"storage.k8s.io"}, all, read),
			rule([]string{"metrics.k8s.io"}, all, read),
		),
		bind("racklet:operator", "racklet:operator", "Group", Operators),
		bind("racklet:operator-workloads", "edit", "Group", Operators),

		// Viewers see everything but secrets.
		role("racklet:viewer",
			rule(rack, all, read),
			rule(core, []string{"nodes", "namespaces", "persistentvolumes"}, read),
			rule([]string{"storage.k8s.io"}, all, read),
			rule([]string{"metrics.k8s.io"}, all, read),
		),
		bind("racklet:viewer", "racklet:viewer", "Group", Viewers),
		bind("racklet:viewer-workloads", "view", "Group", Viewers),

		// The API server's own way to kubelets.
		bind("racklet:kubelet-client", "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"),

		// A node's programs share its identity: kube-proxy reads Services, the network agent policies
		// and the addresses of pods.
		bind("racklet:node-proxier", "system:node-proxier", "Group", "system:nodes"),
		role("racklet:network",
			rule(core, []string{"pods", "namespaces"}, read),
			rule([]string{"networking.k8s.io"}, []string{"networkpolicies"}, read),
		),
		bind("racklet:network", "racklet:network", "Group", "system:nodes"),

		role("racklet:controller",
			rule(rack, all, all),
			rule([]string{"apiextensions.k8s.io"}, []string{"customresourcedefinitions"}, write),
			rule(core, []string{"nodes", "nodes/status"}, write),
			rule(core, []string{"pods"}, []string{"get", "list", "watch", "delete"}),
			rule(core, []string{"pods/eviction"}, []string{"create"}),
			rule([]string{"apps"}, []string{"daemonsets"}, []string{"get", "list"}),
			rule(core, []string{"events"}, []string{"create", "patch"}),
		),
		bind("racklet:controller", "racklet:controller", "User", "racklet:controller"),
	}
	address := s.Advertise.Addr().Unmap()
	family := "IPv4"
	if address.Is6() {
		family = "IPv6"
	}
	return append(list, object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
		"metadata":  object{"name": "kubernetes", "namespace": "default", "labels": object{"kubernetes.io/service-name": "kubernetes"}},
		"endpoints": []object{{"addresses": []string{address.String()}, "conditions": object{"ready": true}}},
		"ports":     []object{{"name": "https", "port": s.Advertise.Port(), "protocol": "TCP"}},
	})
}

// collections are the kinds that apply knows.
var collections = map[string]string{
	"ClusterRole":        "/apis/rbac.authorization.k8s.io/v1/clusterroles/",
	"ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/",
	"EndpointSlice":      "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/",
}

// apply makes the API server hold these objects, by server-side apply.
func apply(ctx context.Context, client *http.Client, base string, objects []object) error {
	defer client.CloseIdleConnections()
	for _, o := range objects {
		name := o["metadata"].(object)["name"].(string)
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		path := collections[o["kind"].(string)] + url.PathEscape(name) + "?fieldManager=racklet-kube&force=true"
		req, err := http.NewRequestWithContext(ctx, http.MethodPatch, base+path, bytes.NewReader(b))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/apply-patch+yaml")
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
		b, _ = io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			return fmt.Errorf("apply %s: %s: %s", name, resp.Status, bytes.TrimSpace(b))
		}
	}
	return nil
}
