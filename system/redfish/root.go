package redfish

import (
	"net/http"
	"strings"
)

// all is the table of URIs.
func (s *Service) table() router {
	var t router
	fixed := func(uri string, get func() object) {
		t.add(uri, resource{get: func([]string) object { return get() }})
	}
	fixed("/redfish", func() object { return object{"v1": root + "/"} })
	fixed(root, s.serviceRoot)
	fixed(root+"/odata", s.serviceDocument)
	t.add(root+"/$metadata", resource{raw: func(w http.ResponseWriter, _ *http.Request, _ []string) { serveMetadata(w) }})
	s.addSystems(&t)
	s.addChassis(&t)
	s.addManagement(&t)
	s.addManagers(&t)
	s.addIntegrity(&t)
	s.addAccounts(&t)
	s.addSessions(&t)
	s.addRegistries(&t)
	s.addOem(&t)
	s.addSubscriptions(&t)
	s.addTasks(&t)
	s.addUpdates(&t)
	s.addMetrics(&t)
	s.addInventory(&t)
	s.addPower(&t)
	s.addFabric(&t)
	s.addAggregation(&t)
	return t
}

// members is a collection of references.
func members(kind, uri, name string, ids []string) object {
	list := make([]object, len(ids))
	for i, id := range ids {
		list[i] = ref(uri + "/" + id)
	}
	return object{
		"@odata.type": "#" + kind + "." + kind, "@odata.id": uri, "Name": name,
		"Members@odata.count": len(list), "Members": list,
	}
}

func (s *Service) serviceRoot() object {
	return object{
		"@odata.type": "#ServiceRoot.v1_20_0.ServiceRoot", "@odata.id": root, "Id": "RootService", "Name": "Racklet",
		"RedfishVersion": "1.22.0", "UUID": s.o.Rack.Spec.ID, "Product": "Racklet", "Vendor": "Racklet",
		"Systems": ref(root + "/Systems"), "Chassis": ref(root + "/Chassis"), "Managers": ref(root + "/Managers"),
		"EventService": ref(root + "/EventService"), "ComponentIntegrity": ref(root + "/ComponentIntegrity"),
		"SessionService": ref(sessionServiceURI), "AccountService": ref(accountServiceURI), "CertificateService": ref(certificateServiceURI),
		"UpdateService": ref(updateServiceURI), "Tasks": ref(taskServiceURI),
		"PowerEquipment": ref(powerURI), "Fabrics": ref(fabricsURI), "AggregationService": ref(aggregationURI), "Registries": ref(root + "/Registries"), "JsonSchemas": ref(root + "/JsonSchemas"),
		"Links": object{"Sessions": ref(root + "/SessionService/Sessions"), "ManagerProvidingService": ref(apiURI)},
		"ProtocolFeaturesSupported": object{
			"ExpandQuery": object{"ExpandAll": true, "Levels": true, "MaxLevels": maxLevels, "Links": true, "NoLinks": true},
			"FilterQuery": true, "OnlyMemberQuery": true, "SelectQuery": true, "TopSkipQuery": true, "ExcerptQuery": false,
		},
	}
}

func (s *Service) serviceDocument() object {
	list := []object{{"name": "Service", "kind": "Singleton", "url": root + "/"}}
	for _, name := range []string{"Systems", "Chassis", "Managers", "EventService", "ComponentIntegrity", "SessionService", "AccountService", "CertificateService", "UpdateService", "TaskService", "PowerEquipment", "Fabrics", "AggregationService", "Registries", "JsonSchemas"} {
		list = append(list, object{"name": name, "kind": "Singleton", "url": root + "/" + name})
	}
	return object{"@odata.context": root + "/$metadata", "value": list}
}

// schemas are the schemas whose types are served, for the metadata document.
var schemas = []string{
	"ServiceRoot.v1_20_0", "ComputerSystemCollection", "ComputerSystem.v1_27_0", "ChassisCollection", "Chassis.v1_28_0",
	"ManagerCollection", "Manager.v1_24_0", "EventService.v1_12_0", "EventDestinationCollection", "ComponentIntegrityCollection",
	"ComponentIntegrity.v1_3_2", "SessionService.v1_2_0", "SessionCollection", "LogServiceCollection", "LogService.v1_9_0",
	"LogEntryCollection", "LogEntry.v1_21_0", "BootOptionCollection", "BootOption.v1_0_6", "ActionInfo.v1_5_0",
	"EnvironmentMetrics.v1_5_0", "SensorCollection", "Sensor.v1_12_0", "PowerSubsystem.v1_1_3", "ThermalSubsystem.v1_5_0",
	"ThermalMetrics.v1_3_2", "FanCollection", "Fan.v1_6_0", "Event.v1_13_0", "AccountService.v1_18_1", "ManagerAccountCollection",
	"ManagerAccount.v1_14_1", "RoleCollection", "Role.v1_3_3", "Session.v1_8_0", "CertificateService.v1_2_1", "CertificateCollection",
	"Certificate.v1_11_0", "ManagerNetworkProtocol.v1_12_0", "EventDestination.v1_16_0", "MessageRegistryFileCollection",
	"MessageRegistryFile.v1_1_5", "MessageRegistry.v1_7_0", "PrivilegeRegistry.v1_2_0", "JsonSchemaFileCollection", "JsonSchemaFile.v1_1_5",
	"Message.v1_3_0", "TaskService.v1_3_0", "TaskCollection", "Task.v1_7_4", "UpdateService.v1_17_0", "SoftwareInventoryCollection",
	"SoftwareInventory.v1_13_0", "PowerEquipment.v1_2_3", "PowerDistributionCollection", "PowerDistribution.v1_6_0", "OutletCollection", "Outlet.v1_4_4",
	"PowerSupplyCollection", "PowerSupply.v1_6_0", "FabricCollection", "Fabric.v1_4_0", "SwitchCollection", "Switch.v1_11_0", "PortCollection", "Port.v1_18_0",
	"PortMetrics.v1_8_1", "AggregationService.v1_0_3", "AggregateCollection", "Aggregate.v1_0_3", "ProcessorCollection", "Processor.v1_22_0",
	"MemoryCollection", "Memory.v1_23_0", "StorageCollection", "Storage.v1_21_0", "Drive.v1_22_0", "EthernetInterfaceCollection", "EthernetInterface.v1_12_4",
}

func serveMetadata(w http.ResponseWriter) {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">` + "\n")
	for _, name := range schemas {
		space, _, versioned := strings.Cut(name, ".")
		b.WriteString(`  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/` + space + `_v1.xml"><edmx:Include Namespace="` + space + `"/>`)
		if versioned {
			b.WriteString(`<edmx:Include Namespace="` + name + `"/>`)
		}
		b.WriteString("</edmx:Reference>\n")
	}
	for _, name := range oemNames() {
		b.WriteString(`  <edmx:Reference Uri="` + schemasURI + "/" + name + `_v1.xml"><edmx:Include Namespace="` + name + `"/><edmx:Include Namespace="` + name + oemVersion + `"/></edmx:Reference>` + "\n")
	}
	b.WriteString("  <edmx:DataServices>\n" + `    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service"><EntityContainer Name="Service" Extends="ServiceRoot.v1_20_0.ServiceContainer"/></Schema>` + "\n  </edmx:DataServices>\n</edmx:Edmx>\n")
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.Write([]byte(b.String()))
}
