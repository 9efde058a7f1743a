package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/system/redfish/tape"
)

func utf16Of(r rune) []uint16 { return utf16.Encode([]rune{r}) }

// An apiRequest is one request of `racklet api`.
type apiRequest struct {
	method, path string
	data, input  string
	headers      []string
	include      bool
	field        string
	wait         bool
}

var apiMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}

// mostInput bounds a body, which is read whole.
const mostInput = 256 << 20

func newAPI(env *environment) *cobra.Command {
	var a apiRequest
	c := &cobra.Command{
		Use:     "api [METHOD] PATH",
		GroupID: "operate",
		Short:   "Ask the management API yourself",
		Long: `Api sends one request to the management API, as the other commands do, and prints the answer: JSON
indented, other text as it is. METHOD is GET, or POST when there is a body.

The body is JSON out of --data, or the content of --input, where - is standard input. With --wait
an answer that says "accepted" is followed: the task is watched until it ends.

The exit code is 0 for an answer below 400 and a task that completed, 1 otherwise, 2 for a wrong
command line.`,
		Example: `  racklet api /redfish/v1/
  racklet api "/redfish/v1/Systems?\$expand=.&\$select=PowerState"
  racklet api PATCH /redfish/v1/Systems/unit-1 --data '{"LocationIndicatorActive": true}'
  racklet api /redfish/v1/Systems/unit-1 --field Oem/Racklet/Watts
  racklet api /metrics`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return &usageError{errors.New("api: want a path, such as /redfish/v1/Systems, and before it a method if it is not GET")}
			}
			a.path = args[len(args)-1]
			if len(args) == 2 {
				a.method = strings.ToUpper(args[0])
			}
			if a.method != "" && !slices.Contains(apiMethods, a.method) {
				return &usageError{fmt.Errorf("api: method %q: want one of %s", args[0], strings.Join(apiMethods, ", "))}
			}
			if !strings.HasPrefix(a.path, "/") || strings.HasPrefix(a.path, "//") {
				return &usageError{fmt.Errorf("api: path %q: want one that begins with a slash", a.path)}
			}
			if a.data != "" && a.input != "" {
				return &usageError{errors.New("api: --data and --input are two bodies")}
			}
			return nil
		},
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, _ []string) error { return env.api(ctx, client, &a) }),
	}
	f := c.Flags()
	f.StringVarP(&a.data, "data", "d", "", "body of the request, `JSON`")
	f.StringVar(&a.input, "input", "", "`file` with the body; - is standard input")
	f.StringArrayVarP(&a.headers, "header", "H", nil, "`NAME:VALUE` of a header of the request; repeatable")
	f.BoolVarP(&a.include, "include", "i", false, "print status and headers of the answer too")
	f.StringVar(&a.field, "field", "", "print this `property` alone, A/B for one within another")
	f.BoolVar(&a.wait, "wait", false, "follow a task to its end")
	return c
}

