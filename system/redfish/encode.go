package redfish

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// appendJSON appends v as json.Marshal writes it; resources are made of few types, which need no reflection. It panics
// never and fails for what json.Marshal fails for. With steady, volatile values are null and noted there, and
// ETags are left out: what an ETag is made of.
func appendJSON(b []byte, v any, steady *bool) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case object:
		return appendObject(b, v, steady)
	case map[string]any:
		return appendObject(b, v, steady)
	case []object:
		return appendList(b, v, steady)
	case []any:
		return appendList(b, v, steady)
	case []string:
		return appendList(b, v, steady)
	case string:
		return appendText(b, v)
	case bool:
		return strconv.AppendBool(b, v), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case uint8:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case uint16:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case uint32:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case float64:
		if a := math.Abs(v); a == 0 || a >= 1e-6 && a < 1e21 { // json.Marshal writes others with an exponent
			return strconv.AppendFloat(b, v, 'f', -1, 64), nil
		}
	case volatile:
		if steady != nil {
			*steady = false
			return append(b, "null"...), nil
		}
		return appendJSON(b, v.value, nil)
	}
	e, err := json.Marshal(v)
	return append(b, e...), err
}

func appendObject(b []byte, o map[string]any, steady *bool) ([]byte, error) {
	if o == nil {
		return append(b, "null"...), nil
	}
	var room [64]string
	names := room[:0]
	for name := range o {
		if steady == nil || name != "@odata.etag" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendText(b, name); err != nil {
			return b, err
		}
		b = append(b, ':')
		if b, err = appendJSON(b, o[name], steady); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendList[T any](b []byte, list []T, steady *bool) ([]byte, error) {
	if list == nil {
		return append(b, "null"...), nil
	}
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSON(b, e, steady); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// appendText appends a string. Those with anything to escape are left to json.Marshal.
func appendText(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			e, err := json.Marshal(s)
			return append(b, e...), err
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}

// entityTag is a strong ETag over everything but volatile values. Steady says
// that there are none of those.
func entityTag(o object) (tag string, steady bool) {
	steady = true
	b, _ := appendJSON(make([]byte, 0, 4<<10), o, &steady)
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`, steady
}
