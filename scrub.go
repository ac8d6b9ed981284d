package bellhop

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const redacted = "[redacted]"

// minSecret is the length from which on a value is searched for in texts. Shorter ones ("prod", "1") are no secrets
// and would blot out half of a log line.
const minSecret = 6

// Scrubber blots secrets out of texts, in whichever form they are there: as they are, escaped as in JSON or by Go's %q, as
// in a URL, in base64 (of either alphabet, at any place of a longer text, also in lines), and one within another. Of a
// secret of several lines each line is one, since a text may begin or end in the middle of a key.
//
// A secret is looked for in what a text decodes to, rather than in every way in which it may be encoded: that finds partial
// and unusual encodings too. All secrets are looked for at once (Aho-Corasick), so that the time is linear in the secrets
// and in the text, whatever both are: it runs in workflows, and both may come from a stranger. The zero value has no secrets.
type Scrubber struct {
	// The nodes of a trie of all secrets, in the order of a breadth-first search; the first is the root.
	nodes []trieNode
	// root are the children of the root, by their byte.
	root [256]int32
	// secrets are sorted; a node has a range of them.
	secrets []string
}

// trieNode stands for a text with which some secrets begin.
type trieNode struct {
	// children are nodes[first:last].
	first, last int32
	// fail is the node of the longest text that this one ends in.
	fail int32
	// ends is the length of the longest secret that this node's text ends in; 0: none.
	ends int32
	// depth is the length of the node's text.
	depth int32
	// from and to bound the secrets that begin with the node's text.
	from, to int32
	label    byte
}

// NewScrubber makes a scrubber of the secrets that are long enough to be ones.
func NewScrubber(secrets []string) *Scrubber {
	var all []string
	add := func(secret string) {
		if len(secret) >= minSecret {
			all = append(all, secret)
		}
	}
	for _, secret := range secrets {
		add(secret)
		if trimmed := strings.TrimSpace(secret); len(trimmed) != len(secret) {
			add(trimmed)
		}
		// Keys are often given on one line, with "\n" for its end.
		lines := strings.ReplaceAll(secret, `\n`, "\n")
		if strings.ContainsAny(lines, "\r\n") {
			for line := range strings.FieldsFuncSeq(lines, func(r rune) bool { return r == '\r' || r == '\n' }) {
				add(strings.TrimSpace(line))
			}
		}
	}
	slices.Sort(all)
	s := &Scrubber{secrets: slices.Compact(all)}
	s.build()
	return s
}

func (s *Scrubber) build() {
	if len(s.secrets) == 0 {
		return
	}
	count, before := 1, ""
	for _, secret := range s.secrets {
		common := 0
		for common < min(len(secret), len(before)) && secret[common] == before[common] {
			common++
		}
		count, before = count+len(secret)-common, secret
	}
	s.nodes = make([]trieNode, 0, count)
	s.nodes = append(s.nodes, trieNode{to: int32(len(s.secrets))}) //nolint:gosec // nobody has two thousand million secrets
	for i := 0; i < len(s.nodes); i++ {
		n := s.nodes[i]
		if len(s.secrets[n.from]) == int(n.depth) {
			n.ends, n.from = n.depth, n.from+1 // the shortest is the first
		} else if i > 0 {
			n.ends = s.nodes[n.fail].ends
		}
		n.first = int32(len(s.nodes)) //nolint:gosec // as above
		for from := n.from; from < n.to; {
			label, to := s.secrets[from][n.depth], from+1
			for to < n.to && s.secrets[to][n.depth] == label {
				to++
			}
			fail := int32(0)
			if i > 0 {
				fail = s.next(n.fail, label)
			}
			if i == 0 {
				s.root[label] = int32(len(s.nodes)) //nolint:gosec // as above
			}
			s.nodes = append(s.nodes, trieNode{fail: fail, depth: n.depth + 1, from: from, to: to, label: label})
			from = to
		}
		n.last = int32(len(s.nodes)) //nolint:gosec // as above
		s.nodes[i] = n
	}
}

// next is the node of the longest text with which a secret begins and in which the text of node at, followed by a byte, ends.
func (s *Scrubber) next(at int32, label byte) int32 {
	for at != 0 {
		n := &s.nodes[at]
		children := s.nodes[n.first:n.last]
		if len(children) == 1 && children[0].label == label {
			return n.first
		}
		if i, ok := slices.BinarySearchFunc(children, label, func(n trieNode, label byte) int { return int(n.label) - int(label) }); ok {
			return n.first + int32(i) //nolint:gosec // at most 256
		}
		at = n.fail
	}
	return s.root[label]
}

