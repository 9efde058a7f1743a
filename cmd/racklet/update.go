package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// mediaBootImage is the media type of the boot artefact's layer that is flashed.
const mediaBootImage = "application/vnd.racklet.boot.image.v1"

// updateResult is the result of `racklet unit update`; its JSON is documented and stable.
type updateResult struct {
	Task     string    `json:"task"`
	State    string    `json:"state"` // Completed, Exception, Cancelled; Running with --detach
	Percent  int       `json:"percent"`
	Units    []string  `json:"units"`
	Messages []string  `json:"messages"`
	Started  time.Time `json:"started"`
}

func newUnitUpdate(env *environment) *cobra.Command {
	var now, detach bool
	repository := ""
	c := &cobra.Command{
		Use:   "update UNIT... FILE|RELEASE",
		Short: "Write a boot image into the slot that a unit does not use",
		Long: `Update sends a signed boot image to the units' BMCs, which verify the owners' signatures
before they erase anything and each chunk as it comes. The image boots at the unit's next
power cycle; until then, and after two boots that do not reach the operating system, the
slot of now boots. It can be interrupted anywhere.

FILE is a signed slot manifest and the boot image right behind it. RELEASE is the directory
of a release; its slot manifest is taken, with the signatures, from the rack repository.`,
		Example: "  racklet unit update unit-1 bin/release\n  racklet unit update unit-1 unit-2 update.img --now",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return &usageError{fmt.Errorf("unit update: want the names of units and a file or the directory of a release")}
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			names, _ := env.completeUnits(c, nil, to)
			return names, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			if repository == "" {
				repository = layout{env.state}.repository()
			}
			units, from := args[:len(args)-1], args[len(args)-1]
			file, err := updateFile(from, repository)
			if err != nil {
				return err
			}
			client, err := env.client()
			if err != nil {
				return err
			}
			return env.update(c.Context(), client, units, file, now, detach)
		},
	}
	c.Flags().BoolVar(&now, "now", false, "restart the units gracefully and wait until they run it")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for the end")
	c.Flags().StringVar(&repository, "repository", "", "`directory` of the rack repository that holds the signatures of a RELEASE (default: that of this rack)")
	c.MarkFlagsMutuallyExclusive("now", "detach")
	return c
}

// updateFile reads an update file, or puts one together out of a release and the signatures in a rack repository.
func updateFile(from, repository string) ([]byte, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, fmt.Errorf("read the update: %w", err)
	}
	if !info.IsDir() {
		if limit := int64(trust.MaxSigned + trust.MaxImageSize); info.Size() > limit {
			return nil, fmt.Errorf("read the update: %s has %d bytes; an update file has at most %d", from, info.Size(), limit)
		}
		return os.ReadFile(from)
	}
	var release struct {
		Version string
		Boot    struct{ Digest, SlotManifest rack.Digest }
	}
	if err := readJSON(filepath.Join(from, "release.json"), &release); err != nil {
		return nil, hint(fmt.Errorf("read the release: %w", err), "name the directory that \"make build\" left, or an update file")
	}
	l := oci.Layout{Dir: from}
	m, err := l.Manifest(digest.Digest(release.Boot.Digest))
	if err != nil {
		return nil, fmt.Errorf("read the release: %w", err)
	}
	layer, err := oci.Layer(m, mediaBootImage)
	if err != nil {
		return nil, fmt.Errorf("read the release: %w", err)
	}
	image, err := l.Read(layer.Digest, trust.MaxImageSize)
	if err != nil {
		return nil, fmt.Errorf("read the release: %w", err)
	}
	b, err := source.ReadBundle(repository, rack.Repository{Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef})
	if err != nil {
		return nil, fmt.Errorf("read the rack repository: %w", err)
	}
	signed, ok := b.Metadata["slots/"+release.Boot.SlotManifest.Hex()+".slot"]
	if !ok {
		return nil, hint(fmt.Errorf("the owners have not signed the boot image of release %s in %s", release.Version, repository), "see \"racklet sign --help\"")
	}
	return append(bytes.Clone(signed), image...), nil
}

// task is a Redfish task.
type task struct {
	ODataID         string `json:"@odata.id"`
	TaskState       string
	PercentComplete int
	StartTime       time.Time
	EndTime         string
	TaskMonitor     string
	Messages        []struct{ MessageID, Message, MessageSeverity, Resolution string }
}

