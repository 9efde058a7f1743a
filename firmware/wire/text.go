package wire

import "unicode/utf8"

// Text32 is a text of at most 32 bytes that needs no memory of its own. The
// zero value is the empty text. Values of equal text are equal (==).
type Text32 struct {
	n uint8
	b [32]byte
}

// Text64 is a text of at most 64 bytes; see [Text32].
type Text64 struct {
	n uint8
	b [64]byte
}

// Text72 is a text of at most 72 bytes; see [Text32]. It holds a SHA-256 digest
// in its usual spelling, "sha256:" and 64 hexadecimal digits.
type Text72 struct {
	n uint8
	b [72]byte
}

// MakeText32 returns s as a Text32, cut at a character boundary if it is too long.
func MakeText32(s string) (t Text32) {
	t.n = uint8(copy(t.b[:], s[:cut(s, len(t.b))]))
	clean(t.b[:t.n])
	return t
}

// MakeText64 returns s as a Text64, cut at a character boundary if it is too long.
func MakeText64(s string) (t Text64) {
	t.n = uint8(copy(t.b[:], s[:cut(s, len(t.b))]))
	clean(t.b[:t.n])
	return t
}

// MakeText72 returns s as a Text72, cut at a character boundary if it is too long.
func MakeText72(s string) (t Text72) {
	t.n = uint8(copy(t.b[:], s[:cut(s, len(t.b))]))
	clean(t.b[:t.n])
	return t
}

// cut returns how many bytes of s fit into limit without splitting a UTF-8 character.
func cut(s string, limit int) int {
	if len(s) <= limit {
		return len(s)
	}
	n := limit
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return n
}

// String returns the text. It allocates; firmware compares and copies instead.
func (t Text32) String() string { return string(t.b[:t.n]) }

// String returns the text. It allocates; firmware compares and copies instead.
func (t Text64) String() string { return string(t.b[:t.n]) }

// String returns the text. It allocates; firmware compares and copies instead.
func (t Text72) String() string { return string(t.b[:t.n]) }

// Len returns the length in bytes.
func (t *Text32) Len() int { return int(t.n) }

// Len returns the length in bytes.
func (t *Text64) Len() int { return int(t.n) }

// Len returns the length in bytes.
func (t *Text72) Len() int { return int(t.n) }

// Bytes returns the text in place, valid as long as t is.
func (t *Text32) Bytes() []byte { return t.b[:t.n] }

// Bytes returns the text in place, valid as long as t is.
func (t *Text64) Bytes() []byte { return t.b[:t.n] }

// Bytes returns the text in place, valid as long as t is.
func (t *Text72) Bytes() []byte { return t.b[:t.n] }

// set copies p, which the caller has checked to fit.
func (t *Text32) set(p []byte) { *t = Text32{}; t.n = uint8(copy(t.b[:], p)); clean(t.b[:t.n]) }
func (t *Text64) set(p []byte) { *t = Text64{}; t.n = uint8(copy(t.b[:], p)); clean(t.b[:t.n]) }
func (t *Text72) set(p []byte) { *t = Text72{}; t.n = uint8(copy(t.b[:], p)); clean(t.b[:t.n]) }

// clean replaces each byte that is no printable text by a question mark: control characters, which a terminal would obey
// and a log would break at; characters that turn the direction of writing; and what is no UTF-8. Who sends a text may be
// a hostile unit, and who reads it an operator's terminal.
func clean(p []byte) {
	for i := 0; i < len(p); {
		r, n := utf8.DecodeRune(p[i:])
		if n == 1 && r == utf8.RuneError || control(r) {
			for j := i; j < i+n; j++ {
				p[j] = '?'
			}
		}
		i += n
	}
}

// control says whether a character acts instead of being seen: C0, DEL, C1, the separators of lines and paragraphs, and
// the marks, embeddings, overrides and isolates of bidirectional text (Unicode, annex 9).
func control(r rune) bool {
	return r < 0x20 || r >= 0x7F && r < 0xA0 || r == 0x61C || r == 0x200E || r == 0x200F ||
		r >= 0x2028 && r <= 0x202E || r >= 0x2066 && r <= 0x2069 || r == 0xFEFF
}