// Scrub blots the secrets out of text.
func (s *Scrubber) Scrub(text string) string {
	if s == nil || len(s.nodes) == 0 || len(text) < minSecret {
		return text
	}
	// reach is how far what is blotted out reaches from each byte on.
	reach := make([]int32, len(text))
	found := false
	blot := func(from, to int32) {
		reach[from], found = max(reach[from], to), true
	}
	for _, v := range views(text) {
		s.find(v, blot)
		s.findBase64(v, blot)
	}
	if !found {
		return text
	}
	var clean strings.Builder
	end := int32(0)
	for i := range reach {
		at := int32(i)
		if reach[i] > end {
			if at >= end {
				clean.WriteString(redacted)
			}
			end = reach[i]
		}
		if at >= end {
			clean.WriteByte(text[i])
		}
	}
	return clean.String()
}

// find looks for the secrets in a view.
func (s *Scrubber) find(v view, blot func(from, to int32)) {
	at := int32(0)
	for i := range len(v.text) {
		if at = s.next(at, v.text[i]); at == 0 {
			continue
		}
		if length := int(s.nodes[at].ends); length > 0 {
			blot(v.start(i+1-length), v.end(i))
		}
	}
	// A text that was cut in the middle of a secret ends in the first part of it. Half of one is too much for chance.
	if n := s.nodes[at]; n.depth >= minSecret && n.from < n.to && len(s.secrets[n.from]) <= 2*int(n.depth) {
		blot(v.start(len(v.text)-int(n.depth)), v.end(len(v.text)-1))
	}
}

// findBase64 looks for the secrets in what the parts of a view that may be base64 decode to, at each of the four places of
// a character in its group. Line breaks within count for nothing.
func (s *Scrubber) findBase64(v view, blot func(from, to int32)) {
	var digits []byte
	var places []int
	search := func() {
		for offset := 0; offset < 4 && len(digits)-offset >= minSecret*8/6; offset++ {
			at := int32(0)
			for first, bit := offset, 0; first+1 < len(digits); {
				var b byte
				switch bit {
				case 0:
					b = digits[first]<<2 | digits[first+1]>>4
				case 4:
					b = digits[first]<<4 | digits[first+1]>>2
				default:
					b = digits[first]<<6 | digits[first+1]
				}
				if at = s.next(at, b); at != 0 {
					if length := int(s.nodes[at].ends); length > 0 {
						// The secret's first bit is length-1 bytes before this byte's.
						begin := ((first-offset)*6 + bitsBefore(bit) - (length-1)*8) / 6
						blot(v.start(places[offset+begin]), v.end(places[first+1]))
					}
				}
				switch bit {
				case 0:
					first, bit = first+1, 4
				case 4:
					first, bit = first+1, 2
				default:
					first, bit = first+2, 0
				}
			}
		}
		digits, places = digits[:0], places[:0]
	}
	for i := range len(v.text) {
		c := v.text[i]
		switch digit := base64Digits[c]; {
		case digit != noDigit:
			digits, places = append(digits, digit), append(places, i)
		case c == '\n' || c == '\r':
		default:
			search()
		}
	}
	search()
}

// bitsBefore is how many bits of its digit stand before those with which a byte begins.
func bitsBefore(bit int) int {
	switch bit {
	case 4:
		return 2
	case 2:
		return 4
	default:
		return 0
	}
}

const noDigit = 255

// base64Digits are the values of the digits of both alphabets.
var base64Digits = func() (digits [256]byte) {
	for i := range digits {
		digits[i] = noDigit
	}
	for _, alphabet := range []string{
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
	} {
		for i := range len(alphabet) {
			digits[alphabet[i]] = byte(i)
		}
	}
	return digits
}()

// view is what a text decodes to, with the place in the text that each byte comes from.
type view struct {
	text string
	// from and to bound the place of each byte; nil: each is its own.
	from, to []int32
}

func (v view) start(i int) int32 {
	if v.from == nil {
		return int32(i) //nolint:gosec // a text's length was one
	}
	return v.from[i]
}

