package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// escapeByte ends a console session when a full stop follows it: Ctrl-].
const escapeByte = 0x1d

func newUnitConsole(env *environment) *cobra.Command {
	var takeOver, recording bool
	c := &cobra.Command{
		Use:   "console UNIT",
		Short: "Open a terminal on a unit's serial console",
		Long: `Console shows the scroll-back that the service kept and then what the unit prints, and
sends what you type. Ctrl-] followed by a full stop ends it. If standard input is
no terminal, it prints until the unit's BMC or you end it.

Many may look at once; one types, the first that does. --takeover types instead of them.
With --recording it prints what the console has printed since longer, with times and
without anything that commands a terminal.`,
		Example:           "  racklet unit console unit-1\n  racklet unit console unit-1 --takeover\n  racklet unit console unit-1 --recording",
		Args:              exactUnit,
		ValidArgsFunction: env.completeUnits,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			path, err := consolePath(ctx, client, args[0])
			if err != nil {
				return err
			}
			switch {
			case recording && takeOver:
				return &usageError{errors.New("unit console: --takeover goes without --recording")}
			case recording:
				return env.recording(ctx, client, path+"/Recording")
			case takeOver:
				path += "?takeover"
			}
			return env.console(ctx, client, path)
		}),
	}
	c.Flags().BoolVar(&takeOver, "takeover", false, "type instead of whoever does")
	c.Flags().BoolVar(&recording, "recording", false, "print the recording instead")
	return c
}

// recording prints what a console has printed.
func (env *environment) recording(ctx context.Context, client *redfishClient, path string) error {
	req, err := client.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	resp, err := client.http.Do(req)
	if err != nil {
		return client.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return client.refused(resp.StatusCode, b)
	}
	return copyClean(env.stdout, resp.Body)
}

// dialConsole opens the WebSocket of a console. It needs HTTP/1.1 (RFC 6455, 4.1).
func (c *redfishClient) dialConsole(ctx context.Context, path string) (*websocket.Conn, error) {
	t := c.http.Transport.(*http.Transport).Clone()
	t.ForceAttemptHTTP2, t.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	head := http.Header{}
	if c.token != "" {
		head.Set("X-Auth-Token", c.token)
	}
	ws, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(c.base, "http")+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: t}, HTTPHeader: head, Subprotocols: []string{"racklet.console"},
	})
	switch {
	case err == nil:
		return ws, nil
	case resp != nil && resp.Body != nil:
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return nil, fmt.Errorf("open the console: %w", c.refused(resp.StatusCode, b))
	}
	return nil, fmt.Errorf("open the console: %w", c.explain(err))
}

func (env *environment) console(ctx context.Context, client *redfishClient, path string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ws, err := client.dialConsole(ctx, path)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20) // the scroll-back comes in one message
	if f, ok := env.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer term.Restore(int(f.Fd()), old)
		fmt.Fprint(env.stderr, "(Ctrl-] . ends this console)\r\n")
		go func() {
			copyUntilEscape(typist{ctx, ws}, env.stdin)
			cancel()
		}()
	}
	for {
		kind, data, err := ws.Read(ctx)
		var end websocket.CloseError
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &end):
			if end.Reason != "" {
				fmt.Fprintf(env.stderr, "\r\nracklet: the console was closed: %s\r\n", printable(end.Reason))
			}
			return nil
		case err != nil:
			return fmt.Errorf("console: %w", err)
		case kind == websocket.MessageText: // of the service
			var says struct{ Writer string }
			if json.Unmarshal(data, &says) == nil {
				fmt.Fprintf(env.stderr, "\r\n(%s types; what you type is dropped. To type instead, come again with --takeover.)\r\n", printable(says.Writer))
			}
		default:
			if _, err := env.stdout.Write(data); err != nil {
				return err
			}
		}
	}
}

// typist sends what is typed.
type typist struct {
	ctx context.Context
	ws  *websocket.Conn
}

func (t typist) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return len(b), t.ws.Write(t.ctx, websocket.MessageBinary, b)
}

// copyUntilEscape copies what is typed until the escape byte and a full stop.
// The escape byte typed twice is sent once.
func copyUntilEscape(w io.Writer, r io.Reader) error {
	escaped := false
	var in [256]byte
	for {
		n, err := r.Read(in[:])
		if err != nil {
			return err
		}
		out := make([]byte, 0, n+1)
		for _, b := range in[:n] {
			switch {
			case escaped && b == '.':
				w.Write(out)
				return nil
			case escaped && b == escapeByte:
				out, escaped = append(out, b), false
			case escaped:
				out, escaped = append(out, escapeByte, b), false
			case b == escapeByte:
				escaped = true
			default:
				out = append(out, b)
			}
		}
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
}
