package server

import (
	"encoding/binary"
	"math"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	anomaly "dwcp.internal/anomaly"
)

// Answers with verdicts are encoded here instead of by generated code, because that wants an object of every verdict. The bytes are
// those of the generated code; tests compare them.

// chunkBytes is the size of the pieces of a long answer. It is one of the sizes that gRPC keeps for further use.
const chunkBytes = 16 << 10

// pieces are a message that is being written, in pieces, each of at most chunkBytes unless a single entry is longer.
type pieces struct {
	done mem.BufferSlice
	// now is the piece that is being written.
	now []byte
}

// room makes sure that n bytes fit into now; expected is how many more the whole message is thought to need.
func (p *pieces) room(n, expected int) {
	if cap(p.now)-len(p.now) >= n {
		return
	}
	p.close()
	size := max(n, min(expected, chunkBytes))
	if mem.IsBelowBufferPoolingThreshold(size) {
		p.now = make([]byte, 0, size)
	} else {
		p.now = (*mem.DefaultBufferPool().Get(size))[:0]
	}
}

func (p *pieces) close() {
	if len(p.now) > 0 {
		piece := p.now
		p.done = append(p.done, mem.NewBuffer(&piece, mem.DefaultBufferPool()))
	}
	p.now = nil
}

// take gives the message away.
func (p *pieces) take() mem.BufferSlice {
	p.close()
	done := p.done
	p.done = nil
	return done
}

// free lets go of a message that nobody takes.
func (p *pieces) free() {
	taken := p.take()
	taken.Free()
}

// verdictSize is the number of bytes of a Verdict. Only a forest has a depth sum.
func verdictSize(v *anomaly.Verdict, forest bool) (n int) {
	if math.Float32bits(v.Score) != 0 {
		n += 5
	}
	if v.IsAnomaly {
		n += 2
	}
	if math.Float64bits(v.Threshold) != 0 {
		n += 9
	}
	if math.Float64bits(v.PValue) != 0 {
		n += 9
	}
	if v.Level != 0 {
		n += 1 + protowire.SizeVarint(uint64(v.Level))
	}
	if len(v.Contributions) > 0 {
		n += 1 + protowire.SizeBytes(4*len(v.Contributions))
	}
	if len(v.Expected) > 0 {
		n += 1 + protowire.SizeBytes(4*len(v.Expected))
	}
	if v.TopFeature != "" {
		n += 1 + protowire.SizeBytes(len(v.TopFeature))
	}
	if forest {
		n += 9
	}
	for i := range v.Members {
		n += fieldSize(memberSize(&v.Members[i]))
	}
	return n
}

// memberSize is the number of bytes of a MemberVerdict.
func memberSize(m *anomaly.MemberVerdict) int {
	n := 1 + protowire.SizeVarint(uint64(m.Detector)) // no detector is 0
	if math.Float64bits(m.Weight) != 0 {
		n += 9
	}
	if m.Missing == "" {
		return n + 5 + 9
	}
	return n + fieldSize(len(m.Missing))
}

// tag is the first byte of a field with a number below 16.
func tag(number protowire.Number, kind protowire.Type) byte {
	return byte(protowire.EncodeTag(number, kind))
}

// appendVerdict appends the fields of a Verdict.
func appendVerdict(b []byte, v *anomaly.Verdict, forest bool) []byte {
	if bits := math.Float32bits(v.Score); bits != 0 {
		b = binary.LittleEndian.AppendUint32(append(b, tag(1, protowire.Fixed32Type)), bits)
	}
	if v.IsAnomaly {
		b = append(b, tag(2, protowire.VarintType), 1)
	}
	if bits := math.Float64bits(v.Threshold); bits != 0 {
		b = binary.LittleEndian.AppendUint64(append(b, tag(3, protowire.Fixed64Type)), bits)
	}
	if bits := math.Float64bits(v.PValue); bits != 0 {
		b = binary.LittleEndian.AppendUint64(append(b, tag(4, protowire.Fixed64Type)), bits)
	}
	if v.Level != 0 {
		b = protowire.AppendVarint(append(b, tag(5, protowire.VarintType)), uint64(v.Level))
	}
	b = appendFloats(b, 6, v.Contributions)
	b = appendFloats(b, 7, v.Expected)
	if v.TopFeature != "" {
		b = protowire.AppendString(append(b, tag(8, protowire.BytesType)), v.TopFeature)
	}
	if forest {
		b = binary.LittleEndian.AppendUint64(append(b, tag(9, protowire.Fixed64Type)), math.Float64bits(v.DepthSum))
	}
	for i := range v.Members {
		b = appendMember(appendHead(b, 10, memberSize(&v.Members[i])), &v.Members[i])
	}
	return b
}

// appendMember appends the fields of a MemberVerdict. Score and normalized score are there even when they are 0, if the member answered.
func appendMember(b []byte, m *anomaly.MemberVerdict) []byte {
	b = protowire.AppendVarint(append(b, tag(1, protowire.VarintType)), uint64(m.Detector))
	if bits := math.Float64bits(m.Weight); bits != 0 {
		b = binary.LittleEndian.AppendUint64(append(b, tag(2, protowire.Fixed64Type)), bits)
	}
	if m.Missing != "" {
		return protowire.AppendString(append(b, tag(5, protowire.BytesType)), m.Missing)
	}
	b = binary.LittleEndian.AppendUint32(append(b, tag(3, protowire.Fixed32Type)), math.Float32bits(m.Score))
	return binary.LittleEndian.AppendUint64(append(b, tag(4, protowire.Fixed64Type)), math.Float64bits(m.Normalized))
}

// appendFloats appends a packed list; nothing for an empty one.
func appendFloats(b []byte, number protowire.Number, list []float32) []byte {
	if len(list) == 0 {
		return b
	}
	b = protowire.AppendVarint(append(b, tag(number, protowire.BytesType)), uint64(4*len(list)))
	for _, x := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// errorSize is the number of bytes of an ErrorInfo.
func errorSize(e *anomaly.Error) int {
	n := 1 + protowire.SizeVarint(uint64(e.Code)) // no code is 0
	if e.Field != "" {
		n += 1 + protowire.SizeBytes(len(e.Field))
	}
	if e.Message != "" {
		n += 1 + protowire.SizeBytes(len(e.Message))
	}
	return n
}

// appendError appends the fields of an ErrorInfo.
func appendError(b []byte, e *anomaly.Error) []byte {
	b = protowire.AppendVarint(append(b, tag(1, protowire.VarintType)), uint64(e.Code))
	if e.Field != "" {
		b = protowire.AppendString(append(b, tag(2, protowire.BytesType)), e.Field)
	}
	if e.Message != "" {
		b = protowire.AppendString(append(b, tag(3, protowire.BytesType)), e.Message)
	}
	return b
}

// appendHead appends the tag and the length of a field of bytes.
func appendHead(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(append(b, tag(number, protowire.BytesType)), uint64(size))
}

// fieldSize is the number of bytes of a field of bytes with its head.
func fieldSize(size int) int { return 1 + protowire.SizeBytes(size) }
