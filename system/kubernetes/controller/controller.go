// Package controller joins the rack's hardware and its Kubernetes: compute units, releases and
// policies are objects of the cluster with their live state, power that is asked for there is
// switched through the management API, and what happens to a unit's rail decides about its node.
//
//	verified commit ──► objects ──┐                          ┌──► status of Rack and ComputeUnit
//	                              ├─► Controller, each second ├──► nodes: labels, taints, pod ranges
//	management API (Redfish) ─────┘                          └──► power, after the node is drained
//
// It speaks to BMCs through Redfish alone and holds no state of its own: what it must remember is in
// the status of the objects.
package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/racklet/racklet/rack"
)

// manager is the name under which the controller writes fields.
const manager = "racklet-controller"

// Options say what a controller works with.
type Options struct {
	Kubeconfig string // file
	Redfish    string // Unix socket of the management API
	Objects    string // file with the verified objects, see Desired; "" is none
	Pods       netip.Prefix
	Log        *slog.Logger
}

// A Controller does the work.
type Controller struct {
	o       Options
	redfish *redfishClient
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	nodes   corelisters.NodeLister
	units   cache.GenericLister
	racks   cache.GenericLister
	applied string            // what of the objects file was applied last
	written map[string]record // status as written last, by object
	drains  map[string]*drain // by unit
}

func resource(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "racklet.io", Version: "v1alpha1", Resource: plural}
}

// Run works until ctx ends.
func Run(ctx context.Context, o Options) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return err
	}
	config.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter() // four units cannot ask too much
	c := &Controller{o: o, redfish: newRedfish(o.Redfish), written: map[string]record{}, drains: map[string]*drain{}}
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return err
	}
	if err := installDefinitions(ctx, config); err != nil {
		return err
	}
	if err := c.watch(ctx); err != nil {
		return err
	}
	defer c.awaitDrains()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := ""
	for {
		err := c.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := ""
		if err != nil {
			now = err.Error()
		}
		if now != last { // the same again says nothing new
			if err != nil {
				o.Log.Warn("step", "error", err)
			} else {
				o.Log.Info("all is well again")
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watch fills the listers and keeps them filled.
func (c *Controller) watch(ctx context.Context) error {
	core := informers.NewSharedInformerFactory(c.kube, 0)
	nodes := core.Core().V1().Nodes()
	nodes.Informer()
	c.nodes = nodes.Lister()
	core.Start(ctx.Done())
	rackObjects := dynamicinformer.NewDynamicSharedInformerFactory(c.dynamic, 0)
	c.units = rackObjects.ForResource(resource("computeunits")).Lister()
	c.racks = rackObjects.ForResource(resource("racks")).Lister()
	rackObjects.ForResource(resource("computeunits")).Informer()
	rackObjects.ForResource(resource("racks")).Informer()
	rackObjects.Start(ctx.Done())
	for kind, ok := range core.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("list %v: %w", kind, context.Cause(ctx))
		}
	}
	for kind, ok := range rackObjects.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("list %v: %w", kind, context.Cause(ctx))
		}
	}
	return nil
}

// step compares everything once. One unit's trouble does not hold up the others.
func (c *Controller) step(ctx context.Context) error {
	var faults []error
	if err := c.applyDesired(ctx); err != nil {
		faults = append(faults, err)
	}
	systems, err := c.redfish.systems(ctx)
	if err != nil {
		return errors.Join(append(faults, fmt.Errorf("ask the management API: %w", err))...)
	}
	chassis, err := c.redfish.chassis(ctx)
	if err != nil {
		return errors.Join(append(faults, fmt.Errorf("ask the management API: %w", err))...)
	}
	if err := c.rackStatus(ctx, chassis); err != nil {
		faults = append(faults, err)
	}
	for i := range systems {
		s := &systems[i]
		s.confirmed = s.confirmedOff(chassis)
		if err := c.unit(ctx, s); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.ID, err))
		}
	}
	return errors.Join(faults...)
}

// unit compares one unit with its object and its node.
func (c *Controller) unit(ctx context.Context, s *system) error {
	var faults []error
	object, err := get(c.units, s.ID)
	if err != nil {
		return err
	}
	requested := ""
	if object != nil {
		requested, err = c.power(ctx, object, s)
		faults = append(faults, err)
	}
	node, err := c.node(s.ID)
	if err != nil {
		return err
	}
	if node != nil {
		faults = append(faults, c.nodeLife(ctx, node, s))
	}
	if object != nil {
		faults = append(faults, c.unitStatus(ctx, object, node, s, requested))
	}
	return errors.Join(faults...)
}

func (c *Controller) node(name string) (*corev1.Node, error) {
	list, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, nil
}

// get is an object by name, or nil.
func get(l cache.GenericLister, name string) (*unstructured.Unstructured, error) {
	list, err := l.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		if u, ok := o.(*unstructured.Unstructured); ok && u.GetName() == name {
			return u, nil
		}
	}
	return nil, nil
}

