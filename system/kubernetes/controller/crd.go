package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/schema"
)

// plurals are the collections of the rack's kinds.
var plurals = map[string]string{
	rack.KindRack: "racks", rack.KindComputeUnit: "computeunits", rack.KindRelease: "releases",
	rack.KindThermalPolicy: "thermalpolicies", rack.KindPowerPolicy: "powerpolicies",
}

// shorts are names for people in a hurry.
var shorts = map[string][]string{rack.KindComputeUnit: {"cu", "unit", "units"}}

type column = apiextensions.CustomResourceColumnDefinition

// columns are what kubectl get shows; those of priority 1 with -o wide.
var columns = map[string][]column{
	rack.KindComputeUnit: {
		{Name: "Slot", Type: "integer", JSONPath: ".spec.slot"},
		{Name: "Power", Type: "string", JSONPath: ".status.power"},
		{Name: "Stage", Type: "string", JSONPath: ".status.stage"},
		{Name: "Watts", Type: "string", JSONPath: ".status.watts"},
		{Name: "Temperature", Type: "string", JSONPath: ".status.temperature"},
		{Name: "Release", Type: "string", JSONPath: ".status.release"},
		{Name: "Node", Type: "string", JSONPath: ".status.node"},
		{Name: "Wanted", Type: "string", JSONPath: ".spec.power", Priority: 1},
		{Name: "Drain", Type: "string", JSONPath: ".status.drain", Priority: 1},
		{Name: "Reason", Type: "string", JSONPath: ".status.reason", Priority: 1},
		{Name: "Boots", Type: "integer", JSONPath: ".status.bootCount", Priority: 1},
		{Name: "Commit", Type: "string", JSONPath: ".status.commit", Priority: 1},
	},
	rack.KindRack: {
		{Name: "Slots", Type: "integer", JSONPath: ".spec.slots"},
		{Name: "State", Type: "string", JSONPath: ".status.state"},
		{Name: "Watts", Type: "string", JSONPath: ".status.watts"},
		{Name: "Budget", Type: "string", JSONPath: ".status.budget"},
		{Name: "Inlet", Type: "string", JSONPath: ".status.inlet"},
		{Name: "Commit", Type: "string", JSONPath: ".status.gitops.commit"},
		{Name: "Applied", Type: "string", JSONPath: ".status.gitops.state"},
		{Name: "Error", Type: "string", JSONPath: ".status.gitops.error", Priority: 1},
	},
	rack.KindRelease: {
		{Name: "Version", Type: "string", JSONPath: ".spec.version"},
		{Name: "Security", Type: "integer", JSONPath: ".spec.securityVersion"},
	},
	rack.KindThermalPolicy: {
		{Name: "Throttle", Type: "string", JSONPath: ".spec.throttle"},
		{Name: "Shutdown", Type: "string", JSONPath: ".spec.shutdown"},
	},
	rack.KindPowerPolicy: {
		{Name: "Budget", Type: "string", JSONPath: ".spec.budget"},
		{Name: "Unit cap", Type: "string", JSONPath: ".spec.unitCap"},
	},
}

// statuses are the fields of each kind's status: name, type, description.
var statuses = map[string][][3]string{
	rack.KindComputeUnit: {
		{"power", "string", "What the BMC says of the rail: On, Off, PoweringOn, PoweringOff."},
		{"requestedPower", "string", "What the management API was asked for last."},
		{"drain", "string", "How far the pods have left, while the unit is switched off."},
		{"state", "string", "The BMC's state."},
		{"stage", "string", "How far the unit's boot came; unavailable while its BMC is silent."},
		{"reason", "string", "The check that failed last, by its dotted name."},
		{"expected", "string", "What that check expected."},
		{"seen", "string", "What it saw."},
		{"bootSlot", "string", "The boot slot in use, A or B."},
		{"commit", "string", "The commit that the unit runs, as it reports."},
		{"release", "string", "The release that the unit runs, as it reports."},
		{"address", "string", "The unit's address in the rack's network."},
		{"bootCount", "integer", "Power-ons that the BMC has counted."},
		{"present", "boolean", "The tray is in its slot."},
		{"available", "boolean", "The BMC answers."},
		{"stale", "boolean", "The metadata has expired; exactly the last accepted version runs."},
		{"evidenceVoid", "boolean", "There was a reset without a rail cycle."},
		{"node", "string", "The Kubernetes node: None, NotReady, Ready."},
		{"watts", "string", "Power that the slot's meter reads."},
		{"temperature", "string", "The tray's sensor."},
		{"energy", "string", "The slot's energy counter."},
		{"ageSeconds", "integer", "Age of what the BMC said."},
		{"observedGeneration", "integer", "The generation of the object that this status is about."},
	},
	rack.KindRack: {
		{"state", "string", "Enabled, or UnavailableOffline while the rack controller is silent."},
		{"watts", "string", "Power drawn from the supply."},
		{"budget", "string", "The most that the rack may draw."},
		{"energy", "string", "The rack's energy counter."},
		{"inlet", "string", "Temperature of the air at the inlet."},
	},
}

