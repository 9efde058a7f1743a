package redfish

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Limits of query parameters.
const (
	maxLevels   = 4     // of $expand
	maxExpanded = 5_000 // resources that one answer has in the place of references
	maxQuery    = 4 << 10
)

// query holds the query parameters (DSP0266, 7.3 "Query parameters"). They take effect in this order: only; $filter,
// $skip and $top; $expand; $select.
type query struct {
	top, skip int // -1: not given
	only      bool
	expand    byte // 0, '.', '*' or '~'
	levels    int
	filter    predicate // nil: all
	choose    []string
	raw       url.Values
	// may says whether a resource may be read by who asks: what cannot be read cannot be expanded.
	may      func(*resource, []string) bool
	expanded int
}

func parseQuery(raw string) (q query, m message, status int) {
	q.top, q.skip = -1, -1
	if raw == "" {
		return q, m, 0
	}
	values, err := url.ParseQuery(raw)
	if err != nil || len(raw) > maxQuery {
		return q, msgQueryValue(shorten(raw), "query", "a well-formed query of at most 4096 bytes"), http.StatusBadRequest
	}
	q.raw = values
	for name, v := range values {
		value := v[len(v)-1]
		want := ""
		switch name {
		case "$top", "$skip":
			n, err := strconv.ParseUint(value, 10, 31)
			switch {
			case err != nil:
				want = "a number from 0 on"
			case name == "$top":
				q.top = int(n)
			default:
				q.skip = int(n)
			}
		case "only":
			if q.only = true; value != "" {
				want = "no value"
			}
		case "$expand":
			var over bool
			if q.expand, q.levels, over = parseExpand(value); over {
				return q, msgQueryRange(shorten(value), name, "1 to "+strconv.Itoa(maxLevels)+" levels"), http.StatusBadRequest
			} else if q.expand == 0 {
				want = "., * or ~, and ($levels=N) behind it"
			}
		case "$select":
			for _, c := range strings.Split(value, ",") {
				if c = strings.TrimSpace(c); c == "" || strings.Count(c, "/") > maxDepth {
					want = "names of properties separated by commas"
				}
				q.choose = append(q.choose, c)
			}
		case "$filter":
			f, err := parseFilter(value)
			if err != nil {
				want = "an expression such as PowerState eq 'On' and not (Id eq 'unit-1'): " + err.Error()
			}
			q.filter = f
		default:
			if strings.HasPrefix(name, "$") {
				return q, msgQuery(shorten(name)), http.StatusNotImplemented
			}
		}
		if want != "" {
			return q, msgQueryValue(shorten(value), name, want), http.StatusBadRequest
		}
	}
	return q, m, 0
}

// parseExpand reads "*", ".", "~", each with "($levels=N)" if wanted.
func parseExpand(value string) (how byte, levels int, over bool) {
	if value == "" || !strings.Contains(".*~", value[:1]) {
		return 0, 0, false
	}
	rest, ok := value[1:], true
	if rest == "" {
		return value[0], 1, false
	}
	if rest, ok = strings.CutPrefix(rest, "($levels="); !ok {
		return 0, 0, false
	}
	if rest, ok = strings.CutSuffix(rest, ")"); !ok {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 31)
	if err != nil {
		return 0, 0, false
	}
	return value[0], int(n), n < 1 || n > maxLevels
}

// apply is called with the lock held for reading. Whole says that the answer has all that the resource has, and nothing of others.
func (q *query) apply(s *Service, o object, path string) (out object, whole bool, m message, status int) {
	members, isCollection := o["Members"].([]object)
	if !isCollection && (q.only || q.top >= 0 || q.skip >= 0 || q.filter != nil) {
		return nil, false, base("QueryNotSupportedOnResource", "Querying is not supported on the requested resource.",
			"Use $filter, $top, $skip and only on collections."), http.StatusBadRequest
	}
	whole = q.expand == 0 && len(q.choose) == 0
	if q.only && len(members) == 1 {
		whole = false
		uri, _ := members[0]["@odata.id"].(string)
		if one := q.lookup(s, uri); one != nil {
			o, members, isCollection = one, nil, false
		}
	}
	if _, tagged := o["@odata.etag"]; !tagged {
		o["@odata.etag"], _ = entityTag(o)
	}
	if isCollection {
		if q.filter != nil {
			whole = false
			members = q.keep(s, members)
			o["Members@odata.count"] = len(members)
		}
		if q.skip > 0 {
			members, whole = members[min(q.skip, len(members)):], false
		}
		if q.top >= 0 && q.top < len(members) {
			members, whole = members[:q.top], false
			o["Members@odata.nextLink"] = path + "?" + q.next()
		}
		o["Members"] = members
	}
	if q.expand != 0 {
		o = q.expandIn(s, o, false, q.levels)
		if q.expanded > maxExpanded {
			return nil, false, msgQueryRange(shorten(q.raw.Get("$expand")), "$expand", "so many levels that at most "+strconv.Itoa(maxExpanded)+" resources are expanded; ask for fewer levels or for a part of the tree"), http.StatusBadRequest
		}
	}
	if len(q.choose) > 0 {
		o = choose(o, q.choose)
	}
	return o, whole, message{}, 0
}

