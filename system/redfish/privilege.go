package redfish

import (
	"net/http"
	"slices"
	"strings"

	"github.com/racklet/racklet/system/redfish/access"
)

// Who may do what is decided in one place: forms maps each form of URI to an entity, entities
// maps each entity and method to privileges, and authorize looks there for every request and
// for every resource that a query expands. A form that is missing is refused to everybody; a test
// finds it. The entities and their privileges are those of the standard's privilege registry
// (DSP8011, Redfish_1.6.0_PrivilegeRegistry), stricter where the comment says so. Both tables are served as
// /redfish/v1/Registries/PrivilegeRegistry.

// anyOf are privileges of which one suffices. Nil: nobody.
type anyOf []access.Privilege

// entity says what its resources ask for. HEAD is as GET. ConfigureSelf counts for those who
// own the resource only.
type entity struct {
	get, patch, post, put, delete anyOf
	properties                    map[string]anyOf // of a PATCH: privileges that suffice for one property
	uris                          []string         // not the standard's entity: only these URIs
}

var (
	noAuth     = anyOf{access.NoAuth}
	login      = anyOf{access.Login}
	manager    = anyOf{access.ConfigureManager}
	components = anyOf{access.ConfigureComponents}
	users      = anyOf{access.ConfigureUsers}
)

// readable is an entity that everybody reads and one privilege changes.
func readable(change anyOf) entity {
	return entity{get: login, patch: change, post: change, put: change, delete: change}
}

var entities = map[string]entity{
	"ServiceRoot":                   {get: noAuth, patch: manager, post: manager, put: manager, delete: manager},
	"AccountService":                readable(users),
	"Aggregate":                     readable(anyOf{access.ConfigureManager, access.ConfigureComponents}),
	"AggregateCollection":           readable(anyOf{access.ConfigureManager, access.ConfigureComponents}),
	"AggregationService":            readable(manager),
	"Drive":                         readable(components),
	"EthernetInterface":             readable(components),
	"EthernetInterfaceCollection":   readable(components),
	"Fabric":                        readable(components),
	"FabricCollection":              readable(components),
	"Memory":                        readable(components),
	"MemoryCollection":              readable(components),
	"Outlet":                        readable(components),
	"OutletCollection":              readable(components),
	"Port":                          readable(components),
	"PortCollection":                readable(components),
	"PortMetrics":                   readable(components),
	"PowerDistribution":             readable(components),
	"PowerDistributionCollection":   readable(components),
	"PowerEquipment":                readable(manager),
	"PowerSupply":                   readable(manager),
	"PowerSupplyCollection":         readable(manager),
	"Processor":                     readable(components),
	"ProcessorCollection":           readable(components),
	"Storage":                       readable(components),
	"StorageCollection":             readable(components),
	"Switch":                        readable(components),
	"SwitchCollection":              readable(components),
	"ActionInfo":                    readable(manager),
	"BootOption":                    readable(components),
	"BootOptionCollection":          readable(components),
	"Certificate":                   {get: manager, patch: manager, post: manager, put: manager, delete: manager},
	"CertificateCollection":         {get: manager, patch: manager, post: manager, put: manager, delete: manager},
	"CertificateService":            readable(manager),
	"Chassis":                       readable(components),
	"ChassisCollection":             readable(components),
	"ComponentIntegrity":            readable(manager),
	"ComponentIntegrityCollection":  readable(manager),
	"ComputerSystem":                readable(components),
	"ComputerSystemCollection":      readable(components),
	"EnvironmentMetrics":            readable(components),
	"EventDestination":              {get: login, patch: manager, post: manager, put: manager, delete: manager},
	"EventDestinationCollection":    readable(manager),
	"EventService":                  readable(manager),
	"Fan":                           readable(components),
	"FanCollection":                 readable(components),
	"JsonSchemaFile":                readable(manager),
	"JsonSchemaFileCollection":      readable(manager),
	"LogEntry":                      readable(manager),
	"LogEntryCollection":            readable(manager),
	"LogService":                    readable(manager),
	"LogServiceCollection":          readable(manager),
	"Manager":                       readable(manager),
	"ManagerCollection":             readable(manager),
	"ManagerNetworkProtocol":        readable(manager),
	"MessageRegistryFile":           readable(manager),
	"MessageRegistryFileCollection": readable(manager),
	"PowerSubsystem":                readable(components),
	"Role":                          readable(manager),
	"RoleCollection":                readable(manager),
	"Sensor":                        readable(components),
	"SensorCollection":              readable(components),
	"SessionService":                readable(manager),
	"SoftwareInventory":             readable(components),
	"SoftwareInventoryCollection":   readable(components),
	"TaskCollection":                readable(manager),
	"TaskService":                   readable(manager),
	"UpdateService":                 readable(components),
	"SessionCollection":             {get: login, post: noAuth, patch: manager, put: manager, delete: manager},
	"ThermalMetrics":                readable(components),
	"ThermalSubsystem":              readable(components),
	"ManagerAccountCollection":      readable(users),
	"ManagerAccount": {
		get: anyOf{access.ConfigureManager, access.ConfigureUsers, access.ConfigureSelf}, patch: users, post: users, put: users, delete: users,
		properties: map[string]anyOf{"Password": {access.ConfigureUsers, access.ConfigureSelf}},
	},
	// Whoever may begin something may stop it.
	"Task": {get: login, patch: manager, post: manager, put: manager, delete: anyOf{access.ConfigureManager, access.ConfigureSelf}},
	// Stricter than the standard, by which everybody who is logged in sees who else is.
	"Session": {get: anyOf{access.ConfigureManager, access.ConfigureSelf}, patch: manager, post: manager, put: manager, delete: anyOf{access.ConfigureManager, access.ConfigureSelf}},
	// Stricter: what is typed into a console can be anything.
	"RackletConsole": {get: components, patch: components, post: components, put: components, delete: components, uris: []string{root + "/Systems/*/Oem/Racklet/Console", root + "/Systems/*/Oem/Racklet/Console/Recording"}},
	// Stricter than a LogEntry: who works on the rack, and from where.
	"RackletAuditLog": {get: anyOf{access.ConfigureManager, access.ConfigureUsers}, patch: manager, post: manager, put: manager, delete: manager, uris: []string{auditURI, auditURI + "/Entries", auditURI + "/Entries/*"}},
	// Not Redfish, and the same readings as Sensors have.
	"RackletMetrics": {get: login, patch: manager, post: manager, put: manager, delete: manager, uris: []string{metricsURI}},
	// A certificate that logs in is as good as a password.
	"RackletAccountCertificate": {get: users, patch: users, post: users, put: users, delete: users, uris: []string{accountsURI + "/*/Certificates", accountsURI + "/*/Certificates/*"}},
}

