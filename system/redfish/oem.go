package redfish

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// The types under Oem.Racklet. These structs are their schema and nothing else: the schema files that are served, CSDL
// (OASIS OData 4.0 CSDL) and JSON Schema, are made from them, and a test holds every resource against them. docs/redfish.md
// says what the properties mean.
var oemTypes = map[string]any{
	"RackletAudit":              oemAudit{},
	"RackletBootOption":         oemSlot{},
	"RackletCertificate":        oemCertificate{},
	"RackletComponentIntegrity": oemIntegrity{},
	"RackletComputerSystem":     oemSystem{},
	"RackletEnvironment":        oemAge{},
	"RackletEvent":              oemEvent{},
	"RackletManager":            oemManager{},
	"RackletRack":               oemRack{},
	"RackletSensor":             oemAge{},
	"RackletSubscription":       oemSubscription{},
	"RackletTray":               oemTray{},
}

const oemVersion = ".v1_0_0"

// oemLink is a reference to a resource of the standard.
type oemLink struct{}

type oemAge struct{ AgeSeconds float64 }

type oemAudit struct {
	Who, Role, How, From, Method, Target, What, Result string
	StatusCode                                         int
}

type oemCertificate struct{ Pin string }

type oemIntegrity struct{ Format, SigningAlgorithm, Domain string }

type oemEvent struct {
	Source, Kind, Stage, Reason, Expected, Seen string
	Code, BootCount, Sequence, Slot             int
	ClockSet                                    bool
}

type oemManager struct {
	Endpoint, Slot, Restarts  int
	Available, ClockSet       bool
	AgeSeconds, UptimeSeconds float64
	Log                       oemLink
}

type oemTray struct {
	Slot       int
	Present    bool
	AgeSeconds float64
}

type oemSubscription struct {
	TLSPins                 []string
	Waiting, Lost, Attempts int
	Failure                 string
}

type oemSlot struct {
	Name, State, Version, Digest, Reason, Expected, Seen string
	SecurityVersion                                      int
}

type oemSystem struct {
	Slot                                                                     int
	Present, Available                                                       bool
	AgeSeconds                                                               float64
	State, Stage, Reason, Expected, Seen, ReasonText, Cure, BootSlot         string
	Commit, Release, Address                                                 string
	Stale                                                                    bool
	UptimeSeconds, CPUPercent, ReportAgeSeconds                              float64
	MemoryUsedMiB, MemoryTotalMiB                                            int
	DesiredPower                                                             string
	DesiredGeneration, ObservedGeneration, BootCount, Resets                 int
	RailSeconds                                                              float64
	EvidenceVoid, FallbackSlot, SensorLost, StoreWorn                        bool
	HeartbeatLost, WaitingForGrant, Capped                                   bool
	Watts, Volts, Amperes, EnergyJoules, TemperatureCelsius, PowerGrantWatts float64
	PowerCapWatts                                                            float64
	Floors                                                                   oemFloors
	Slots                                                                    []oemSlot
	Console                                                                  string
}

type oemFloors struct {
	Sequence, RootVersion, BootSecurity int
	Tree, Commit                        string
}

type oemRack struct {
	Watts, EnergyJoules, SupplyVolts, InletCelsius, BudgetWatts, GrantedWatts, AgeSeconds float64
	Fans                                                                                  []oemFan
	Failsafe, Throttling, SensorLost, OverBudget, Available                               bool
	FrameErrors                                                                           int
	Policies                                                                              oemPolicies
}

type oemFan struct {
	Name, Health     string
	RPM, DutyPercent int
}

type oemPolicies struct {
	Generation, StaggerMilliseconds                                                              int
	Curve                                                                                        []oemPoint
	ThrottleCelsius, ShutdownCelsius, HysteresisCelsius, BudgetWatts, ReserveWatts, UnitCapWatts float64
}

type oemPoint struct{ TemperatureCelsius, DutyPercent float64 }

// ours begins the Oem property of a resource.
func ours(kind string) object { return object{"@odata.type": "#" + kind + oemVersion + ".Racklet"} }

// schemasURI is where the schema files of our own types are.
const schemasURI = root + "/Schemas"

func (s *Service) addOem(t *router) {
	t.add(schemasURI+"/*", resource{raw: func(w http.ResponseWriter, r *http.Request, p []string) {
		if name, ok := strings.CutSuffix(p[0], "_v1.xml"); ok && oemTypes[name] != nil {
			w.Header().Set("Content-Type", "application/xml; charset=utf-8")
			w.Write([]byte(csdl(name)))
			return
		}
		if name, ok := strings.CutSuffix(p[0], oemVersion+".json"); ok && oemTypes[name] != nil {
			w.Header().Set("Content-Type", "application/schema+json")
			writeJSON(w, jsonSchema(name))
			return
		}
		w.Header().Del("Allow")
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
	}})
}

