// Package jsonlines reads requests and writes answers as JSON lines (rule E5).
//
// It is written by hand because a window is 70 numbers: a decoder with reflection would take longer than the scoring.
package jsonlines

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"

	anomaly "dwcp.internal/anomaly"
)

// Request is a line. It can be parsed into again and again; Samples and ID are valid until then.
type Request struct {
	// ID is the id as JSON, `null` when there is none.
	ID []byte
	// Detector is the name as it was sent.
	Detector string
	// Samples are the rows of numbers; infinities and NaN stand for what E5 lets a client write.
	Samples [][]float64

	values []float64
	ends   []int
}

// maxNesting bounds the depth of an id or of an unknown field.
const maxNesting = 500

var (
	errJSON    = errors.New("the line is not a JSON object")
	errSamples = errors.New("samples is not a list of lists of numbers")
)

// Parse reads one line without its line feed. Its errors are INVALID_REQUEST (E5); ID is set as far as it could be read.
// Unknown fields are ignored; of a field that occurs twice the last one counts.
func (r *Request) Parse(line []byte) *anomaly.Error {
	r.ID, r.Detector, r.Samples = append(r.ID[:0], "null"...), "", r.Samples[:0]
	p := parser{text: line}
	id, detector, samples, err := p.object()
	if err == nil && !utf8.Valid(line) {
		err = errJSON
	}
	if err != nil {
		return invalid("", err.Error())
	}
	if id != nil {
		r.ID = append(r.ID[:0], id...)
	}
	if len(detector) == 0 || detector[0] != '"' {
		return invalid("detector", "detector is not a string")
	}
	name, ok := unquote(detector)
	if !ok {
		return invalid("detector", "detector is not a string")
	}
	r.Detector = name
	if err := r.parseSamples(samples); err != nil {
		return invalid("samples", err.Error())
	}
	return nil
}

func invalid(field, message string) *anomaly.Error {
	return &anomaly.Error{Code: anomaly.CodeInvalidRequest, Field: field, Message: message}
}

// detectorNames are the names of the contract, so that reading one of them allocates nothing.
var detectorNames = func() (names []string) {
	for _, d := range anomaly.Detectors() {
		names = append(names, d.String())
	}
	return names
}()

// parser walks over the text of a line; at is where it stands.
type parser struct {
	text []byte
	at   int
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return
		}
	}
}

