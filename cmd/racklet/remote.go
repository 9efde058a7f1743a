package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/racklet/racklet/source"
)

const sessionsPath = "/redfish/v1/SessionService/Sessions"

// A login is what is known of a rack on the network: the key that it must have, and the token of a session.
type login struct {
	Pin     string `json:"pin"`
	User    string `json:"user,omitempty"`
	Token   string `json:"token,omitempty"`
	Session string `json:"session,omitempty"` // its URI
}

// logins are those of this user, by address. They are kept in one file for this user alone.
type logins map[string]login

// loginsFile is below the user's configuration directory.
func loginsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the directory for logins: %w", err)
	}
	return filepath.Join(dir, "racklet", "logins.json"), nil
}

// readLogins reads the file, which must be this user's alone: who can write it can name another key.
func readLogins() (logins, error) {
	name, err := loginsFile()
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return logins{}, nil
	}
	if err != nil {
		return nil, err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || ok && int(s.Uid) != os.Getuid() {
		return nil, hint(fmt.Errorf("%s: not a file of this user alone", name), "others may have read or changed it: delete it and log in again")
	}
	all := logins{}
	return all, readJSON(name, &all)
}

func (l logins) save() error {
	name, err := loginsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return writeJSON(name, l)
}

// rackAddress makes one spelling of an address: https://HOST:PORT.
func rackAddress(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("--rack %q: want https://HOST:PORT", text)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return "https://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port), nil
}

// remoteCommands are those that a rack elsewhere can be asked for. The others are about this machine.
var remoteCommands = []string{"status", "watch", "why", "events", "unit", "rack", "account", "api", "login", "logout"}

// checkRemote refuses --rack for what is local by nature.
func (env *environment) checkRemote(c *cobra.Command) error {
	if env.rack == "" {
		return nil
	}
	var err error
	if env.rack, err = rackAddress(env.rack); err != nil {
		return &usageError{err}
	}
	for c.HasParent() && c.Parent().HasParent() {
		c = c.Parent()
	}
	if name := c.Name(); !slices.Contains(remoteCommands, name) && !strings.HasPrefix(name, "__") && name != "help" && name != "completion" {
		return &usageError{fmt.Errorf("racklet %s works on this machine: it takes no --rack", name)}
	}
	return nil
}

// client returns a client of the management API: of the rack that --rack names, or of the one in the state directory.
func (env *environment) client() (*redfishClient, error) {
	if env.rack == "" {
		socket, err := layout{env.state}.socket("redfish")
		if err != nil {
			return nil, err
		}
		return dialRedfish(socket), nil
	}
	all, err := readLogins()
	if err != nil {
		return nil, err
	}
	l, ok := all[env.rack]
	if !ok || l.Token == "" {
		return nil, hint(fmt.Errorf("not logged in to %s", env.rack), "log in with: racklet login --rack %s --user NAME", env.rack)
	}
	return dialRemote(env.rack, l)
}

// dialRemote returns a client for a rack on the network, which must have the pinned key.
func dialRemote(address string, l login) (*redfishClient, error) {
	h, err := source.PinnedClient([]string{l.Pin})
	if err != nil {
		return nil, err
	}
	return &redfishClient{http: h, base: address, token: l.Token}, nil
}