func oemNames() []string {
	var names []string
	for name := range oemTypes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// csdl is the schema of one of our types as OData has it.
func csdl(name string) string {
	const (
		reference = `  <edmx:Reference Uri="%s"><edmx:Include Namespace="%s" Alias="%s"/></edmx:Reference>` + "\n"
		space     = `    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="%s">` + "\n"
	)
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">` + "\n")
	fmt.Fprintf(&b, reference, "http://docs.oasis-open.org/odata/odata/v4.0/errata03/csd01/complete/vocabularies/Org.OData.Core.V1.xml", "Org.OData.Core.V1", "OData")
	fmt.Fprintf(&b, reference, published+"schemas/v1/RedfishExtensions_v1.xml", "RedfishExtensions.v1_0_0", "Redfish")
	for _, of := range []string{"Resource", "LogService"} {
		fmt.Fprintf(&b, `  <edmx:Reference Uri="%sschemas/v1/%s_v1.xml"><edmx:Include Namespace="%s"/>`, published, of, of)
		if of == "Resource" {
			b.WriteString(`<edmx:Include Namespace="Resource.v1_0_0"/>`)
		}
		b.WriteString("</edmx:Reference>\n")
	}
	b.WriteString("  <edmx:DataServices>\n")
	fmt.Fprintf(&b, space, name)
	b.WriteString(`      <Annotation Term="Redfish.OwningEntity" String="Racklet"/>` + "\n    </Schema>\n")
	fmt.Fprintf(&b, space, name+oemVersion)
	b.WriteString(`      <Annotation Term="Redfish.OwningEntity" String="Racklet"/>` + "\n")
	complexType(&b, name+oemVersion, "Racklet", reflect.TypeOf(oemTypes[name]), map[string]bool{})
	b.WriteString("    </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n")
	return b.String()
}

// complexType writes a type and those within it.
func complexType(b *strings.Builder, space, name string, t reflect.Type, done map[string]bool) {
	parent := ""
	if name == "Racklet" {
		parent = ` BaseType="Resource.OemObject"`
	}
	fmt.Fprintf(b, `      <ComplexType Name="%s"%s>`+"\n"+`        <Annotation Term="OData.AdditionalProperties" Bool="false"/>`+"\n", name, parent)
	var inner []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		kind, of := "Property", f.Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		typed := map[reflect.Kind]string{reflect.String: "Edm.String", reflect.Int: "Edm.Int64", reflect.Float64: "Edm.Decimal", reflect.Bool: "Edm.Boolean"}[of.Kind()]
		switch {
		case of == reflect.TypeFor[oemLink]():
			kind, typed = "NavigationProperty", "LogService.LogService"
		case typed == "":
			typed = space + "." + innerName(of)
			inner = append(inner, of)
		}
		if f.Type.Kind() == reflect.Slice {
			typed = "Collection(" + typed + ")"
		}
		fmt.Fprintf(b, `        <%s Name="%s" Type="%s" Nullable="false"/>`+"\n", kind, f.Name, typed)
	}
	b.WriteString("      </ComplexType>\n")
	for _, t := range inner {
		if name := innerName(t); !done[name] {
			done[name] = true
			complexType(b, space, name, t, done)
		}
	}
}

// innerName is oemFloors without "oem".
func innerName(t reflect.Type) string { return strings.TrimPrefix(t.Name(), "oem") }

// jsonSchema is the schema of one of our types as JSON Schema (draft 7, as the standard's).
func jsonSchema(name string) object {
	return object{
		"$schema": "http://json-schema.org/draft-07/schema#", "$id": schemasURI + "/" + name + oemVersion + ".json",
		"title": "#" + name + oemVersion + ".Racklet", "owningEntity": "Racklet", "$ref": "#/definitions/Racklet",
		"definitions": object{"Racklet": schemaOf(reflect.TypeOf(oemTypes[name]), true)},
	}
}

func schemaOf(t reflect.Type, top bool) object {
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), false)}
	}
	if t == reflect.TypeFor[oemLink]() {
		return object{"type": "object", "required": []string{"@odata.id"}}
	}
	properties := object{}
	for i := range t.NumField() {
		properties[t.Field(i).Name] = schemaOf(t.Field(i).Type, false)
	}
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if top {
		properties["@odata.type"] = object{"type": "string"}
		o["required"] = []string{"@odata.type"}
	}
	return o
}