func (v view) end(i int) int32 {
	if v.to == nil {
		return int32(i + 1) //nolint:gosec // as above
	}
	return v.to[i]
}

// views are a text and what it decodes to.
func views(text string) []view {
	all := []view{{text: text}}
	for len(all) < 3 { // JSON within JSON
		v, ok := all[len(all)-1].decode('\\', unescape)
		if !ok {
			break
		}
		all = append(all, v)
	}
	for _, v := range []view{all[0], all[len(all)-1]}[:min(len(all), 2)] {
		if decoded, ok := v.decode('%', unpercent); ok {
			all = append(all, decoded)
		}
		// In a query a "+" is a space, and "%2B" is a "+": spaces come first.
		if spaced, ok := v.decode('+', func(string) ([]byte, int) { return []byte{' '}, 1 }); ok {
			all = append(all, spaced)
			if decoded, ok := spaced.decode('%', unpercent); ok {
				all = append(all, decoded)
			}
		}
	}
	return all
}

// decode replaces what begins with a mark by what it stands for. How tells that of the beginning of a text, and how long it
// is there; 0: it is none. If nothing is to be replaced, there is no new view.
func (v view) decode(mark byte, how func(text string) ([]byte, int)) (view, bool) {
	if strings.IndexByte(v.text, mark) < 0 {
		return view{}, false
	}
	text := make([]byte, 0, len(v.text))
	to := view{from: make([]int32, 0, len(v.text)), to: make([]int32, 0, len(v.text))}
	changed := false
	for i := 0; i < len(v.text); {
		decoded, length := []byte(nil), 0
		if v.text[i] == mark {
			decoded, length = how(v.text[i:])
		}
		if length == 0 {
			text, to.from, to.to = append(text, v.text[i]), append(to.from, v.start(i)), append(to.to, v.end(i))
			i++
			continue
		}
		changed = true
		for _, b := range decoded {
			text, to.from, to.to = append(text, b), append(to.from, v.start(i)), append(to.to, v.end(i+length-1))
		}
		i += length
	}
	to.text = string(text)
	return to, changed
}

// unescape reads one escape of JSON, Go and their like.
func unescape(text string) ([]byte, int) {
	if len(text) < 2 {
		return nil, 0
	}
	c := text[1]
	if i := strings.IndexByte(`"'\/abfnrtv`, c); i >= 0 {
		return []byte{"\"'\\/\a\b\f\n\r\t\v"[i]}, 2
	}
	switch {
	case c == 'x':
		if n, ok := digits(text[2:], 2, 16); ok {
			return []byte{byte(n)}, 4 //nolint:gosec // two digits
		}
	case c >= '0' && c <= '7':
		if n, ok := digits(text[1:], 3, 8); ok && n < 256 {
			return []byte{byte(n)}, 4 //nolint:gosec // below 256
		}
	case c == 'u':
		n, ok := digits(text[2:], 4, 16)
		if !ok {
			return nil, 0
		}
		if n >= 0xd800 && n < 0xdc00 && strings.HasPrefix(text[6:], `\u`) {
			if low, ok := digits(text[8:], 4, 16); ok && low >= 0xdc00 && low < 0xe000 {
				return utf8.AppendRune(nil, (n-0xd800)<<10|(low-0xdc00)+0x10000), 12
			}
		}
		return utf8.AppendRune(nil, n), 6
	case c == 'U':
		if n, ok := digits(text[2:], 8, 16); ok {
			return utf8.AppendRune(nil, n), 10
		}
	}
	return nil, 0
}

// unpercent reads one escape of a URL.
func unpercent(text string) ([]byte, int) {
	n, ok := digits(text[1:], 2, 16)
	if !ok {
		return nil, 0
	}
	return []byte{byte(n)}, 3 //nolint:gosec // two digits
}

// digits reads a number of so many digits.
func digits(text string, count int, base rune) (rune, bool) {
	if len(text) < count {
		return 0, false
	}
	n := rune(0)
	for i := range count {
		digit := rune(strings.IndexByte("0123456789abcdefABCDEF", text[i])) //nolint:gosec // at most 22
		if digit > 15 {
			digit -= 6
		}
		if digit < 0 || digit >= base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, true
}

// Scrub blots secrets out of text; see [Scrubber].
func Scrub(text string, secrets []string) string { return NewScrubber(secrets).Scrub(text) }
