package redfish

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// $filter (DSP0266, 7.3.6 "The $filter query parameter"):
//
//	or         = and { "or" and }
//	and        = equality { "and" equality }
//	equality   = relation [ ("eq" | "ne") relation ]
//	relation   = unary [ ("gt" | "ge" | "lt" | "le") unary ]
//	unary      = "not" unary | "(" or ")" | literal | path
//	literal    = 'text' | number | true | false | null
//	path       = name { "/" name }
//
// A property that is not there is null. Values of different types are not equal, and none is less than the other.

// maxDepth bounds how deep an expression or a path may be nested.
const maxDepth = 32

// predicate says whether a resource belongs to the answer.
type predicate func(object) bool

// term is a part of an expression.
type term func(object) any

var errFilter = errors.New("the expression is not well-formed")

func parseFilter(text string) (predicate, error) {
	tokens, err := filterTokens(text)
	if err != nil {
		return nil, err
	}
	p := filterParser{tokens: tokens}
	t, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.next() != "" {
		return nil, fmt.Errorf("%q does not belong there", shorten(p.next()))
	}
	return func(o object) bool { return t(o) == true }, nil
}

// filterTokens splits an expression into words, numbers, parentheses and quoted texts, which keep their opening quote.
func filterTokens(text string) (tokens []string, err error) {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ' || c == '\t':
			i++
		case c == '(' || c == ')':
			tokens = append(tokens, text[i:i+1])
			i++
		case c == '\'':
			var b strings.Builder
			for b.WriteByte('\''); ; {
				end := strings.IndexByte(text[i+1:], '\'')
				if end < 0 {
					return nil, errors.New("a text has no closing quote")
				}
				b.WriteString(text[i+1 : i+1+end])
				i += end + 2
				if i >= len(text) || text[i] != '\'' {
					break
				}
				b.WriteByte('\'') // two quotes are one
			}
			tokens = append(tokens, b.String())
		default:
			end := strings.IndexAny(text[i:], " \t()'")
			if end < 0 {
				end = len(text) - i
			}
			tokens = append(tokens, text[i:i+end])
			i += end
		}
	}
	return tokens, nil
}

type filterParser struct{ tokens []string }

func (p *filterParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// take removes the next token if it is one of these words, and returns it.
func (p *filterParser) take(words ...string) string {
	for _, w := range words {
		if p.next() == w {
			p.tokens = p.tokens[1:]
			return w
		}
	}
	return ""
}

// binary reads operands of one kind with one of some words between them. Once: at most one such word.
func (p *filterParser) binary(depth int, once bool, operand func(int) (term, error), combine func(word string, a, b any) any, words ...string) (term, error) {
	t, err := operand(depth)
	for n := 0; err == nil; n++ {
		word := p.take(words...)
		if word == "" {
			break
		}
		if once && n > 0 {
			return nil, errFilter
		}
		var right term
		if right, err = operand(depth); err == nil {
			left := t
			t = func(o object) any { return combine(word, left(o), right(o)) }
		}
	}
	return t, err
}

func (p *filterParser) or(depth int) (term, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	return p.binary(depth, false, p.and, func(_ string, a, b any) any { return a == true || b == true }, "or")
}

func (p *filterParser) and(depth int) (term, error) {
	return p.binary(depth, false, p.equality, func(_ string, a, b any) any { return a == true && b == true }, "and")
}

func (p *filterParser) equality(depth int) (term, error) {
	return p.binary(depth, true, p.relation, func(word string, a, b any) any { return (a == b) == (word == "eq") }, "eq", "ne")
}

func (p *filterParser) relation(depth int) (term, error) {
	return p.binary(depth, true, p.unary, func(word string, a, b any) any {
		order, ok := compare(a, b)
		switch word {
		case "gt":
			return ok && order > 0
		case "ge":
			return ok && order >= 0
		case "lt":
			return ok && order < 0
		}
		return ok && order <= 0
	}, "gt", "ge", "lt", "le")
}

func compare(a, b any) (order int, ok bool) {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		switch {
		case a < b:
			return -1, ok
		case a > b:
			return 1, ok
		}
		return 0, ok
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	}
	return 0, false
}

func (p *filterParser) unary(depth int) (term, error) {
	token := p.next()
	if token == "" {
		return nil, errors.New("it ends too early")
	}
	p.tokens = p.tokens[1:]
	constant := func(v any) (term, error) { return func(object) any { return v }, nil }
	switch {
	case token == "not":
		if depth >= maxDepth {
			return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
		}
		t, err := p.unary(depth + 1)
		return func(o object) any { return t(o) != true }, err
	case token == "(":
		t, err := p.or(depth + 1)
		if err == nil && p.take(")") == "" {
			err = errors.New("a parenthesis is not closed")
		}
		return t, err
	case token[0] == '\'':
		return constant(token[1:])
	case token == "true", token == "false":
		return constant(token == "true")
	case token == "null":
		return constant(nil)
	case token[0] == '-' || token[0] >= '0' && token[0] <= '9':
		n, err := strconv.ParseFloat(token, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", shorten(token))
		}
		return constant(n)
	}
	path := strings.Split(token, "/")
	for _, name := range path {
		if !propertyName(name) || len(path) > maxDepth {
			return nil, fmt.Errorf("%q names no property", shorten(token))
		}
	}
	switch token {
	case "and", "or", "eq", "ne", "gt", "ge", "lt", "le":
		return nil, fmt.Errorf("%q stands where a value should", token)
	}
	return func(o object) any { return plain(within(o, path)) }, nil
}

func propertyName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("@._#$-", r)
	})
}

// within finds a value in an object by its path.
func within(v any, path []string) any {
	for _, name := range path {
		if c, is := v.(volatile); is {
			v = c.value
		}
		o, is := v.(object)
		if !is {
			return nil
		}
		v = o[name]
	}
	return v
}

// plain is a value as JSON knows it: text, float64, bool or nil. Objects and arrays equal nothing that can be written.
func plain(v any) any {
	switch x := v.(type) {
	case volatile:
		return plain(x.value)
	case nil, string, bool, float64:
		return x
	case object, []object, []any:
		return &v // a pointer of its own: equal to nothing
	}
	b, err := json.Marshal(v)
	if err != nil {
		return &v
	}
	var out any
	if json.Unmarshal(b, &out) != nil {
		return &v
	}
	switch out.(type) {
	case map[string]any, []any:
		return &v
	}
	return out
}
