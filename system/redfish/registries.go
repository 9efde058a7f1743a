package redfish

import (
	"net/http"
	"slices"
	"strings"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/access"
)

// Names of the registries that are served here.
const (
	rackletRegistry   = "Racklet.1.0.0"
	privilegeRegistry = "Racklet_1.0.0_PrivilegeRegistry"
	published         = "http://redfish.dmtf.org/"

	rackletRegistryURI   = root + "/Registries/Racklet/" + rackletRegistry + ".json"
	privilegeRegistryURI = root + "/Registries/PrivilegeRegistry/" + privilegeRegistry + ".json"
)

// registryFile is a registry that messages or privileges refer to.
type registryFile struct{ id, name, registry, uri, publication string }

var registries = []registryFile{
	{"Base", "Messages of the standard", strings.TrimSuffix(basePrefix, "."), "", "https://redfish.dmtf.org/registries/" + basePrefix + "0.json"},
	{"Racklet", "Messages of racks", "Racklet.1.0", rackletRegistryURI, ""},
	{"TaskEvent", "Messages about tasks", "TaskEvent.1.0", "", "https://redfish.dmtf.org/registries/" + taskPrefix + "3.json"},
	{"Update", "Messages about updates", "Update.1.0", "", "https://redfish.dmtf.org/registries/" + updatePrefix + "2.json"},
	{"PrivilegeRegistry", "Who may do what", "PrivilegeRegistry.1.0", privilegeRegistryURI, ""},
}

func (s *Service) addRegistries(t *router) {
	uri := root + "/Registries"
	t.add(uri, resource{get: func([]string) object {
		var ids []string
		for _, r := range registries {
			ids = append(ids, r.id)
		}
		return members("MessageRegistryFileCollection", uri, "Registries", ids)
	}})
	t.add(uri+"/*", resource{get: func(p []string) object {
		for _, r := range registries {
			if r.id == p[0] {
				at := object{"Language": "en"}
				if r.uri != "" {
					at["Uri"] = r.uri
				} else {
					at["PublicationUri"] = r.publication
				}
				return object{"@odata.type": "#MessageRegistryFile.v1_1_5.MessageRegistryFile", "@odata.id": uri + "/" + r.id, "Id": r.id, "Name": r.name,
					"Registry": r.registry, "Languages": []string{"en"}, "Location": []object{at}}
			}
		}
		return nil
	}})
	t.add(rackletRegistryURI, resource{get: func([]string) object { return messageRegistry() }})
	t.add(privilegeRegistryURI, resource{get: func([]string) object { return privileges() }})

	files := root + "/JsonSchemas"
	t.add(files, resource{get: func([]string) object {
		ids := slices.Clone(schemas)
		for _, name := range oemNames() {
			ids = append(ids, name+oemVersion)
		}
		return members("JsonSchemaFileCollection", files, "Schemas", ids)
	}})
	t.add(files+"/*", resource{get: func(p []string) object {
		space, _, _ := strings.Cut(p[0], ".")
		if oemTypes[space] != nil && p[0] == space+oemVersion {
			return object{"@odata.type": "#JsonSchemaFile.v1_1_5.JsonSchemaFile", "@odata.id": files + "/" + p[0], "Id": p[0], "Name": "Schema " + p[0],
				"Schema": "#" + p[0] + ".Racklet", "Languages": []string{"en"}, "Location": []object{{"Language": "en", "Uri": schemasURI + "/" + p[0] + ".json"}}}
		}
		if !slices.Contains(schemas, p[0]) {
			return nil
		}
		return object{"@odata.type": "#JsonSchemaFile.v1_1_5.JsonSchemaFile", "@odata.id": files + "/" + p[0], "Id": p[0], "Name": "Schema " + p[0],
			"Schema": "#" + p[0] + "." + space, "Languages": []string{"en"},
			"Location": []object{{"Language": "en", "PublicationUri": published + "schemas/v1/" + p[0] + ".json"}}}
	}})
}

// messageRegistry has a message for each kind of event.
func messageRegistry() object {
	messages := object{"TestEvent": object{
		"Description": "A test, at the wish of a client.", "Message": "%1", "Severity": "OK", "MessageSeverity": "OK",
		"NumberOfArgs": 1, "ParamTypes": []string{"string"}, "Resolution": "None.",
	}}
	for k := range wire.EventKind(64) {
		name := k.String()
		if name == "" || name[0] < 'a' || name[0] > 'z' || strings.ContainsAny(name, "( ") {
			continue
		}
		messages[kindName(k)] = object{
			"Description": "An event of the kind " + name + ", in the words of the controller that logged it.",
			"Message":     "%1", "Severity": "OK", "MessageSeverity": "OK", "NumberOfArgs": 1, "ParamTypes": []string{"string"},
			"Resolution": "Each event has its own.",
		}
	}
	return object{
		"@odata.type": "#MessageRegistry.v1_7_0.MessageRegistry", "Id": rackletRegistry, "Name": "Messages of racks", "Language": "en",
		"RegistryPrefix": "Racklet", "RegistryVersion": "1.0.0", "OwningEntity": "Racklet", "Messages": messages,
	}
}

// privileges is the table of privileges as the standard has it (PrivilegeRegistry schema).
func privileges() object {
	alternatives := func(need anyOf) []object {
		list := make([]object, len(need))
		for i, p := range need {
			list[i] = object{"Privilege": []access.Privilege{p}}
		}
		return list
	}
	operations := func(e *entity) object {
		o := object{}
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodDelete} {
			o[m] = alternatives(e.of(m))
		}
		return o
	}
	used := map[string]bool{}
	for _, name := range forms {
		used[name] = true
	}
	var names []string
	for name := range used {
		names = append(names, name)
	}
	slices.Sort(names)
	var mappings []object
	for _, name := range names {
		e := entities[name]
		m := object{"Entity": name, "OperationMap": operations(&e)}
		if e.uris != nil { // not an entity of the standard: told by its URIs
			targets := make([]string, len(e.uris))
			for i, u := range e.uris {
				targets[i] = strings.ReplaceAll(u, "*", "{id}")
			}
			m["ResourceURIOverrides"] = []object{{"Targets": targets, "OperationMap": operations(&e)}}
		}
		if len(e.properties) > 0 {
			var list []object
			for p, need := range e.properties {
				list = append(list, object{"Targets": []string{p}, "OperationMap": object{"PATCH": alternatives(need)}})
			}
			m["PropertyOverrides"] = list
		}
		mappings = append(mappings, m)
	}
	return object{
		"@odata.type": "#PrivilegeRegistry.v1_2_0.PrivilegeRegistry", "@odata.id": privilegeRegistryURI, "Id": privilegeRegistry, "Name": "Who may do what",
		"PrivilegesUsed":    []access.Privilege{access.Login, access.ConfigureSelf, access.ConfigureUsers, access.ConfigureManager, access.ConfigureComponents, access.NoAuth},
		"OEMPrivilegesUsed": []string{}, "Mappings": mappings,
	}
}
