package redfish

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// query holds the query parameters (DSP0266, 7.3 "Query parameters").
type query struct {
	top, skip int // -1: not given
	only      bool
	expand    byte // 0, '.', '*' or '~'
	choose    []string
	// may says whether a resource may be read by who asks: what cannot be read cannot be expanded.
	may func(*resource, []string) bool
}

func parseQuery(raw string) (q query, m message, status int) {
	q.top, q.skip = -1, -1
	if raw == "" {
		return q, m, 0
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, msgQueryValue(shorten(raw), "query", "a well-formed query"), http.StatusBadRequest
	}
	for name, v := range values {
		value := v[len(v)-1]
		switch name {
		case "$top", "$skip":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return q, msgQueryValue(shorten(value), name, "a number from 0 on"), http.StatusBadRequest
			}
			if name == "$top" {
				q.top = n
			} else {
				q.skip = n
			}
		case "only":
			q.only = true
		case "$expand":
			how, _, _ := strings.Cut(value, "(") // one level, whatever $levels says
			if how != "." && how != "*" && how != "~" {
				return q, msgQueryValue(shorten(value), name, "., * or ~"), http.StatusBadRequest
			}
			q.expand = how[0]
		case "$select":
			for _, c := range strings.Split(value, ",") {
				if c = strings.TrimSpace(c); c == "" {
					return q, msgQueryValue(shorten(value), name, "names of properties separated by commas"), http.StatusBadRequest
				}
				q.choose = append(q.choose, c)
			}
		default:
			if strings.HasPrefix(name, "$") {
				return q, msgQuery(shorten(name)), http.StatusNotImplemented
			}
		}
	}
	return q, m, 0
}

// apply is called with the lock held for reading.
func (q *query) apply(s *Service, o object, path string) (object, message, int) {
	members, isCollection := o["Members"].([]object)
	if !isCollection && (q.only || q.top >= 0 || q.skip >= 0) {
		return nil, base("QueryNotSupportedOnResource", "Querying is not supported on the requested resource.",
			"Use $top, $skip and only on collections."), http.StatusBadRequest
	}
	if q.only && len(members) == 1 {
		uri, _ := members[0]["@odata.id"].(string)
		if one := q.lookup(s, uri); one != nil {
			o, members, isCollection = one, nil, false
		}
	}
	if isCollection {
		if q.skip > 0 {
			members = members[min(q.skip, len(members)):]
		}
		if q.top >= 0 && q.top < len(members) {
			members = members[:q.top]
			o["Members@odata.nextLink"] = path + "?$skip=" + strconv.Itoa(max(q.skip, 0)+q.top)
		}
		o["Members"] = members
	}
	if q.expand != 0 {
		for name, v := range o {
			if name == "Links" {
				if in, ok := v.(object); ok && q.expand != '.' {
					o[name] = q.expandIn(s, in)
				}
				continue
			}
			if q.expand != '~' {
				o[name] = q.expandOne(s, v)
			}
		}
	}
	if len(q.choose) > 0 {
		o = choose(o, q.choose)
	}
	return o, message{}, 0
}

func (q *query) expandIn(s *Service, in object) object {
	out := make(object, len(in))
	for k, v := range in {
		out[k] = q.expandOne(s, v)
	}
	return out
}

// expandOne puts resources in the place of references to them.
func (q *query) expandOne(s *Service, v any) any {
	switch v := v.(type) {
	case object:
		if uri, ok := v["@odata.id"].(string); ok && len(v) == 1 {
			if o := q.lookup(s, uri); o != nil {
				return o
			}
		}
	case []object:
		out := make([]object, len(v))
		for i, e := range v {
			out[i], _ = q.expandOne(s, e).(object)
		}
		return out
	}
	return v
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
		if in, is := v.(object); is && out[name] == nil {
			out[name] = choose(in, rest)
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
	}
	return out
}