func (env *environment) update(ctx context.Context, c *redfishClient, units []string, file []byte, now, detach bool) error {
	var targets []string
	for _, name := range units {
		path, err := unitPath(ctx, c, name)
		if err != nil {
			return err
		}
		targets = append(targets, path)
	}
	apply := "OnReset"
	if now {
		apply = "Immediate"
	}
	t, err := c.pushUpdate(ctx, targets, apply, file)
	if err != nil {
		return fmt.Errorf("update %s: %w", strings.Join(units, ", "), err)
	}
	if !detach {
		if t, err = env.followTask(ctx, c, t); err != nil {
			return err
		}
	}
	r := updateResult{Task: t.ODataID, State: t.TaskState, Percent: t.PercentComplete, Units: units, Messages: []string{}, Started: t.StartTime}
	var failed *hintedError
	for _, m := range t.Messages {
		r.Messages = append(r.Messages, printable(m.Message))
		if m.MessageSeverity != "OK" && failed == nil {
			failed = &hintedError{errors.New(printable(strings.TrimSuffix(m.Message, "."))), m.Resolution}
		}
	}
	err = env.print(r, func(w io.Writer) error {
		switch {
		case detach:
			fmt.Fprintf(w, "%s goes on\n", t.ODataID)
		case failed == nil && now:
			fmt.Fprintf(w, "%s: updated and started anew\n", strings.Join(units, ", "))
		case failed == nil:
			fmt.Fprintf(w, "%s: written; boots at the next power cycle\n", strings.Join(units, ", "))
		}
		return nil
	})
	if err == nil && failed != nil {
		return failed
	}
	return err
}

// pushUpdate sends a file by multipart push (DSP0266, 12.6.2).
func (c *redfishClient) pushUpdate(ctx context.Context, targets []string, apply string, file []byte) (*task, error) {
	var service struct {
		MultipartHTTPPushURI string `json:"MultipartHttpPushUri"`
	}
	if err := c.get(ctx, "/redfish/v1/UpdateService", &service); err != nil {
		return nil, err
	}
	parameters, err := json.Marshal(map[string]any{"Targets": targets, "@Redfish.OperationApplyTime": apply})
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("UpdateParameters", string(parameters)); err != nil {
		return nil, err
	}
	part, err := form.CreateFormFile("UpdateFile", "update")
	if err != nil {
		return nil, err
	}
	part.Write(file)
	form.Close()
	t := new(task)
	_, err = c.send(ctx, http.MethodPost, service.MultipartHTTPPushURI, form.FormDataContentType(), body.Bytes(), t)
	return t, err
}

// followTask shows a task until it has ended. When the command is interrupted, the task is stopped.
func (env *environment) followTask(ctx context.Context, c *redfishClient, t *task) (*task, error) {
	live := false
	if f, ok := env.stderr.(*os.File); ok {
		live = term.IsTerminal(int(f.Fd()))
	}
	shown, said := -1, 0
	err := poll(ctx, 200*time.Millisecond, func() (bool, error) {
		now := new(task)
		if err := c.get(ctx, t.ODataID, now); err != nil {
			return false, err
		}
		t = now
		text := ""
		if n := len(t.Messages); n > 0 {
			text = printable(t.Messages[n-1].Message)
		}
		switch {
		case live:
			fmt.Fprintf(env.stderr, "\r\x1b[K%3d %%  %s", t.PercentComplete, text)
		case t.PercentComplete/10 > shown || len(t.Messages) > said:
			fmt.Fprintf(env.stderr, "racklet: %3d %%  %s\n", t.PercentComplete, text)
		}
		shown, said = t.PercentComplete/10, len(t.Messages)
		return t.EndTime != "", nil
	})
	if live {
		fmt.Fprintln(env.stderr)
	}
	if err == nil && t.EndTime == "" {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := c.do(stop, http.MethodDelete, t.TaskMonitor, nil, nil); err != nil {
			return t, fmt.Errorf("stop the update: %w", err)
		}
		return t, hint(errors.New("the update was stopped; the slot that boots is as it was"), "let an update go on by itself with --detach")
	}
	return t, err
}
