package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/racklet/racklet/system/redfish/access"
)

// checkListen refuses addresses that name no host: what is reachable from the network is named.
func checkListen(address string) error {
	if address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--listen %s: want HOST:PORT, such as 127.0.0.1:8443", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("--listen %s: name the one address to listen at", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("--listen %s: port %q: want 1 to 65535", address, port)
	}
	return nil
}

// openNetwork opens the management API's listener on the network, if there is to be one, and
// says by which names it is reached.
func openNetwork(address string) (net.Listener, []string, error) {
	if address == "" {
		return nil, nil, nil
	}
	if err := checkListen(address); err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("open the management API to the network: %w", err)
	}
	host, _, _ := net.SplitHostPort(address)
	return l, []string{host}, nil
}

// welcome tells how to reach the management API over the network, and makes the first account.
func (env *environment) welcome(ctx context.Context, c *redfishClient, address string) error {
	var network struct {
		HTTPS struct {
			ProtocolEnabled bool
			Port            int
		}
	}
	var certificate struct {
		Oem struct{ Racklet struct{ Pin string } }
	}
	err := c.get(ctx, "/redfish/v1/Managers/api/NetworkProtocol", &network)
	if err == nil {
		err = c.get(ctx, "/redfish/v1/Managers/api/NetworkProtocol/HTTPS/Certificates/1", &certificate)
	}
	if err != nil {
		return err
	}
	if _, port, _ := net.SplitHostPort(address); !network.HTTPS.ProtocolEnabled || strconv.Itoa(network.HTTPS.Port) != port {
		return hint(fmt.Errorf("the rack runs without listening at %s", address), "start it anew with: racklet down; racklet up --listen %s", address)
	}
	fmt.Fprintf(env.stderr, "racklet: the management API is at https://%s/redfish/v1\nracklet: its key has the pin %s\n", address, certificate.Oem.Racklet.Pin)
	return env.firstAccount(ctx, c)
}

// firstAccount makes the first administrator. Its secret is shown once, here, and good for one thing:
// to choose a password.
func (env *environment) firstAccount(ctx context.Context, c *redfishClient) error {
	var accounts collection
	if err := c.get(ctx, accountsPath, &accounts); err != nil || len(accounts.Members) > 0 {
		return err
	}
	secret := access.Secret()
	err := c.post(ctx, accountsPath, map[string]any{"UserName": "admin", "Password": secret, "RoleId": access.Administrator, "PasswordChangeRequired": true})
	var refused *redfishError
	if errors.As(err, &refused) && refused.Status == http.StatusConflict {
		return nil // somebody else was faster
	}
	if err != nil {
		return fmt.Errorf("make the first account: %w", err)
	}
	fmt.Fprintf(env.stderr, "racklet: first account: admin, password %s; shown once, to be changed at the first login\n", secret)
	return nil
}