// forms says what lives at each form of URI. A new resource begins with a line here.
var forms = map[string]string{
	metricsURI:           "RackletMetrics",
	"/redfish":           "ServiceRoot",
	root:                 "ServiceRoot",
	root + "/odata":      "ServiceRoot",
	root + "/$metadata":  "ServiceRoot",
	root + "/Systems":    "ComputerSystemCollection",
	root + "/Systems/*":  "ComputerSystem",
	root + "/Chassis":    "ChassisCollection",
	root + "/Chassis/*":  "Chassis",
	root + "/Managers":   "ManagerCollection",
	root + "/Managers/*": "Manager",
	rmcURI:               "Manager",
	apiURI:               "Manager",

	root + "/Systems/*/Actions/ComputerSystem.Reset":       "ComputerSystem",
	root + "/Systems/*/ResetActionInfo":                    "ActionInfo",
	root + "/Systems/*/BootOptions":                        "BootOptionCollection",
	root + "/Systems/*/BootOptions/*":                      "BootOption",
	root + "/Systems/*/LogServices":                        "LogServiceCollection",
	root + "/Systems/*/LogServices/Log":                    "LogService",
	root + "/Systems/*/LogServices/Log/Entries":            "LogEntryCollection",
	root + "/Systems/*/LogServices/Log/Entries/*":          "LogEntry",
	root + "/Systems/*/LogServices/Boot":                   "LogService",
	root + "/Systems/*/LogServices/Boot/Entries":           "LogEntryCollection",
	root + "/Systems/*/LogServices/Boot/Entries/*":         "LogEntry",
	root + "/Managers/*/LogServices":                       "LogServiceCollection",
	root + "/Managers/*/LogServices/Log":                   "LogService",
	root + "/Managers/*/LogServices/Log/Entries":           "LogEntryCollection",
	root + "/Managers/*/LogServices/Log/Entries/*":         "LogEntry",
	root + "/Systems/*/Oem/Racklet/Console":                "RackletConsole",
	root + "/Systems/*/Oem/Racklet/Console/Recording":      "RackletConsole",
	rackURI + "/PowerSubsystem":                            "PowerSubsystem",
	rackURI + "/ThermalSubsystem":                          "ThermalSubsystem",
	rackURI + "/ThermalSubsystem/ThermalMetrics":           "ThermalMetrics",
	rackURI + "/ThermalSubsystem/Fans":                     "FanCollection",
	rackURI + "/ThermalSubsystem/Fans/*":                   "Fan",
	root + "/Chassis/*/EnvironmentMetrics":                 "EnvironmentMetrics",
	root + "/Chassis/*/Sensors":                            "SensorCollection",
	root + "/Chassis/*/Sensors/*":                          "Sensor",
	rmcURI + "/LogServices":                                "LogServiceCollection",
	rmcURI + "/LogServices/Log":                            "LogService",
	rmcURI + "/LogServices/Log/Entries":                    "LogEntryCollection",
	rmcURI + "/LogServices/Log/Entries/*":                  "LogEntry",
	apiURI + "/LogServices":                                "LogServiceCollection",
	auditURI:                                               "RackletAuditLog",
	auditURI + "/Entries":                                  "RackletAuditLog",
	auditURI + "/Entries/*":                                "RackletAuditLog",
	apiURI + "/NetworkProtocol":                            "ManagerNetworkProtocol",
	httpsCertificatesURI:                                   "CertificateCollection",
	httpsCertificatesURI + "/*":                            "Certificate",
	root + "/ComponentIntegrity":                           "ComponentIntegrityCollection",
	root + "/ComponentIntegrity/*":                         "ComponentIntegrity",
	root + "/ComponentIntegrity/*/" + signedInfo:           "ActionInfo",
	root + "/ComponentIntegrity/*/Actions/" + signedAction: "ComponentIntegrity",

	root + "/Systems/*/Processors":                         "ProcessorCollection",
	root + "/Systems/*/Processors/*":                       "Processor",
	root + "/Systems/*/Memory":                             "MemoryCollection",
	root + "/Systems/*/Memory/*":                           "Memory",
	root + "/Systems/*/Storage":                            "StorageCollection",
	root + "/Systems/*/Storage/*":                          "Storage",
	root + "/Systems/*/Storage/*/Drives/*":                 "Drive",
	root + "/Systems/*/EthernetInterfaces":                 "EthernetInterfaceCollection",
	root + "/Systems/*/EthernetInterfaces/*":               "EthernetInterface",
	root + "/Managers/*/Actions/Manager.Reset":             "Manager",
	root + "/Managers/*/ResetActionInfo":                   "ActionInfo",
	powerURI:                                               "PowerEquipment",
	powerURI + "/RackPDUs":                                 "PowerDistributionCollection",
	distributionURI:                                        "PowerDistribution",
	distributionURI + "/Outlets":                           "OutletCollection",
	distributionURI + "/Outlets/*":                         "Outlet",
	distributionURI + "/Outlets/*/PowerControlActionInfo":  "ActionInfo",
	distributionURI + "/Outlets/*/Actions/" + outletAction: "Outlet",
	suppliesURI:                         "PowerSupplyCollection",
	suppliesURI + "/supply":             "PowerSupply",
	fabricsURI:                          "FabricCollection",
	fabricsURI + "/network":             "Fabric",
	fabricsURI + "/network/Switches":    "SwitchCollection",
	switchURI:                           "Switch",
	switchURI + "/Ports":                "PortCollection",
	switchURI + "/Ports/*":              "Port",
	switchURI + "/Ports/*/Metrics":      "PortMetrics",
	aggregationURI:                      "AggregationService",
	aggregationURI + "/ResetActionInfo": "ActionInfo",
	aggregationURI + "/Actions/AggregationService.Reset":               "AggregationService",
	aggregationURI + "/Actions/AggregationService.SetDefaultBootOrder": "AggregationService",
	aggregatesURI:                                              "AggregateCollection",
	aggregatesURI + "/*":                                       "Aggregate",
	aggregatesURI + "/*/ResetActionInfo":                       "ActionInfo",
	aggregatesURI + "/*/Actions/Aggregate.Reset":               "Aggregate",
	aggregatesURI + "/*/Actions/Aggregate.SetDefaultBootOrder": "Aggregate",
	aggregatesURI + "/*/Actions/Aggregate.AddElements":         "Aggregate",
	aggregatesURI + "/*/Actions/Aggregate.RemoveElements":      "Aggregate",

	root + "/AccountService":          "AccountService",
	accountsURI:                       "ManagerAccountCollection",
	accountsURI + "/*":                "ManagerAccount",
	accountsURI + "/*/Certificates":   "RackletAccountCertificate",
	accountsURI + "/*/Certificates/*": "RackletAccountCertificate",
	rolesURI:                          "RoleCollection",
	rolesURI + "/*":                   "Role",
	root + "/SessionService":          "SessionService",
	sessionsURI:                       "SessionCollection",
	sessionsURI + "/*":                "Session",
	sessionsURI + "/Members":          "SessionCollection", // where POST may go too (DSP0266, 13.2.9)

	root + "/CertificateService":                                               "CertificateService",
	root + "/CertificateService/Actions/CertificateService.GenerateCSR":        "CertificateService",
	root + "/CertificateService/Actions/CertificateService.ReplaceCertificate": "CertificateService",
	root + "/EventService":                                                     "EventService",
	root + "/EventService/SSE":                                                 "EventService",
	root + "/EventService/Actions/EventService.SubmitTestEvent":                "EventService",
	subscriptionsURI:        "EventDestinationCollection",
	subscriptionsURI + "/*": "EventDestination",
	subscriptionsURI + "/*/Actions/EventDestination.ResumeSubscription":  "EventDestination",
	subscriptionsURI + "/*/Actions/EventDestination.SuspendSubscription": "EventDestination",
	taskServiceURI:          "TaskService",
	tasksURI:                "TaskCollection",
	tasksURI + "/*":         "Task",
	tasksURI + "/*/Monitor": "Task",
	updateServiceURI:        "UpdateService",
	updateServiceURI + "/Actions/" + simpleUpdate: "UpdateService",
	pushURI:                 "UpdateService",
	multipartURI:            "UpdateService",
	inventoryURI:            "SoftwareInventoryCollection",
	inventoryURI + "/*":     "SoftwareInventory",
	root + "/JsonSchemas":   "JsonSchemaFileCollection",
	root + "/JsonSchemas/*": "JsonSchemaFile",
	schemasURI + "/*":       "JsonSchemaFile",
	root + "/Registries":    "MessageRegistryFileCollection",
	root + "/Registries/*":  "MessageRegistryFile",
	root + "/Registries/Racklet/" + rackletRegistry + ".json":             "MessageRegistryFile",
	root + "/Registries/PrivilegeRegistry/" + privilegeRegistry + ".json": "MessageRegistryFile",
}

