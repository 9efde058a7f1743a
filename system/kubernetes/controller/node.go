package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// Labels that nodes carry.
const (
	labelSlot    = "racklet.io/slot"
	labelRelease = "racklet.io/release"
)

// outOfService tells Kubernetes that a node has certainly stopped, so that its pods may run elsewhere
// and its volumes be attached there (KEP-2268).
var outOfService = corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// nodeLife makes the node follow the hardware.
func (c *Controller) nodeLife(ctx context.Context, n *corev1.Node, s *system) error {
	var faults []error
	faults = append(faults, c.describe(ctx, n, s))
	tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&outOfService) })
	switch {
	case s.confirmed:
		faults = append(faults, c.takeOut(ctx, n, tainted))
	case s.Oem.Racklet.Available && s.PowerState == "On" && ready(n):
		if tainted || n.Annotations[cordoned] != "" && s.Oem.Racklet.DesiredPower == "On" && c.drains[s.ID] == nil {
			faults = append(faults, c.takeBack(ctx, n.Name))
		}
	}
	return errors.Join(faults...)
}

// takeOut follows a rail that is off: no use to wait until the node has been silent for long enough.
func (c *Controller) takeOut(ctx context.Context, n *corev1.Node, tainted bool) error {
	if ready(n) {
		if err := c.markNotReady(ctx, n.Name); err != nil {
			return err
		}
	}
	if !tainted {
		err := c.updateNode(ctx, n.Name, func(n *corev1.Node) bool {
			if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&outOfService) }) {
				return false
			}
			n.Spec.Taints = append(n.Spec.Taints, outOfService)
			return true
		})
		if err != nil {
			return fmt.Errorf("taint node: %w", err)
		}
		c.o.Log.Info("the rail is off: node out of service", "unit", n.Name)
	}
	return c.removePods(ctx, n.Name)
}

// removePods deletes what the node can no longer delete itself; owners then replace it elsewhere.
func (c *Controller) removePods(ctx context.Context, node string) error {
	list, err := c.kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node, ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var faults []error
	for i := range list.Items {
		p := &list.Items[i]
		if slices.ContainsFunc(p.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == "DaemonSet" || r.Kind == "Node" }) {
			continue // they stay with their node
		}
		err := c.kube.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			faults = append(faults, fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (c *Controller) takeBack(ctx context.Context, name string) error {
	err := c.updateNode(ctx, name, func(n *corev1.Node) bool {
		before := len(n.Spec.Taints)
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&outOfService) })
		if n.Annotations[cordoned] == "" {
			return before != len(n.Spec.Taints)
		}
		delete(n.Annotations, cordoned)
		n.Spec.Unschedulable = false
		return true
	})
	if err != nil {
		return fmt.Errorf("take node back: %w", err)
	}
	c.o.Log.Info("back in service", "unit", name)
	return nil
}

func (c *Controller) updateNode(ctx context.Context, name string, change func(*corev1.Node) bool) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := c.kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !change(n) {
			return nil
		}
		_, err = c.kube.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{FieldManager: manager})
		return err
	})
}

// markNotReady says so in the kubelet's place, which cannot any more.
func (c *Controller) markNotReady(ctx context.Context, name string) error {
	now := metav1.NewTime(time.Now())
	b, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "RailOff", Message: "the BMC reports that the unit's power is off", LastHeartbeatTime: now, LastTransitionTime: now,
	}}}})
	if err != nil {
		return err
	}
	if _, err = c.kube.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, b, metav1.PatchOptions{FieldManager: manager}, "status"); err != nil {
		return fmt.Errorf("mark node: %w", err)
	}
	return nil
}

// describe gives a node its labels and its range of pod addresses.
func (c *Controller) describe(ctx context.Context, n *corev1.Node, s *system) error {
	o := &s.Oem.Racklet
	want := map[string]string{labelSlot: strconv.Itoa(o.Slot)}
	if o.Release != "" {
		want[labelRelease] = labelValue(o.Release)
	}
	change := map[string]any{}
	for k, v := range want {
		if n.Labels[k] != v {
			change["metadata"] = map[string]any{"labels": want}
		}
	}
	if n.Spec.PodCIDR == "" && c.o.Pods.IsValid() && o.Slot > 0 {
		r := slotRange(c.o.Pods, o.Slot).String()
		change["spec"] = map[string]any{"podCIDR": r, "podCIDRs": []string{r}}
	}
	if len(change) == 0 {
		return nil
	}
	b, err := json.Marshal(change)
	if err != nil {
		return err
	}
	if _, err := c.kube.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, b, metav1.PatchOptions{FieldManager: manager}); err != nil {
		return fmt.Errorf("describe node: %w", err)
	}
	return nil
}

// slotRange is the /24 of a slot in the /16 of all pods.
func slotRange(all netip.Prefix, slot int) netip.Prefix {
	a := all.Masked().Addr().As4()
	a[2] = byte(slot)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// labelValue turns a version into what a label may hold.
func labelValue(v string) string {
	v = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, v)
	return strings.Trim(v[:min(len(v), 63)], ".-_")
}