// definition makes the CRD of a kind from its JSON Schema.
func definition(kind string) (*apiextensions.CustomResourceDefinition, error) {
	b, ok := schema.Files()[strings.ToLower(kind)+".json"]
	var err error
	if !ok {
		return nil, fmt.Errorf("no schema of %s", kind)
	}
	var source map[string]any
	if err := json.Unmarshal(b, &source); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", kind, err)
	}
	source = structural(source)
	properties := source["properties"].(map[string]any)
	// The API server describes metadata itself; a CRD may only narrow the name.
	name := properties["metadata"].(map[string]any)["properties"].(map[string]any)["name"]
	properties["metadata"] = map[string]any{"type": "object", "properties": map[string]any{"name": name}}
	source["required"] = []string{"spec"}
	subresources := (*apiextensions.CustomResourceSubresources)(nil)
	if fields := statuses[kind]; fields != nil {
		status := map[string]any{}
		for _, f := range fields {
			status[f[0]] = map[string]any{"type": f[1], "description": f[2]}
		}
		if kind == rack.KindRack {
			status["gitops"] = map[string]any{"type": "object", "description": "What GitOps has applied of the verified commit.", "properties": map[string]any{
				"commit": map[string]any{"type": "string", "description": "The commit."}, "state": map[string]any{"type": "string", "description": "Applied, Applying or Failed."},
				"error": map[string]any{"type": "string", "description": "The last error."}, "objects": map[string]any{"type": "integer", "description": "Objects that it owns."},
				"time": map[string]any{"type": "string", "description": "When this was so."}}}
		}
		properties["status"] = map[string]any{"type": "object", "description": "What is, as opposed to what shall be.", "properties": status}
		subresources = &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}}
	}
	if kind == rack.KindComputeUnit {
		slot := properties["spec"].(map[string]any)["properties"].(map[string]any)["slot"].(map[string]any)
		slot["x-kubernetes-validations"] = []any{map[string]any{"rule": "self == oldSelf", "message": "a unit's slot is where it sits; sign another object for another slot"}}
	}
	if b, err = json.Marshal(source); err != nil {
		return nil, err
	}
	props := new(apiextensions.JSONSchemaProps)
	if err := json.Unmarshal(b, props); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", kind, err)
	}
	plural := plurals[kind]
	return &apiextensions.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".racklet.io"},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: "racklet.io", Scope: apiextensions.ClusterScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Plural: plural, Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List", ShortNames: shorts[kind], Categories: []string{"racklet"}},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1alpha1", Served: true, Storage: true, Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: props},
				Subresources: subresources, AdditionalPrinterColumns: columns[kind],
			}},
		},
	}, nil
}

// structural turns JSON Schema 2020-12 as tools/schema writes it into what a CRD may hold
// (a structural schema): no meta data of the schema itself, enum instead of const, and unknown fields
// refused by the API server instead of by additionalProperties.
func structural(s map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range s {
		switch k {
		case "$schema", "$id", "title", "examples":
		case "const":
			out["enum"] = []any{v}
		case "additionalProperties":
			if m, ok := v.(map[string]any); ok {
				out[k] = structural(m)
			}
		case "properties":
			properties := map[string]any{}
			for name, p := range v.(map[string]any) {
				properties[name] = structural(p.(map[string]any))
			}
			out[k] = properties
		case "items":
			out[k] = structural(v.(map[string]any))
		default:
			out[k] = v
		}
	}
	return out
}

// installDefinitions makes the API server serve the rack's kinds and waits until it does.
func installDefinitions(ctx context.Context, config *rest.Config) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	crds := client.Resource(apiextensions.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	for kind := range plurals {
		d, err := definition(kind)
		if err != nil {
			return err
		}
		b, err := json.Marshal(d)
		if err != nil {
			return err
		}
		force := true
		if _, err := crds.Patch(ctx, d.Name, types.ApplyPatchType, withoutStatus(b), metav1.PatchOptions{FieldManager: manager, Force: &force}); err != nil {
			return fmt.Errorf("define %s: %w", kind, err)
		}
	}
	for kind, plural := range plurals {
		var last error
		err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			_, last = client.Resource(resource(plural)).List(ctx, metav1.ListOptions{Limit: 1})
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("the API server does not serve %s: %w", kind, last)
		}
	}
	return nil
}

// withoutStatus drops the empty status that the Go type always has.
func withoutStatus(b []byte) []byte {
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return b
	}
	delete(m, "status")
	b, _ = json.Marshal(m) // it was JSON
	return b
}