// explainRemote says what to do about an error of a rack on the network.
func (c *redfishClient) explainRemote(err error) error {
	var other *source.Refusal
	if errors.As(err, &other) {
		return hint(fmt.Errorf("%s has another key than it was trusted with: expected %s, saw %s", c.base, other.Expected, other.Seen),
			"somebody may be in between; if its certificate was replaced on purpose, log in again: racklet logout --rack %s; racklet login --rack %s", c.base, c.base)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("ask %s: %w", c.base, err)
}

func newLogin(env *environment) *cobra.Command {
	var user, pin string
	var fromStdin bool
	c := &cobra.Command{
		Use:     "login",
		GroupID: "operate",
		Short:   "Log in to a rack on the network",
		Long: `Login opens a session at the rack that --rack names and keeps its token, so that other commands
with the same --rack use it. The password is asked for; with --password-stdin it is the first line
of standard input. If it must be changed, the new one is asked for too (the second line).

A rack is trusted by the key of its certificate. The first time, login shows the key's pin and asks
whether it is the one that "racklet up --listen" printed; --pin says it beforehand. Later it must be
the same key.`,
		Example: "  racklet login --rack https://127.0.0.1:8443 --user admin\n  racklet status --rack https://127.0.0.1:8443",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if env.rack == "" {
				return &usageError{errors.New("login: name the rack with --rack https://HOST:PORT")}
			}
			if user == "" {
				return &usageError{errors.New("login: name the account with --user")}
			}
			return env.login(c.Context(), user, pin, fromStdin)
		},
	}
	c.Flags().StringVar(&user, "user", "", "`name` of the account")
	c.Flags().StringVar(&pin, "pin", "", "`pin` of the rack's key, sha256//BASE64, as \"racklet up --listen\" prints it")
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return c
}

func (env *environment) login(ctx context.Context, user, pin string, fromStdin bool) error {
	all, err := readLogins()
	if err != nil {
		return err
	}
	p := &prompter{env: env, lines: bufio.NewReader(env.stdin), hidden: !fromStdin}
	known := all[env.rack].Pin
	switch {
	case pin != "" && known != "" && pin != known:
		return hint(fmt.Errorf("%s was trusted with the pin %s", env.rack, known), "if its certificate was replaced on purpose: racklet logout --rack %s", env.rack)
	case pin == "" && known != "":
		pin = known
	case pin == "":
		if pin, err = p.trust(ctx, env.rack, fromStdin); err != nil {
			return err
		}
	}
	client, err := dialRemote(env.rack, login{Pin: pin})
	if err != nil {
		return &usageError{err}
	}
	password, err := p.secret("Password: ")
	if err != nil {
		return err
	}
	l, change, err := client.openSession(ctx, user, password)
	if err != nil {
		return err
	}
	if change {
		fmt.Fprintf(env.stderr, "racklet: the password of %s must be changed\n", user)
		next, err := p.secret("New password: ")
		if err != nil {
			return err
		}
		if !fromStdin {
			if again, err := p.secret("New password, again: "); err != nil {
				return err
			} else if again != next {
				return errors.New("the two are not the same; nothing was changed")
			}
		}
		client.token = l.Token
		if err := client.patch(ctx, accountPath(user), map[string]string{"Password": next}); err != nil {
			return fmt.Errorf("change the password: %w", err)
		}
		client.do(ctx, http.MethodDelete, l.Session, nil, nil) // the change may have ended it already
		client.token = ""
		if l, _, err = client.openSession(ctx, user, next); err != nil {
			return err
		}
	}
	if old := all[env.rack]; old.Session != "" {
		if c, err := dialRemote(env.rack, login{Pin: pin, Token: old.Token}); err == nil {
			c.do(ctx, http.MethodDelete, old.Session, nil, nil) // it may be over
		}
	}
	l.Pin, l.User = pin, user
	all[env.rack] = l
	if err := all.save(); err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	fmt.Fprintf(env.stderr, "racklet: logged in to %s as %s\n", env.rack, user)
	return nil
}

// openSession logs in and says whether the password must be changed first.
func (c *redfishClient) openSession(ctx context.Context, user, password string) (l login, change bool, err error) {
	var session struct {
		ID   string `json:"@odata.id"`
		Info []struct {
			MessageID string `json:"MessageId"`
		} `json:"@Message.ExtendedInfo"`
	}
	head, err := c.exchange(ctx, http.MethodPost, sessionsPath, map[string]string{"UserName": user, "Password": password}, &session)
	var refused *redfishError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		return l, false, hint(errors.New("name or password is not right"), "five wrong ones lock an account for some minutes; a forgotten one is replaced by: racklet account reset %s", user)
	}
	if err != nil {
		return l, false, err
	}
	l = login{Token: head.Get("X-Auth-Token"), Session: session.ID}
	if l.Token == "" {
		return l, false, errors.New("the management API gave no token")
	}
	for _, m := range session.Info {
		change = change || strings.HasSuffix(m.MessageID, ".PasswordChangeRequired")
	}
	return l, change, nil
}

