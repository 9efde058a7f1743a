package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// A cluster is what a unit learns with its identity of the cluster that it
// belongs to: file cluster.json of the identity.
type cluster struct {
	Server      string       `json:"server"` // URL of the API server
	DNS         netip.Addr   `json:"dns"`
	PodCIDR     netip.Prefix `json:"podCIDR"`
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	Tunnel      netip.Addr   `json:"tunnelAddress"` // of this unit
}

// identityFiles must be there, beside cluster.json, for the kubelet to start.
var identityFiles = []string{"ca.crt", "client.crt", "client.key", "serving.crt", "serving.key"}

// readCluster reads the identity's cluster; until there is a whole identity it
// is an error.
func readCluster(dir string) (*cluster, error) {
	for _, name := range identityFiles {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return parseCluster(b)
}

func parseCluster(b []byte) (*cluster, error) {
	c := new(cluster)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("decode cluster of the identity: %w", err)
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(c.Server, "\"\n\\ ") {
		return nil, fmt.Errorf("decode cluster of the identity: server %q is no https URL", c.Server)
	}
	if !c.DNS.IsValid() || c.DNS.Zone() != "" || !c.ClusterCIDR.IsValid() || !c.Tunnel.IsValid() || c.Tunnel.Zone() != "" {
		return nil, fmt.Errorf("decode cluster of the identity: dns, clusterCIDR or tunnelAddress is missing")
	}
	return c, nil
}

// fill puts the cluster's values into a configuration.
func (c *cluster) fill(text string) string {
	return strings.NewReplacer(
		"${SERVER}", c.Server, "${DNS}", c.DNS.String(), "${TUNNEL}", c.Tunnel.String(),
		"${CLUSTER_CIDR}", c.ClusterCIDR.String(),
	).Replace(text)
}

// kubeconfig names the identity's files, so that a renewed certificate is
// taken up without a restart.
const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: rack, cluster: {server: "${SERVER}", certificate-authority: ` + identityDir + `/ca.crt}}]
users: [{name: unit, user: {client-certificate: ` + identityDir + `/client.crt, client-key: ` + identityDir + `/client.key}}]
contexts: [{name: rack, context: {cluster: rack, user: unit}}]
current-context: rack
`