// of returns what an entity asks for a method. Methods that no resource knows ask for the impossible.
func (e *entity) of(method string) anyOf {
	switch method {
	case http.MethodGet, http.MethodHead:
		return e.get
	case http.MethodPatch:
		return e.patch
	case http.MethodPost:
		return e.post
	case http.MethodPut:
		return e.put
	case http.MethodDelete:
		return e.delete
	}
	return nil
}

// grant is what authorize decides.
type grant uint8

const (
	refused    grant = iota
	partial          // a PATCH of those properties only for which mayWrite says so
	granted          // all of it
	anonymous        // granted without a login
	unfinished       // refused: the password must be changed first
)

// authorize decides whether somebody, nil for one who has not logged in, may use a method at a
// URI: form is its form, p what stands for its stars.
func authorize(who *principal, form string, p []string, method string) grant {
	e, ok := entities[forms[form]]
	if !ok {
		return refused
	}
	need := e.of(method)
	if slices.Contains(need, access.NoAuth) {
		return anonymous
	}
	if who == nil {
		return refused
	}
	own := who.owns(form, p)
	if who.changeRequired { // DSP0266, 13.2.6 "Password management"
		switch {
		case own && forms[form] == "Session" && (method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete),
			own && forms[form] == "ManagerAccount" && (method == http.MethodGet || method == http.MethodHead):
			return granted
		case own && forms[form] == "ManagerAccount" && method == http.MethodPatch:
			return partial
		}
		return unfinished
	}
	if who.hasAny(need, own) {
		return granted
	}
	if method == http.MethodPatch {
		for _, n := range e.properties {
			if who.hasAny(n, own) {
				return partial
			}
		}
	}
	return refused
}

// mayWrite decides about one property of a partial grant.
func mayWrite(who *principal, form string, p []string, property string) bool {
	if who.changeRequired && property != "Password" {
		return false
	}
	e := entities[forms[form]]
	return who.hasAny(e.properties[property], who.owns(form, p))
}

func (w *principal) hasAny(need anyOf, own bool) bool {
	return slices.ContainsFunc(need, func(p access.Privilege) bool {
		return (p != access.ConfigureSelf || own) && w.role.Has(p)
	})
}

// owns says whether a resource is one's own account or session.
func (w *principal) owns(form string, p []string) bool {
	switch {
	case w.account == "" || len(p) == 0:
		return false
	case strings.HasPrefix(form, accountsURI+"/*"):
		return p[0] == w.account
	case strings.HasPrefix(form, tasksURI+"/*"):
		return w.tasks.owner(p[0]) == w.account
	case form == sessionsURI+"/*":
		return w.ownsSession(p[0])
	}
	return false
}
