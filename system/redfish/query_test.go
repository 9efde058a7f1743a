package redfish_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// page is what a test reads of a collection.
type page struct {
	Members []map[string]any
	Count   int    `json:"Members@odata.count"`
	Next    string `json:"Members@odata.nextLink"`
}

func (p *page) ids() (ids []string) {
	for _, m := range p.Members {
		uri, _ := m["@odata.id"].(string)
		ids = append(ids, uri[strings.LastIndexByte(uri, '/')+1:])
	}
	return ids
}

// TestFilterQuery filters collections of references and of members that stand in the collection, with the other parameters.
func TestFilterQuery(t *testing.T) {
	s := running(t, 3)
	ask := func(uri, query string) page {
		t.Helper()
		var p page
		s.get("/redfish/v1/"+uri+"?"+strings.NewReplacer(" ", "%20", "'", "%27").Replace(query), &p)
		return p
	}
	s.do("PATCH", "/redfish/v1/Systems/unit-2", `{"LocationIndicatorActive":true}`)
	for _, c := range []struct {
		query string
		want  string
		count int
	}{
		{"$filter=LocationIndicatorActive eq true", "unit-2", 1},
		{"$filter=not LocationIndicatorActive", "unit-1 unit-3", 2},
		{"$filter=Oem/Racklet/Slot ge 2&$top=1", "unit-2", 2},
		{"$filter=Oem/Racklet/Slot ge 2&$skip=1", "unit-3", 2},
		{"$filter=Status/State eq 'Enabled' and (Id eq 'unit-1' or Id eq 'unit-3')", "unit-1 unit-3", 2},
		{"$filter=Id eq 'nobody'", "", 0},
	} {
		p := ask("Systems", c.query)
		if got := strings.Join(p.ids(), " "); got != c.want || p.Count != c.count {
			t.Errorf("%s: %s, count %d", c.query, got, p.Count)
		}
		if more := strings.Contains(c.query, "$top"); more != (p.Next != "") {
			t.Errorf("%s: next %q", c.query, p.Next)
		} else if more {
			p = page{}
			if s.get(ask("Systems", c.query).Next, &p); !slices.Equal(p.ids(), []string{"unit-3"}) || p.Next != "" {
				t.Errorf("%s, next: %v", c.query, p.ids())
			}
		}
	}
	if p := ask("Systems", "$filter=Id eq 'unit-2'&$expand=.&$select=Id,LocationIndicatorActive"); p.Count != 1 || p.Members[0]["LocationIndicatorActive"] != true || p.Members[0]["Boot"] != nil {
		t.Errorf("filter, expand and select: %v", p)
	}
	s.until("there are critical entries", func() bool {
		p := ask("Systems/unit-1/LogServices/Log/Entries", "$filter=Severity eq 'Critical'")
		return p.Count > 0 && p.Members[0]["Severity"] == "Critical"
	})
}