// next gives the byte after white space, 0 at the end.
func (p *parser) next() byte {
	p.space()
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// take steps over c when it comes next.
func (p *parser) take(c byte) bool {
	if p.next() != c {
		return false
	}
	p.at++
	return true
}

// object gives the texts of the fields of a request; nil for those that are missing.
func (p *parser) object() (id, detector, samples []byte, err error) {
	if !p.take('{') {
		return nil, nil, nil, errJSON
	}
	if !p.take('}') {
		for {
			p.space()
			key := p.at
			if !p.skipString() {
				return nil, nil, nil, errJSON
			}
			name, _ := unquote(p.text[key:p.at])
			if !p.take(':') {
				return nil, nil, nil, errJSON
			}
			p.space()
			start := p.at
			if !p.skipValue(0) {
				return nil, nil, nil, errJSON
			}
			value := p.text[start:p.at]
			switch name {
			case "id":
				id = value
			case "detector":
				detector = value
			case "samples":
				samples = value
			}
			if p.take(',') {
				continue
			}
			if p.take('}') {
				break
			}
			return nil, nil, nil, errJSON
		}
	}
	if p.next() != 0 || p.at != len(p.text) {
		return nil, nil, nil, errJSON
	}
	return id, detector, samples, nil
}

// skipValue steps over a JSON value and says whether it is one (RFC 8259).
func (p *parser) skipValue(depth int) bool {
	if depth > maxNesting {
		return false
	}
	switch c := p.next(); c {
	case '{', '[':
		closing := c + 2 // ']' and '}' follow their opening by 2 in ASCII
		p.at++
		if p.take(closing) {
			return true
		}
		for {
			if c == '{' {
				p.space()
				if !p.skipString() || !p.take(':') {
					return false
				}
			}
			if !p.skipValue(depth + 1) {
				return false
			}
			if !p.take(',') {
				return p.take(closing)
			}
		}
	case '"':
		return p.skipString()
	case 't':
		return p.skipWord("true")
	case 'f':
		return p.skipWord("false")
	case 'n':
		return p.skipWord("null")
	default:
		return p.skipNumber()
	}
}

func (p *parser) skipWord(word string) bool {
	if !bytes.HasPrefix(p.text[p.at:], []byte(word)) {
		return false
	}
	p.at += len(word)
	return true
}

// skipString steps over a string with its quotes.
func (p *parser) skipString() bool {
	t := p.text
	i := p.at
	if i >= len(t) || t[i] != '"' {
		return false
	}
	for i++; i < len(t); i++ {
		switch c := t[i]; {
		case c == '"':
			p.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			i++
			if i >= len(t) {
				return false
			}
			switch t[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(t) || !hex4(t[i+1:i+5]) {
					return false
				}
				i += 4
			default:
				return false
			}
		}
	}
	return false
}

func hex4(b []byte) bool {
	for _, c := range b {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}

// skipNumber steps over a number: -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
func (p *parser) skipNumber() bool {
	t, i := p.text, p.at
	if i < len(t) && t[i] == '-' {
		i++
	}
	first := i
	i = digits(t, i)
	if i == first || (t[first] == '0' && i > first+1) {
		return false
	}
	if i < len(t) && t[i] == '.' {
		start := i + 1
		if i = digits(t, start); i == start {
			return false
		}
	}
	if i < len(t) && (t[i] == 'e' || t[i] == 'E') {
		i++
		if i < len(t) && (t[i] == '+' || t[i] == '-') {
			i++
		}
		start := i
		if i = digits(t, start); i == start {
			return false
		}
	}
	p.at = i
	return true
}

func digits(t []byte, i int) int {
	for i < len(t) && t[i]-'0' <= 9 {
		i++
	}
	return i
}

// unquote gives the content of a valid JSON string.
func unquote(quoted []byte) (string, bool) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		switch string(inner) { // the common ones without an allocation
		case "id":
			return "id", true
		case "samples":
			return "samples", true
		case "detector":
			return "detector", true
		}
		for _, name := range detectorNames {
			if string(inner) == name {
				return name, true
			}
		}
		return string(inner), true
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err == nil
}

// parseSamples reads a valid JSON value as a list of lists of numbers.
func (r *Request) parseSamples(text []byte) error {
	p := parser{text: text}
	r.values, r.ends = r.values[:0], r.ends[:0]
	if !p.take('[') {
		return errSamples
	}
	for !p.take(']') {
		if !p.take('[') {
			return errSamples
		}
		for !p.take(']') {
			x, err := p.number()
			if err != nil {
				return err
			}
			r.values = append(r.values, x)
			p.take(',') // the text is valid JSON: commas are where they belong
		}
		r.ends = append(r.ends, len(r.values))
		p.take(',')
	}
	start := 0
	for _, end := range r.ends {
		r.Samples = append(r.Samples, r.values[start:end:end])
		start = end
	}
	return nil
}

// number reads a number, or one of the three strings that JSON has no number for (E5). A literal that is too large is an infinity.
func (p *parser) number() (float64, error) {
	p.space()
	start := p.at
	if p.at < len(p.text) && p.text[p.at] == '"' {
		p.skipString()
		name, ok := unquote(p.text[start:p.at])
		switch {
		case ok && name == "NaN":
			return math.NaN(), nil
		case ok && name == "Infinity":
			return math.Inf(1), nil
		case ok && name == "-Infinity":
			return math.Inf(-1), nil
		}
		return 0, errSamples
	}
	if !p.skipNumber() {
		return 0, errSamples
	}
	literal := p.text[start:p.at]
	// ParseFloat only reads its argument, so it may see the bytes as a string.
	x, err := strconv.ParseFloat(unsafe.String(&literal[0], len(literal)), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errSamples
	}
	return x, nil
}
