package wire

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
	return t
}

// MakeText64 returns s as a Text64, cut at a character boundary if it is too long.
func MakeText64(s string) (t Text64) {
	t.n = uint8(copy(t.b[:], s[:cut(s, len(t.b))]))
	return t
}

// MakeText72 returns s as a Text72, cut at a character boundary if it is too long.
func MakeText72(s string) (t Text72) {
	t.n = uint8(copy(t.b[:], s[:cut(s, len(t.b))]))
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
func (t *Text32) set(p []byte) { *t = Text32{}; t.n = uint8(copy(t.b[:], p)) }
func (t *Text64) set(p []byte) { *t = Text64{}; t.n = uint8(copy(t.b[:], p)) }
func (t *Text72) set(p []byte) { *t = Text72{}; t.n = uint8(copy(t.b[:], p)) }