func (env *environment) api(ctx context.Context, client *redfishClient, a *apiRequest) error {
	body, err := a.body(env.stdin)
	if err != nil {
		return err
	}
	if a.method == "" {
		a.method = http.MethodGet
		if body != nil {
			a.method = http.MethodPost
		}
	}
	req, err := client.request(ctx, a.method, a.path, body)
	if err != nil {
		return &usageError{fmt.Errorf("api: path %q: %w", a.path, err)}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range a.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return &usageError{fmt.Errorf("api: --header %q: want NAME:VALUE", h)}
		}
		req.Header.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	resp, err := client.http.Do(req)
	if err != nil {
		return client.explain(err)
	}
	defer resp.Body.Close()
	if a.include {
		fmt.Fprintf(env.stdout, "%s %s\n", resp.Proto, resp.Status)
		for _, name := range sortedHeaders(resp.Header) {
			for _, v := range resp.Header[name] {
				fmt.Fprintf(env.stdout, "%s: %s\n", name, printable(v))
			}
		}
		fmt.Fprintln(env.stdout)
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if kind != "application/json" && resp.StatusCode < 400 {
		return copyClean(env.stdout, resp.Body)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read %s: %w", a.path, err)
	}
	if resp.StatusCode >= 400 {
		env.printJSON(b, "")
		return client.refused(resp.StatusCode, b)
	}
	if resp.StatusCode == http.StatusAccepted && a.wait {
		return env.follow(ctx, client, b, a.field)
	}
	return env.printJSON(b, a.field)
}

func sortedHeaders(h http.Header) []string {
	var names []string
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// body reads the body of a request, nil if there is none.
func (a *apiRequest) body(stdin io.Reader) ([]byte, error) {
	if a.data != "" {
		return []byte(a.data), nil
	}
	if a.input == "" {
		return nil, nil
	}
	r := stdin
	if a.input != "-" {
		f, err := os.Open(a.input)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, mostInput+1))
	if err == nil && len(b) > mostInput {
		err = fmt.Errorf("more than %d MiB", mostInput>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// printJSON prints an answer, or one property of it: a text without quotes.
func (env *environment) printJSON(b []byte, field string) error {
	if len(b) == 0 {
		return nil
	}
	if field != "" {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return fmt.Errorf("decode the answer: %w", err)
		}
		for name := range strings.SplitSeq(field, "/") {
			o, ok := v.(map[string]any)
			if v, ok = o[name], ok && o[name] != nil; !ok {
				return fmt.Errorf("the answer has no %s", field)
			}
		}
		if text, ok := v.(string); ok {
			return copyClean(env.stdout, strings.NewReader(strings.TrimSuffix(text, "\n")+"\n"))
		}
		var err error
		if b, err = json.Marshal(v); err != nil {
			return err
		}
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, b, "", "  ") != nil { // no JSON: an error of somebody in between
		return copyClean(env.stdout, bytes.NewReader(append(b, '\n')))
	}
	pretty.WriteByte('\n')
	_, err := env.stdout.Write(quoted(pretty.Bytes()))
	return err
}

// copyClean copies text line by line without what could command a terminal.
func copyClean(w io.Writer, r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			text, ended := strings.CutSuffix(line, "\n")
			text = tape.Clean(strings.TrimSuffix(text, "\r"))
			if ended {
				text += "\n"
			}
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// taskState is what is read of a Task.
type taskState struct {
	ID              string `json:"@odata.id"`
	TaskState       string
	PercentComplete int
	Messages        []struct{ Message, Resolution string }
}

// follow watches a task until it ends and prints it.
func (env *environment) follow(ctx context.Context, client *redfishClient, first []byte, field string) error {
	var t taskState
	if err := json.Unmarshal(first, &t); err != nil || t.ID == "" {
		return errors.New("the management API accepted the request without a task to follow")
	}
	uri, said := t.ID, ""
	var b json.RawMessage
	err := poll(ctx, 500*time.Millisecond, func() (bool, error) {
		if err := client.get(ctx, uri, &b); err != nil {
			return false, err
		}
		t = taskState{}
		if err := json.Unmarshal(b, &t); err != nil {
			return false, fmt.Errorf("decode the task: %w", err)
		}
		if now := fmt.Sprintf("%s, %d %%", printable(t.TaskState), t.PercentComplete); now != said {
			said = now
			fmt.Fprintf(env.stderr, "racklet: %s\n", now)
		}
		return !slices.Contains([]string{"New", "Starting", "Running", "Pending", "Suspended", "Stopping", "Cancelling"}, t.TaskState), nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("follow %s: %w", uri, err)
	}
	if err := env.printJSON(b, field); err != nil {
		return err
	}
	if t.TaskState == "Completed" {
		return nil
	}
	why := ""
	if n := len(t.Messages); n > 0 {
		why = ": " + printable(t.Messages[max(n-2, 0)].Message)
	}
	return fmt.Errorf("the task ended as %s%s", printable(t.TaskState), why)
}