// A prompter asks the person before the terminal.
type prompter struct {
	env    *environment
	lines  *bufio.Reader
	hidden bool
}

// trust shows the pin of a rack that is not known yet and has it confirmed.
func (p *prompter) trust(ctx context.Context, address string, fromStdin bool) (string, error) {
	pin, err := pinAt(ctx, address)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", address, err)
	}
	f, ok := p.env.stdin.(*os.File)
	if fromStdin || !ok || !term.IsTerminal(int(f.Fd())) {
		return "", hint(fmt.Errorf("%s is not known: its key has the pin %s", address, pin), "if that is what \"racklet up --listen\" printed, say so: --pin %s", pin)
	}
	fmt.Fprintf(p.env.stderr, "%s is not known. Its key has the pin\n  %s\nIs that what \"racklet up --listen\" printed? [yes/no] ", address, pin)
	line, err := p.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(line) != "yes" {
		return "", errors.New("the rack is not trusted; nothing was sent")
	}
	return pin, nil
}

// pinAt is the pin of the key that a server proves to have. Nothing is sent to it.
func pinAt(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}} // the person judges
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(address, "https://"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return source.TLSPin(conn.(*tls.Conn).ConnectionState().PeerCertificates[0]), nil
}

// secret asks for a password without showing it.
func (p *prompter) secret(label string) (string, error) {
	f, ok := p.env.stdin.(*os.File)
	if p.hidden && ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(p.env.stderr, label)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(p.env.stderr)
		return string(b), err
	}
	if p.hidden {
		return "", hint(errors.New("standard input is no terminal to ask for a password at"), "give it there with --password-stdin")
	}
	line, err := p.lines.ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func newLogout(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		GroupID: "operate",
		Short:   "End the session at a rack on the network, and forget its key",
		Example: "  racklet logout --rack https://127.0.0.1:8443",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if env.rack == "" {
				return &usageError{errors.New("logout: name the rack with --rack https://HOST:PORT")}
			}
			all, err := readLogins()
			if err != nil {
				return err
			}
			l, ok := all[env.rack]
			if !ok {
				return fmt.Errorf("not logged in to %s", env.rack)
			}
			delete(all, env.rack)
			if err := all.save(); err != nil {
				return err
			}
			client, err := dialRemote(env.rack, l)
			if err == nil && l.Session != "" {
				err = client.do(c.Context(), http.MethodDelete, l.Session, nil, nil)
			}
			var refused *redfishError
			if err != nil && !(errors.As(err, &refused) && refused.Status == http.StatusUnauthorized) { // it is over already
				fmt.Fprintf(env.stderr, "racklet: the session could not be ended, and ends by itself: %v\n", err)
			}
			return nil
		},
	}
}

// withClient makes what a command runs out of what it does with a client of the management API.
func (env *environment) withClient(do func(ctx context.Context, client *redfishClient, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := env.client()
		if err != nil {
			return err
		}
		return do(c.Context(), client, args)
	}
}

// ofStatus makes what a command runs out of what it does with the status of the rack.
func (env *environment) ofStatus(do func(*Status) error) func(*cobra.Command, []string) error {
	return env.withClient(func(ctx context.Context, client *redfishClient, _ []string) error {
		s, err := readStatus(ctx, client)
		if err == nil && env.rack == "" {
			s.Kubernetes, err = readKubernetes(ctx, layout{env.state})
		}
		if err != nil {
			return err
		}
		return do(s)
	})
}

// quoted writes characters that could command a terminal or reorder a line as JSON writes them: it stays the same JSON.
func quoted(b []byte) []byte {
	var out []byte
	for _, r := range string(b) {
		if r == '\n' || r == '\t' || r >= ' ' && printable(string(r)) == string(r) {
			out = append(out, string(r)...)
			continue
		}
		e, _ := json.Marshal(string(r))
		if s := strings.Trim(string(e), `"`); s != string(r) {
			out = append(out, s...)
			continue
		}
		for _, u := range utf16Of(r) {
			out = fmt.Appendf(out, `\u%04x`, u)
		}
	}
	return out
}
