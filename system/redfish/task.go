package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

// Limits of tasks.
const (
	maxTasks    = 64  // in all; ended ones give way, the oldest first
	maxMessages = 100 // of one
	taskFile    = "tasks.json"
	cancelLimit = 20 * time.Second // for work to stop
)

// States of a task (Task schema, TaskState).
const (
	taskRunning    = "Running"
	taskCancelling = "Cancelling"
	taskCompleted  = "Completed"
	taskException  = "Exception"
	taskCancelled  = "Cancelled"
)

// Prefixes of the standard's registries of messages about tasks and updates (DSP8011).
const (
	taskPrefix   = "TaskEvent.1.0."
	updatePrefix = "Update.1.0."
)

// keptTask is a task as it is kept.
type keptTask struct {
	ID, Name string
	State    string
	Health   string
	Start    time.Time
	End      time.Time `json:",omitzero"`
	Percent  int
	Owner    string        // account that asked for it; "": the owner of the rack
	Code     int           // status of the operation's answer (HTTP); 0: it goes on
	Messages []keptMessage // oldest first
}

type keptMessage struct {
	ID, Text, Severity, Resolution string
	Args                           []string `json:",omitempty"`
}

func (k *keptTask) ended() bool { return k.Code != 0 }

// task is work that goes on after the request for it was answered (DSP0266, 12.2 "Asynchronous operations").
type task struct {
	keptTask
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// errCancelled is why a task's context ended when somebody cancelled it.
var errCancelled = errors.New("cancelled")

// taskError is why a task failed, in words for its reader.
type taskError struct{ message message }

func (e *taskError) Error() string { return e.message.text }

// tasks are all tasks. One that ended stays until it is deleted or gives way. A change of state is on the
// disk before anybody reads it.
type tasks struct {
	s *Service

	mu   sync.Mutex
	next int
	all  []*task // oldest first
	ctx  context.Context
	wait sync.WaitGroup
}

type taskDocument struct {
	Version int
	Next    int
	Tasks   []keptTask
}

// openTasks reads what is kept. A task that had no end has it now: what worked on it is gone.
func openTasks(s *Service) (*tasks, error) {
	t := &tasks{s: s, next: 1}
	if s.o.Dir == "" {
		return t, nil
	}
	name := filepath.Join(s.o.Dir, taskFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	var d taskDocument
	if err := json.Unmarshal(b, &d); err != nil || d.Version != 1 || len(d.Tasks) > maxTasks {
		return nil, fmt.Errorf("read tasks: %s is damaged (%v)", name, err)
	}
	t.next = d.Next
	for _, k := range d.Tasks {
		e := &task{keptTask: k, cancel: func() {}, done: make(chan struct{})}
		close(e.done)
		if !e.ended() {
			m := base("OperationFailed", "The management API ended while it worked on this. What was written half cannot boot.", "Repeat the request.")
			t.finish(e, taskException, critical(m), http.StatusInternalServerError)
		}
		t.all = append(t.all, e)
	}
	return t, t.save()
}

// save writes all tasks. The lock is held.
func (t *tasks) save() error {
	if t.s.o.Dir == "" {
		return nil
	}
	d := taskDocument{Version: 1, Next: t.next, Tasks: []keptTask{}}
	for _, e := range t.all {
		d.Tasks = append(d.Tasks, e.keptTask)
	}
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	if err := access.Replace(filepath.Join(t.s.o.Dir, taskFile), append(b, '\n')); err != nil {
		return fmt.Errorf("keep tasks: %w", err)
	}
	return nil
}

// run lets tasks work until ctx ends, and waits until all have ended.
func (t *tasks) run(ctx context.Context) {
	t.mu.Lock()
	t.ctx = ctx
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.ctx = nil
	t.mu.Unlock()
	t.wait.Wait()
}

// errNotRunning says that the service does not run: nobody would do the work.
var errNotRunning = errors.New("the service does not run")

// begin starts work on a task for somebody. The error is access.ErrFull when too many are at work.
func (t *tasks) begin(name, owner string, work func(context.Context, *progress) error) (*task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		return nil, errNotRunning
	}
	if len(t.all) >= maxTasks {
		oldest := slices.IndexFunc(t.all, func(e *task) bool { return e.ended() })
		if oldest < 0 {
			return nil, access.ErrFull
		}
		t.all = slices.Delete(t.all, oldest, oldest+1)
	}
	e := &task{done: make(chan struct{})}
	e.keptTask = keptTask{ID: strconv.Itoa(t.next), Name: name, State: taskRunning, Health: "OK", Start: t.s.clock.Now().UTC(), Owner: owner}
	e.Messages = []keptMessage{kept(about1("TaskStarted", "The task with Id '%s' has started.", "OK", e.ID))}
	t.all = append(t.all, e)
	t.next++
	if err := t.save(); err != nil {
		t.all = t.all[:len(t.all)-1]
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	e.cancel = func() { cancel(errCancelled) }
	t.wait.Go(func() {
		t.tell(e)
		err := work(ctx, &progress{t, e})
		stopped := context.Cause(ctx)
		cancel(nil)
		t.end(e, err, stopped)
		close(e.done)
	})
	return e, nil
}

// about1 is a message of the registry for tasks about one of them.
func about1(id, format, severity, task string) message {
	return message{id: taskPrefix + id, text: fmt.Sprintf(format, task), severity: severity, resolution: "None.", args: []string{task}}
}

func kept(m message) keptMessage { return keptMessage{m.id, m.text, m.severity, m.resolution, m.args} }

func (k keptMessage) message() message {
	return message{id: k.ID, text: k.Text, severity: k.Severity, resolution: k.Resolution, args: k.Args}
}

// end notes how work ended: err is what it returned, stopped why its context had ended, if it had.
func (t *tasks) end(e *task, err, stopped error) {
	t.mu.Lock()
	var failed *taskError
	switch {
	case err == nil:
		e.State, e.Percent, e.Code, e.End = taskCompleted, 100, http.StatusOK, t.s.clock.Now().UTC()
		e.add(about1("TaskCompletedOK", "The task with Id '%s' has completed.", "OK", e.ID))
	case errors.Is(stopped, errCancelled):
		m := base("OperationFailed", "The operation was cancelled at somebody's wish. What was written half cannot boot.", "Repeat the request if it was not meant.")
		t.finish(e, taskCancelled, m, http.StatusConflict)
	case stopped != nil:
		m := base("OperationFailed", "The management API was stopped while it worked on this. What was written half cannot boot.", "Repeat the request.")
		t.finish(e, taskException, critical(m), http.StatusServiceUnavailable)
	case errors.As(err, &failed):
		t.finish(e, taskException, failed.message, http.StatusBadRequest)
	default:
		t.s.log.Error("a task failed", "task", e.ID, "name", e.Name, "error", err)
		t.finish(e, taskException, msgInternal(), http.StatusInternalServerError)
	}
	if err := t.save(); err != nil {
		t.s.log.Error("the end of a task was not kept: it will be an exception after a restart", "task", e.ID, "error", err)
	}
	t.mu.Unlock()
	t.tell(e)
}

// finish ends a task that did not do what it should. The lock is held.
func (t *tasks) finish(e *task, state string, why message, code int) {
	e.State, e.Health, e.Code, e.End = state, "Critical", code, t.s.clock.Now().UTC()
	e.add(why)
	last := about1("TaskAborted", "The task with Id '%s' has completed with errors.", "Critical", e.ID)
	if state == taskCancelled {
		e.Health = "Warning"
		last = about1("TaskCancelled", "Work on the task with Id '%s' has been halted prior to completion due to an explicit request.", "Warning", e.ID)
	}
	e.add(last)
}

// add appends a message. When there are too many, the first, which says that the task has started, and the newest stay.
func (k *keptTask) add(m message) {
	k.Messages = append(k.Messages, kept(m))
	if len(k.Messages) > maxMessages {
		k.Messages = slices.Delete(k.Messages, 1, 2)
	}
}

// tell sends an event about a task's newest message.
func (t *tasks) tell(e *task) {
	t.mu.Lock()
	m := e.Messages[len(e.Messages)-1]
	id, at := e.ID, e.Start
	if e.ended() {
		at = e.End
	}
	t.mu.Unlock()
	t.s.announce(at, m.message(), tasksURI+"/"+id)
}

// progress is how work tells how far it is.
type progress struct {
	t *tasks
	e *task
}

// at notes how many percent are done.
func (p *progress) at(percent int) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.e.Percent = max(p.e.Percent, min(percent, 99))
}

// say adds a message and keeps it.
func (p *progress) say(m message) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.e.add(m)
	if err := p.t.save(); err != nil {
		p.t.s.log.Warn("a message of a task was not kept", "task", p.e.ID, "error", err)
	}
}

func (t *tasks) find(id string) *task {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.all {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// owner is the account that asked for a task.
func (t *tasks) owner(id string) string {
	if e := t.find(id); e != nil {
		return e.Owner // never changes
	}
	return ""
}

// stop cancels a task and waits until it has ended. A task that had ended stays as it is.
func (t *tasks) stop(ctx context.Context, e *task) error {
	t.mu.Lock()
	if !e.ended() {
		e.State = taskCancelling
	}
	t.mu.Unlock()
	e.cancel()
	timer := time.NewTimer(cancelLimit)
	defer timer.Stop()
	select {
	case <-e.done:
		return nil
	case <-timer.C:
		return errors.New("the task does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove forgets a task that has ended.
func (t *tasks) remove(e *task) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.all, e)
	if at < 0 {
		return access.ErrUnknown
	}
	was := t.all
	t.all = slices.Delete(slices.Clone(t.all), at, at+1)
	if err := t.save(); err != nil {
		t.all = was
		return err
	}
	return nil
}