// TestExpandLevels: levels reach as deep as they say, "." leaves Links alone, "~" everything else; too much is refused; what was
// expanded or selected has the ETag by which it can be changed.
func TestExpandLevels(t *testing.T) {
	s := running(t, 2)
	type any = map[string]interface{}
	at := func(v any, path ...string) interface{} {
		var now interface{} = v
		for _, p := range path {
			switch x := now.(type) {
			case map[string]interface{}:
				now = x[p]
			case []interface{}:
				now = x[0]
			}
		}
		return now
	}
	var v any
	s.get("/redfish/v1?$expand=.", &v)
	if at(v, "Systems", "Name") == nil || at(v, "Systems", "Members", "0", "Name") != nil || at(v, "Links", "Sessions", "Name") != nil {
		t.Errorf("one level: %v", v)
	}
	v = nil
	s.get("/redfish/v1?$expand=.($levels=3)", &v)
	if at(v, "Systems", "Members", "0", "LogServices", "Name") == nil || at(v, "Systems", "Members", "0", "Boot", "BootOptions", "Name") == nil || at(v, "Systems", "Members", "0", "LogServices", "Members", "0", "Name") != nil {
		t.Errorf("three levels: %v", at(v, "Systems"))
	}
	v = nil
	s.get("/redfish/v1/Systems/unit-1?$expand=~", &v)
	if at(v, "Links", "Chassis", "0", "Name") == nil || at(v, "LogServices", "Name") != nil {
		t.Errorf("~: %v", v)
	}
	v = nil
	s.get("/redfish/v1/Systems/unit-1?$expand=*", &v)
	if at(v, "Links", "Chassis", "0", "Name") == nil || at(v, "LogServices", "Name") == nil {
		t.Errorf("*: %v", v)
	}
	resp, b := s.do("GET", "/redfish/v1?$expand="+url.QueryEscape("*($levels=4)"), "")
	if resp.StatusCode != 200 && (resp.StatusCode != 400 || firstMessage(t, b).MessageID != "Base.1.22.QueryParameterOutOfRange") {
		t.Errorf("everything: %d %.300s", resp.StatusCode, b)
	}
	for _, query := range []string{"Systems?$expand=.&$select=LocationIndicatorActive", "Systems?$expand=*($levels=2)"} {
		var p page
		s.get("/redfish/v1/"+query, &p)
		etag, _ := p.Members[0]["@odata.etag"].(string)
		if resp, b := s.do("PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":false}`, "If-Match", etag); resp.StatusCode != 200 {
			t.Errorf("by the ETag of %s: %d %s", query, resp.StatusCode, b)
		}
	}
	resp, _ = s.do("GET", "/redfish/v1/Systems/unit-1?$select=Boot", "")
	if resp, b := s.do("PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":false}`, "If-Match", resp.Header.Get("ETag")); resp.StatusCode != 200 {
		t.Errorf("by the ETag of a part: %d %s", resp.StatusCode, b)
	}
}

// TestAdvertised: the service root says what queries work, and those and no others do, on every collection there is.
func TestAdvertised(t *testing.T) {
	s := running(t, 1)
	var v struct {
		Features struct {
			ExpandQuery struct {
				ExpandAll, Levels, Links, NoLinks bool
				MaxLevels                         int
			}
			FilterQuery, OnlyMemberQuery, SelectQuery, TopSkipQuery, ExcerptQuery bool
		} `json:"ProtocolFeaturesSupported"`
	}
	s.get("/redfish/v1", &v)
	if e := v.Features.ExpandQuery; !e.ExpandAll || !e.Levels || !e.Links || !e.NoLinks || e.MaxLevels != 4 || !v.Features.FilterQuery || !v.Features.OnlyMemberQuery || !v.Features.SelectQuery || !v.Features.TopSkipQuery {
		t.Fatalf("%+v", v)
	}
	collections := 0
	for uri, b := range s.walk() {
		var whole page
		if err := json.Unmarshal(b, &whole); err != nil || !strings.Contains(string(b), `Collection"`) || !strings.Contains(string(b), `"Members":`) {
			continue
		}
		collections++
		for _, query := range []string{"$expand=.", "$expand=*", "$expand=~", "$select=Members", "$filter=Id%20ne%20'x'", "$top=1", "$skip=1", "$expand=.($levels=2)&$top=2&$filter=not%20(Id%20eq%20'x')"} {
			var p page
			s.get(uri+"?"+query, &p)
			want := len(whole.Members)
			switch {
			case strings.Contains(query, "$top=1"):
				want = min(want, 1)
			case strings.Contains(query, "$top=2"):
				want = min(want, 2)
			case strings.Contains(query, "$skip"):
				want = max(want-1, 0)
			}
			grew := strings.HasSuffix(uri, "/Entries") // a log
			if len(p.Members) != want && !grew || p.Count != len(whole.Members) && !grew {
				t.Errorf("%s?%s: %d of %d members, want %d", uri, query, len(p.Members), p.Count, want)
			}
			if expanded := strings.HasPrefix(query, "$expand=.") || strings.HasPrefix(query, "$expand=*"); expanded && len(p.Members) > 0 && p.Members[0]["Name"] == nil {
				t.Errorf("%s?%s: not expanded: %v", uri, query, p.Members[0])
			}
		}
	}
	if collections < 15 {
		t.Errorf("only %d collections", collections)
	}
}
