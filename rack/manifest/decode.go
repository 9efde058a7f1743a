package manifest

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/racklet/racklet/rack"
)

// A decoder fills one object from YAML nodes. The types' JSON tags say how
// fields are called and which may be left out ("omitempty", "omitzero"); the tags enum,
// min and max bound their values.
type decoder struct {
	file   string
	places *places
	errs   Errors
}

func (d *decoder) failf(n *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{d.file, n.Line, path, fmt.Sprintf(format, args...)})
}

// object decodes into the struct that o points to.
func (d *decoder) object(n *yaml.Node, o any) { d.value(n, reflect.ValueOf(o).Elem(), "", "") }

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// value decodes one node into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	if path != "" {
		d.places.lines[path] = n.Line
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.failf(n, path, "anchors and aliases are not allowed: write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.failf(n, path, "the tag %s is not allowed", n.Tag)
		return
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && v.Kind() == reflect.Struct:
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line} // says which fields are missing
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.failf(n, path, "has no value: want %s", want(v.Type(), tag))
		return
	}
	if v.Kind() == reflect.Struct {
		d.structure(n, v, path)
		return
	}
	if reflect.PointerTo(v.Type()).Implements(textUnmarshaler) {
		if d.scalar(n, v, path, tag) {
			d.text(n, v, path)
		}
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.failf(n, path, "want a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i), "")
		}
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.String:
		if !d.scalar(n, v, path, tag) {
			return
		}
		if allowed := tag.Get("enum"); allowed != "" && !slices.Contains(strings.Split(allowed, ","), n.Value) {
			words := strings.Split(allowed, ",")
			d.failf(n, path, "%q is not allowed: want %s%s", n.Value, orList(words), didYouMean(n.Value, words))
			return
		}
		if n.ShortTag() != "!!str" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
			d.failf(n, path, "want text: put it in quotes, %q", n.Value)
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if !d.scalar(n, v, path, tag) {
			return
		}
		if n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
			d.failf(n, path, "%q is not allowed: want true or false", n.Value)
			return
		}
		v.SetBool(n.Value == "true")
	case reflect.Int, reflect.Uint8, reflect.Uint32:
		if d.scalar(n, v, path, tag) {
			d.number(n, v, path, tag)
		}
	default:
		panic("rack type " + v.Type().String() + " cannot be decoded") // a test decodes every kind
	}
}

// scalar reports whether n is a single value, or says what it should be.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) bool {
	if n.Kind == yaml.ScalarNode {
		return true
	}
	d.failf(n, path, "want %s", want(v.Type(), tag))
	return false
}

// text decodes a quantity, digest or duration, whose own parser says what is allowed.
func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		d.failf(n, path, "%v", err)
	}
}

// number decodes a whole number within its bounds, in decimal digits.
func (d *decoder) number(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	lo, hi := bounds(v.Type(), tag)
	i, err := strconv.ParseInt(n.Value, 10, 64)
	switch {
	case n.ShortTag() != "!!int" || err != nil && !errors.Is(err, strconv.ErrRange):
		d.failf(n, path, "%q is not allowed: want %s", n.Value, want(v.Type(), tag))
	case err != nil || i < lo || i > hi:
		d.failf(n, path, "%s is out of range: want %d to %d", n.Value, lo, hi)
	case v.CanUint():
		v.SetUint(uint64(i))
	default:
		v.SetInt(i)
	}
}

// bounds are the least and the greatest number that a field may have.
func bounds(t reflect.Type, tag reflect.StructTag) (lo, hi int64) {
	switch t.Kind() {
	case reflect.Uint8:
		hi = 1<<8 - 1
	case reflect.Uint32:
		hi = 1<<32 - 1
	default:
		lo, hi = -1<<31, 1<<31-1
	}
	if n, err := strconv.ParseInt(tag.Get("min"), 10, 64); err == nil {
		lo = n
	}
	if n, err := strconv.ParseInt(tag.Get("max"), 10, 64); err == nil {
		hi = n
	}
	return lo, hi
}

// want describes a field's form.
func want(t reflect.Type, tag reflect.StructTag) string {
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		switch v := reflect.New(t).Interface().(encoding.TextUnmarshaler); err := v.UnmarshalText(nil).(type) {
		case *rack.QuantityError:
			return err.Form + ", such as " + strconv.Quote(err.Example)
		}
		return "text"
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "fields, one per line"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		if allowed := tag.Get("enum"); allowed != "" {
			return orList(strings.Split(allowed, ","))
		}
		return "text"
	}
	lo, hi := bounds(t, tag)
	return fmt.Sprintf("a whole number from %d to %d", lo, hi)
}

// mapping decodes labels: any keys, texts as values.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.failf(n, path, "want %s", want(v.Type(), ""))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if d.key(key, path, seen) {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(n.Content[i+1], item, path+"."+key.Value, "")
			v.SetMapIndex(reflect.ValueOf(key.Value), item)
		}
	}
}

// key checks one key of a mapping: plain text, and not there before.
func (d *decoder) key(key *yaml.Node, path string, seen map[string]int) bool {
	switch line, again := seen[key.Value]; {
	case key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 || key.ShortTag() == "!!merge":
		d.failf(key, path, "want a plain field name")
		return false
	case again:
		d.failf(key, join(path, key.Value), "given twice: the first stands on line %d", line)
		return false
	}
	seen[key.Value] = key.Line
	return true
}

// structure decodes a mapping into the fields of a struct.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.failf(n, path, "want %s", want(v.Type(), ""))
		return
	}
	fields := fieldsOf(v.Type())
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	seen := map[string]int{}
	meant := map[string]bool{} // fields that a misspelt one probably stands for
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, item := n.Content[i], n.Content[i+1]
		if !d.key(key, path, seen) {
			continue
		}
		at := slices.Index(names, key.Value)
		if at < 0 {
			guess := nearest(key.Value, names)
			meant[guess] = true
			d.failf(key, join(path, key.Value), "unknown field: want %s%s", orList(names), didYouMean(key.Value, names))
			continue
		}
		f := fields[at]
		d.value(item, v.FieldByIndex(f.index), join(path, f.name), f.tag)
		d.places.lines[join(path, f.name)] = key.Line // where people look, even if the value starts below
	}
	for _, f := range fields {
		if _, ok := seen[f.name]; !ok && f.required && !meant[f.name] {
			d.failf(n, join(path, f.name), "missing: want %s", want(v.FieldByIndex(f.index).Type(), f.tag))
		}
	}
}

// A field of a struct as YAML sees it.
type field struct {
	name     string
	index    []int
	required bool
	tag      reflect.StructTag
}

// fieldsOf lists the fields of a struct type in their order, those of embedded
// structs among them.
func fieldsOf(t reflect.Type) (all []field) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, field{name, f.Index, !strings.HasPrefix(options, "omit"), f.Tag})
	}
	return all
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// orList writes "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// didYouMean proposes the known word that s is a likely misspelling of.
func didYouMean(s string, known []string) string {
	if w := nearest(s, known); w != "" {
		return fmt.Sprintf("; did you mean %s?", w)
	}
	return ""
}

// nearest is the known word with the fewest edits from s, if they are few.
func nearest(s string, known []string) string {
	best, least := "", 3
	for _, w := range known {
		if e := edits(strings.ToLower(s), strings.ToLower(w)); e < least && e < max(len(w), 2)/2+1 && len(s) > 0 {
			best, least = w, e
		}
	}
	return best
}

// edits counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var rows [3][65]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
