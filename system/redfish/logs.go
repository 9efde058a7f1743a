package redfish

import "github.com/racklet/racklet/firmware/wire"

// A logView shows a controller's log, or a part of it, at some URI.
type logView struct {
	id, name string // name is followed by that of the controller
	purpose  string // LogService schema, LogPurposes
	wants    func(*entry) bool
}

var (
	// wholeLog is all that a controller has logged, and what the service noted about it.
	wholeLog = logView{"Log", "Events of ", "Operations", func(*entry) bool { return true }}
	// bootLog is how boots went.
	bootLog = logView{"Boot", "Boot progress of ", "Diagnostic", func(e *entry) bool {
		switch e.event.Kind {
		case wire.EventStage, wire.EventState, wire.EventRail, wire.EventReset, wire.EventSlot, wire.EventFailure:
			return true
		}
		return false
	}}
)

// logURI is where the whole log of a controller lives, which is the one that events refer to.
func logURI(c *controller) string {
	if c.eid.Slot() != 0 {
		return root + "/Systems/" + c.name + "/LogServices/Log"
	}
	return rmcURI + "/LogServices/Log"
}

// addLogs adds the resources of views of one controller's log below a form of URI; at says which one it is there.
func (s *Service) addLogs(t *router, form string, at func(p []string) (uri string, c *controller), views ...logView) {
	t.add(form+"/LogServices", resource{get: func(p []string) object {
		uri, c := at(p)
		if c == nil {
			return nil
		}
		var ids []string
		for _, v := range views {
			ids = append(ids, v.id)
		}
		return members("LogServiceCollection", uri+"/LogServices", "Logs", ids)
	}})
	for _, v := range views {
		s.addLog(t, form+"/LogServices/"+v.id, func(p []string) (string, *controller) {
			uri, c := at(p)
			return uri + "/LogServices/" + v.id, c
		}, v)
	}
}

func (s *Service) addLog(t *router, form string, at func(p []string) (uri string, c *controller), v logView) {
	t.add(form, resource{get: func(p []string) object {
		uri, c := at(p)
		if c == nil {
			return nil
		}
		return object{
			"@odata.type": "#LogService.v1_9_0.LogService", "@odata.id": uri, "Id": v.id, "Name": v.name + c.name,
			"LogEntryType": "Event", "OverWritePolicy": "WrapsWhenFull", "MaxNumberOfRecords": maxEntries, "LogPurposes": []string{v.purpose},
			"ServiceEnabled": true, "DateTime": volatile{stamp(s.clock.Now())}, "DateTimeLocalOffset": "+00:00",
			"Status": enabled(), "Entries": ref(uri + "/Entries"),
		}
	}})
	t.add(form+"/Entries", resource{get: func(p []string) object {
		uri, c := at(p)
		if c == nil {
			return nil
		}
		list := []object{}
		for i := range c.log.entries {
			if e := &c.log.entries[i]; v.wants(e) {
				list = append(list, s.entryObject(uri, e))
			}
		}
		return object{
			"@odata.type": "#LogEntryCollection.LogEntryCollection", "@odata.id": uri + "/Entries", "Name": v.name + c.name,
			"Members@odata.count": len(list), "Members": list,
		}
	}})
	t.add(form+"/Entries/*", resource{get: func(p []string) object {
		uri, c := at(p)
		if c == nil {
			return nil
		}
		if e := c.log.find(p[len(p)-1]); e != nil && v.wants(e) {
			return s.entryObject(uri, e)
		}
		return nil
	}})
}

func (s *Service) entryObject(uri string, e *entry) object {
	return object{
		"@odata.type": "#LogEntry.v1_21_0.LogEntry", "@odata.id": uri + "/Entries/" + e.id,
		"Id": e.id, "Name": "Log entry " + e.id, "EntryType": "Event", "Created": stamp(e.created),
		"Severity": e.severity(), "Message": e.message(), "MessageId": e.messageID(), "MessageArgs": []string{e.message()},
		"Resolution": e.resolution(), "Links": object{"OriginOfCondition": ref(s.origin(e))},
		"Oem": object{"Racklet": e.oem()},
	}
}
