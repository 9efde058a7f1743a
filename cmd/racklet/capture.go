package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// simGet asks the virtual rack's /sim/v1.
func (env *environment) simGet(ctx context.Context, path string) (*http.Response, error) {
	client, err := env.dialSim()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sim"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNoRack
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		var e struct{ Error string }
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = strings.TrimSpace(string(b))
		}
		return nil, errors.New(e.Error)
	}
	return resp, nil
}

// machineCPU returns the CPU seconds that each unit's machine has used since
// its power-on; empty for a rack that is not virtual.
func (env *environment) machineCPU(ctx context.Context) map[string]float64 {
	resp, err := env.simGet(ctx, "/sim/v1")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var state struct {
		Slots []struct {
			Unit    string `json:"unit"`
			Machine *struct {
				CPUSeconds float64 `json:"cpuSeconds"`
			} `json:"machine"`
		} `json:"slots"`
	}
	if json.NewDecoder(resp.Body).Decode(&state) != nil {
		return nil
	}
	cpu := map[string]float64{}
	for _, s := range state.Slots {
		if s.Machine != nil {
			cpu[s.Unit] = s.Machine.CPUSeconds
		}
	}
	return cpu
}

func newCapture(env *environment) *cobra.Command {
	var port, file string
	var duration time.Duration
	c := &cobra.Command{
		Use:     "capture",
		GroupID: "operate",
		Short:   "Capture the frames on the rack's switch",
		Long: `Capture writes the frames that cross the virtual rack's switch as pcapng, for Wireshark
or tcpdump, until it is interrupted. Without --port it has every frame of the rack once.`,
		Example: `  racklet capture --port unit-1 --write unit-1.pcapng
  racklet capture --duration 10s | tcpdump -r -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if port != "" {
				q.Set("port", port)
			}
			if duration > 0 {
				q.Set("seconds", strconv.FormatFloat(duration.Seconds(), 'f', -1, 64))
			}
			return env.capture(c.Context(), "/sim/v1/capture?"+q.Encode(), file)
		},
	}
	c.Flags().StringVar(&port, "port", "", "only this `port`: a unit's name, or gateway")
	c.Flags().StringVarP(&file, "write", "w", "", "`file` to write; - or nothing is standard output")
	c.Flags().DurationVar(&duration, "duration", 0, "stop after this time")
	c.RegisterFlagCompletionFunc("port", env.completeUnits)
	return c
}

func (env *environment) capture(ctx context.Context, path, file string) error {
	out := env.stdout
	if file == "" || file == "-" {
		if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return hint(errors.New("a capture is no text for a terminal"), "name a file with --write, or pipe it into a reader")
		}
	}
	resp, err := env.simGet(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if file != "" && file != "-" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	n, err := io.Copy(out, resp.Body)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("capture: %w", err)
	}
	fmt.Fprintf(env.stderr, "racklet: captured %d bytes\n", n)
	return nil
}