// next is the query for what $top leaves out, everything else as it was asked for.
func (q *query) next() string {
	var parts []string
	for name, v := range q.raw {
		if name != "$skip" {
			parts = append(parts, name+"="+url.QueryEscape(v[len(v)-1]))
		}
	}
	parts = append(parts, "$skip="+strconv.Itoa(max(q.skip, 0)+q.top))
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// keep returns the members that the filter lets through. What may not be read is not there.
func (q *query) keep(s *Service, members []object) []object {
	kept := []object{}
	for _, m := range members {
		o := m
		if uri, ok := reference(m); ok {
			if o = q.lookup(s, uri); o == nil {
				continue
			}
		}
		if q.filter(o) {
			kept = append(kept, m)
		}
	}
	return kept
}

// reference says whether an object is nothing but a reference.
func reference(o object) (uri string, ok bool) {
	uri, ok = o["@odata.id"].(string)
	return uri, ok && len(o) == 1
}

// expandIn puts resources in the place of references: of those under a property Links if the query says so, and of others
// if it says so.
func (q *query) expandIn(s *Service, in object, links bool, levels int) object {
	out := make(object, len(in))
	for _, k := range sortedKeys(in) {
		out[k] = q.expandValue(s, in[k], links || k == "Links", levels)
	}
	return out
}

func (q *query) expandValue(s *Service, v any, links bool, levels int) any {
	switch v := v.(type) {
	case volatile:
		return volatile{q.expandValue(s, v.value, links, levels)}
	case object:
		uri, is := reference(v)
		if !is {
			return q.expandIn(s, v, links, levels)
		}
		if links && q.expand == '.' || !links && q.expand == '~' || q.expanded > maxExpanded {
			return v
		}
		o := q.lookup(s, uri)
		if o == nil {
			return v
		}
		q.expanded++
		o["@odata.etag"], _ = entityTag(o)
		if levels > 1 {
			o = q.expandIn(s, o, false, levels-1)
		}
		return o
	case []object:
		out := make([]object, len(v))
		for i, e := range v {
			out[i], _ = q.expandValue(s, e, links, levels).(object)
		}
		return out
	}
	return v
}

func sortedKeys(o object) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (q *query) lookup(s *Service, uri string) object {
	res, p := s.routes.find(uri)
	if res == nil || res.get == nil || !q.may(res, p) {
		return nil
	}
	return res.get(p)
}

// choose keeps the named properties, "A/B" for one within another, and what every resource must have.
func choose(o object, names []string) object {
	out := object{}
	for k, v := range o {
		if strings.HasPrefix(k, "@odata.") || k == "Id" || k == "Name" {
			out[k] = v
		}
	}
	within := map[string][]string{} // property: what is chosen in it
	for _, name := range names {
		first, rest, nested := strings.Cut(name, "/")
		if v, ok := o[first]; ok && !nested {
			out[first] = v
		} else if ok {
			within[first] = append(within[first], rest)
		}
	}
	for name, rest := range within {
		v := o[name]
		if c, is := v.(volatile); is {
			v = c.value
		}
		if out[name] != nil {
			continue
		}
		switch in := v.(type) {
		case object:
			out[name] = choose(in, rest)
		case []object:
			list := make([]object, len(in))
			for i, e := range in {
				list[i] = choose(e, rest)
			}
			out[name] = list
		}
	}
	if members, ok := o["Members"].([]object); ok { // $select of an expanded collection speaks of its members
		chosen := make([]object, len(members))
		for i, m := range members {
			chosen[i] = m
			if len(m) > 1 {
				chosen[i] = choose(m, names)
			}
		}
		out["Members"], out["Members@odata.count"] = chosen, o["Members@odata.count"]
		if next, ok := o["Members@odata.nextLink"]; ok {
			out["Members@odata.nextLink"] = next
		}
	}
	return out
}