// A record is a status that was written.
type record struct {
	events string // what is written at once when it changes
	at     time.Time
}

// numbersEvery is how often measurements are written when nothing else changes.
const numbersEvery = 10 * time.Second

// writeStatus writes an object's status: at once when one of its words changes, now and then for its
// measurements, whose every change would otherwise be a write to the store.
func (c *Controller) writeStatus(ctx context.Context, plural string, o *unstructured.Unstructured, status, measured map[string]any) error {
	words, err := json.Marshal(status)
	if err != nil {
		return err
	}
	key := plural + "/" + o.GetName() + "/" + string(o.GetUID())
	last := c.written[key]
	if last.events == string(words) && time.Since(last.at) < numbersEvery {
		return nil
	}
	for k, v := range measured {
		status[k] = v
	}
	if err := c.patch(ctx, plural, o.GetName(), map[string]any{"status": status}, "status"); err != nil {
		return err
	}
	c.written[key] = record{string(words), time.Now()}
	return nil
}

func (c *Controller) patch(ctx context.Context, plural, name string, v any, sub ...string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(resource(plural)).Patch(ctx, name, types.MergePatchType, b, metav1.PatchOptions{FieldManager: manager}, sub...)
	return err
}

// rackStatus carries what the RMC measures to the Rack object.
func (c *Controller) rackStatus(ctx context.Context, s *chassis) error {
	list, err := c.racks.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, o := range list {
		r, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		rmc := s.Oem.Racklet
		status := map[string]any{"state": s.Status.State}
		measured := map[string]any{
			"watts": fmt.Sprintf("%.1fW", rmc.Watts), "budget": fmt.Sprintf("%.0fW", rmc.BudgetWatts), "energy": fmt.Sprintf("%.0fJ", rmc.EnergyJoules),
			"inlet": fmt.Sprintf("%.0fC", rmc.InletCelsius),
		}
		if err := c.writeStatus(ctx, "racks", r, status, measured); err != nil {
			return err
		}
	}
	return nil
}

// unitStatus carries what BMC and unit report to the ComputeUnit object.
func (c *Controller) unitStatus(ctx context.Context, o *unstructured.Unstructured, node *corev1.Node, s *system, requested string) error {
	oem := &s.Oem.Racklet
	nodeState := "None"
	if node != nil {
		nodeState = "NotReady"
		if ready(node) {
			nodeState = "Ready"
		}
		if node.Spec.Unschedulable {
			nodeState += ",SchedulingDisabled"
		}
	}
	drained := ""
	if d := c.drains[s.ID]; d != nil {
		drained = d.text()
	}
	status := map[string]any{
		"power": s.PowerState, "requestedPower": requested, "state": oem.State, "stage": stage(s), "reason": oem.Reason, "expected": oem.Expected, "seen": oem.Seen,
		"bootSlot": oem.BootSlot, "commit": oem.Commit, "release": oem.Release, "address": oem.Address, "bootCount": oem.BootCount,
		"present": oem.Present, "available": oem.Available, "stale": oem.Stale, "evidenceVoid": oem.EvidenceVoid, "node": nodeState, "drain": drained,
		"observedGeneration": o.GetGeneration(),
	}
	measured := map[string]any{
		"watts": fmt.Sprintf("%.1fW", oem.Watts), "temperature": fmt.Sprintf("%.0fC", oem.TemperatureCelsius), "energy": fmt.Sprintf("%.0fJ", oem.EnergyJoules),
		"ageSeconds": int64(oem.AgeSeconds),
	}
	return c.writeStatus(ctx, "computeunits", o, status, measured)
}

// stage is how far the unit is, in one word that does not lie about a BMC that is silent.
func stage(s *system) string {
	switch o := &s.Oem.Racklet; {
	case !o.Present:
		return "absent"
	case !o.Available:
		return "unavailable"
	default:
		return o.Stage
	}
}

// Desired is what the objects file holds: the rack's objects as the owners signed them.
type Desired struct {
	Commit   string            `json:"commit"`
	Sequence uint64            `json:"sequence"`
	Objects  []json.RawMessage `json:"objects"`
}

// parseDesired checks what the file holds.
func parseDesired(b []byte) (*Desired, []*unstructured.Unstructured, error) {
	d := new(Desired)
	if err := json.Unmarshal(b, d); err != nil {
		return nil, nil, fmt.Errorf("decode the verified objects: %w", err)
	}
	var list []*unstructured.Unstructured
	for i, raw := range d.Objects {
		o := new(unstructured.Unstructured)
		if err := o.UnmarshalJSON(raw); err != nil {
			return nil, nil, fmt.Errorf("verified object %d: %w", i, err)
		}
		if o.GetAPIVersion() != rack.APIVersion || plurals[o.GetKind()] == "" || o.GetName() == "" {
			return nil, nil, fmt.Errorf("verified object %d: %s %s is no object of a rack", i, o.GetAPIVersion(), o.GetKind())
		}
		list = append(list, o)
	}
	return d, list, nil
}
