package server

import (
	"encoding/binary"
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// errMalformed says that bytes are no message.
var errMalformed = errors.New("the bytes are no message")

// maxNesting is how deep groups may nest, messages included.
const maxNesting = 100

// field is one field of a message in the wire format of Protocol Buffers.
type field struct {
	number protowire.Number
	kind   protowire.Type
	// varint is the value of a VarintType.
	varint uint64
	// bytes is the value of a BytesType or Fixed64Type.
	bytes []byte
}

// nextField takes the first field off b. Limits are those of the Python side's parser (upb), so that both sidecars refuse the same
// bytes: tags and lengths in at most 5 bytes, other varints in 10, groups no deeper than nesting.
func nextField(b []byte, nesting int) (f field, rest []byte, err error) {
	tag, b, err := varint(b, 5)
	if err != nil || tag > math.MaxUint32 || tag>>3 == 0 {
		return f, nil, errMalformed
	}
	f.number, f.kind = protowire.DecodeTag(tag)
	switch f.kind {
	case protowire.VarintType:
		f.varint, b, err = varint(b, 10)
		return f, b, err
	case protowire.BytesType:
		n, b, err := varint(b, 5)
		if err != nil {
			return f, nil, err
		}
		f.bytes, b, err = take(b, n)
		return f, b, err
	case protowire.Fixed64Type:
		f.bytes, b, err = take(b, 8)
		return f, b, err
	case protowire.Fixed32Type:
		_, b, err = take(b, 4)
		return f, b, err
	case protowire.StartGroupType:
		b, err = skipGroup(b, f.number, nesting-1)
		return f, b, err
	default: // the end of a group that did not begin, or a type that does not exist
		return f, nil, errMalformed
	}
}

// skipGroup skips the fields of a group and its end.
func skipGroup(b []byte, number protowire.Number, nesting int) (rest []byte, err error) {
	if nesting < 0 {
		return nil, errMalformed
	}
	for {
		tag, after, err := varint(b, 5)
		if err != nil {
			return nil, err
		}
		if tag == protowire.EncodeTag(number, protowire.EndGroupType) {
			return after, nil
		}
		if _, b, err = nextField(b, nesting); err != nil {
			return nil, err
		}
	}
}

// varint takes a varint of at most limit bytes off b. Bits beyond 64 are dropped.
func varint(b []byte, limit int) (value uint64, rest []byte, err error) {
	for i := range min(len(b), limit) {
		value |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return value, b[i+1:], nil
		}
	}
	return 0, nil, errMalformed
}

func take(b []byte, n uint64) (taken, rest []byte, err error) {
	if n > uint64(len(b)) {
		return nil, nil, errMalformed
	}
	return b[:n], b[n:], nil
}

// appendDoubles appends little-endian float64 values; bytes that are no whole value are left out.
func appendDoubles(to []float64, b []byte) []float64 {
	for ; len(b) >= 8; b = b[8:] {
		to = append(to, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return to
}
