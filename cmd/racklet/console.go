package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// escapeByte ends a console session when a full stop follows it: Ctrl-].
const escapeByte = 0x1d

func newUnitConsole(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "console UNIT",
		Short: "Open a terminal on a unit's serial console",
		Long: `Console shows the scroll-back that the BMC kept and then what the unit prints, and
sends what you type. Ctrl-] followed by a full stop ends it. If standard input is
no terminal, it prints until the unit's BMC or you end it.`,
		Example:           "  racklet unit console unit-1",
		Args:              exactUnit,
		ValidArgsFunction: env.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := env.client()
			if err != nil {
				return err
			}
			path, err := consolePath(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			return env.console(c.Context(), client, path)
		},
	}
}

func (env *environment) console(ctx context.Context, client *redfishClient, path string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialer := net.Dialer{}
	ws, _, err := websocket.Dial(ctx, "ws://rack"+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", client.socket)
		},
	}}})
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	defer ws.CloseNow()
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)

	if f, ok := env.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer term.Restore(int(f.Fd()), old)
		fmt.Fprint(env.stderr, "(Ctrl-] . ends this console)\r\n")
		go func() {
			copyUntilEscape(conn, env.stdin)
			cancel()
		}()
	}
	if _, err := io.Copy(env.stdout, conn); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) && websocket.CloseStatus(err) == -1 {
		return fmt.Errorf("console: %w", err)
	}
	return nil
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
