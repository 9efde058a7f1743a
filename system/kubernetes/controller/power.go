package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubedrain "k8s.io/kubectl/pkg/drain"

	"github.com/racklet/racklet/rack"
)

// drainTime is how long pods may take to leave before a unit's power goes anyway: its BMC then still
// gives the system its grace.
const drainTime = 2 * time.Minute

// cordoned marks nodes that the controller cordoned, so that it makes none schedulable that a person
// did not want to be.
const cordoned = "racklet.io/cordoned-for-power"

// A drain moves a unit's pods away.
type drain struct {
	mu   sync.Mutex
	done bool
	err  error
	stop context.CancelFunc
}

func (d *drain) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.done:
		return "Draining"
	case d.err != nil:
		return "Incomplete: " + d.err.Error()
	}
	return "Drained"
}

func (d *drain) finished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// power brings what the object asks for and what the management API is asked for together. Whichever
// of the two changed since they last agreed, which is status.requestedPower, wins.
func (c *Controller) power(ctx context.Context, o *unstructured.Unstructured, s *system) (agreed string, err error) {
	want, _, _ := unstructured.NestedString(o.Object, "spec", "power")
	agreed, _, _ = unstructured.NestedString(o.Object, "status", "requestedPower")
	have := s.Oem.Racklet.DesiredPower
	switch {
	case want == have:
		if d := c.drains[s.ID]; d != nil && want == rack.PowerOn {
			d.stop() // changed their mind
			delete(c.drains, s.ID)
		}
		return want, nil
	case have == "" || !s.Oem.Racklet.Available && s.Oem.Racklet.Present:
		return agreed, nil // nobody there who could be asked
	case agreed == want: // somebody asked the management API
		return have, c.patch(ctx, "computeunits", o.GetName(), map[string]any{"spec": map[string]any{"power": have}})
	case want == rack.PowerOn:
		if err := c.redfish.reset(ctx, s.ID, "On"); err != nil {
			return agreed, err
		}
		c.o.Log.Info("switched on", "unit", s.ID)
		return want, nil
	}
	// Off: first the pods.
	d := c.drains[s.ID]
	if d == nil {
		d = c.startDrain(ctx, s.ID)
	}
	if !d.finished() {
		return agreed, nil
	}
	if err := c.redfish.reset(ctx, s.ID, "GracefulShutdown"); err != nil {
		return agreed, err
	}
	c.o.Log.Info("asked to shut down", "unit", s.ID, "drain", d.text())
	return want, nil
}

func (c *Controller) startDrain(ctx context.Context, unit string) *drain {
	ctx, stop := context.WithTimeout(ctx, drainTime)
	d := &drain{stop: stop}
	c.drains[unit] = d
	go func() {
		defer stop()
		err := drainNode(ctx, c.kube, unit)
		if err != nil {
			c.o.Log.Warn("drain", "unit", unit, "error", err)
		}
		d.mu.Lock()
		d.done, d.err = true, err
		d.mu.Unlock()
	}()
	return d
}

// drainNode cordons a node and evicts its pods, within the budgets that their owners set.
func drainNode(ctx context.Context, kube kubernetes.Interface, name string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"true"}},"spec":{"unschedulable":true}}`, cordoned)
	_, err := kube.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
	if apierrors.IsNotFound(err) {
		return nil // it never joined
	}
	if err != nil {
		return fmt.Errorf("cordon: %w", err)
	}
	left := drainTime
	if end, ok := ctx.Deadline(); ok {
		left = time.Until(end)
	}
	return kubedrain.RunNodeDrain(&kubedrain.Helper{
		Ctx: ctx, Client: kube, Force: true, GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		Timeout: left, SkipWaitForDeleteTimeoutSeconds: 30, Out: io.Discard, ErrOut: io.Discard,
	}, name)
}

func (c *Controller) awaitDrains() {
	for _, d := range c.drains {
		d.stop()
	}
}

// applyDesired takes over what the owners signed when that has changed. Between two commits an object
// belongs to whoever has the right to change it.
func (c *Controller) applyDesired(ctx context.Context) error {
	if c.o.Objects == "" {
		return nil
	}
	b, err := os.ReadFile(c.o.Objects)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	key := hex.EncodeToString(sum[:])
	if key == c.applied {
		return nil
	}
	d, list, err := parseDesired(b)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, o := range list {
		wanted[o.GetKind()+"/"+o.GetName()] = true
		if err := c.applyOne(ctx, d, o); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	for kind, plural := range plurals {
		have, err := c.dynamic.Resource(resource(plural)).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list %s: %w", plural, err)
		}
		for i := range have.Items {
			o := &have.Items[i]
			if o.GetAnnotations()[signed] != "" && !wanted[kind+"/"+o.GetName()] {
				if err := c.dynamic.Resource(resource(plural)).Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
					return fmt.Errorf("delete %s %s, which is no longer signed: %w", kind, o.GetName(), err)
				}
			}
		}
	}
	c.applied = key
	return nil
}

// signed is the annotation with the digest of an object as the owners signed it.
const signed = "racklet.io/signed"

func (c *Controller) applyOne(ctx context.Context, d *Desired, o *unstructured.Unstructured) error {
	raw, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	r := c.dynamic.Resource(resource(plurals[o.GetKind()]))
	have, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
	if err == nil && have.GetAnnotations()[signed] == digest {
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	notes := o.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes[signed], notes["racklet.io/commit"] = digest, d.Commit
	o.SetAnnotations(notes)
	_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
	return err
}
