package anomaly

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// A small ONNX encoder, the inverse of readONNX: tests read a graph, change it and write it again.

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	return appendMessage(b, field, []byte(text))
}

func appendInteger(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

func encodeModel(m *onnxModel) []byte {
	b := appendInteger(nil, 1, 10)
	for domain, version := range m.opsets {
		b = appendMessage(b, 8, appendInteger(appendText(nil, 1, domain), 2, version))
	}
	for key, value := range m.props {
		b = appendMessage(b, 14, appendText(appendText(nil, 1, key), 2, value))
	}
	var g []byte
	for i := range m.nodes {
		g = appendMessage(g, 1, encodeNode(&m.nodes[i]))
	}
	for _, name := range m.initializerNames {
		g = appendMessage(g, 5, encodeTensor(m.initializers[name]))
	}
	for _, v := range m.inputs {
		g = appendMessage(g, 11, encodeValue(v))
	}
	for _, v := range m.outputs {
		g = appendMessage(g, 12, encodeValue(v))
	}
	return appendMessage(b, 7, g)
}

func encodeNode(n *onnxNode) []byte {
	var b []byte
	for _, name := range n.inputs {
		b = appendText(b, 1, name)
	}
	for _, name := range n.outputs {
		b = appendText(b, 2, name)
	}
	b = appendText(b, 4, n.opType)
	for i := range n.attributes {
		a := &n.attributes[i]
		body := appendInteger(appendText(nil, 1, a.name), 20, a.kind)
		switch a.kind {
		case attrFloat:
			body = protowire.AppendFixed32(protowire.AppendTag(body, 2, protowire.Fixed32Type), math.Float32bits(a.f))
		case attrInt:
			body = appendInteger(body, 3, a.i)
		case attrString:
			body = appendMessage(body, 4, a.s)
		case attrTensor:
			body = appendMessage(body, 5, encodeTensor(a.t))
		case attrInts:
			for _, v := range a.ints {
				body = appendInteger(body, 8, v)
			}
		}
		b = appendMessage(b, 5, body)
	}
	return appendText(b, 7, n.domain)
}

func encodeTensor(t *onnxTensor) []byte {
	var b []byte
	for _, d := range t.dims {
		b = appendInteger(b, 1, d)
	}
	b = appendInteger(b, 2, t.elemType)
	b = appendText(b, 8, t.name)
	if t.hasRaw {
		b = appendMessage(b, 9, t.raw)
	}
	for _, f := range t.typed {
		b = appendMessage(b, f.number, f.bytes)
	}
	return b
}

func encodeValue(v onnxValue) []byte {
	var shape []byte
	for _, d := range v.dims {
		if d >= 0 {
			shape = appendMessage(shape, 1, appendInteger(nil, 1, d))
		} else {
			shape = appendMessage(shape, 1, appendText(nil, 2, "N"))
		}
	}
	tensor := appendMessage(appendInteger(nil, 1, v.elemType), 2, shape)
	return appendMessage(appendText(nil, 1, v.name), 2, appendMessage(nil, 1, tensor))
}

// setFloat64s replaces the values of a tensor.
func (t *onnxTensor) setFloat64s(values ...float64) {
	t.raw, t.hasRaw, t.typed = nil, true, nil
	for _, v := range values {
		t.raw = binary.LittleEndian.AppendUint64(t.raw, math.Float64bits(v))
	}
}
