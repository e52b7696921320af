package anomaly

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// A reader of the part of the ONNX format (onnx.proto, ONNX IR) that the graphs of this contract use. It is made for hostile
// bytes: it keeps slices of the input instead of copies, bounds every count, and refuses what a graph of a model set has no
// need of (functions, subgraphs, external data, sparse tensors), because what is not read cannot be audited.

// Bounds of what is read. A forest of 1,000 trees or an LSTM over 256 steps stays far below them.
const (
	maxGraphNodes        = 200_000
	maxGraphInitializers = 10_000
	maxGraphValues       = 1_000
	maxNodeEdges         = 16_384 // a Split has an output for each feature
	maxNodeAttributes    = 64
	maxTensorDims        = 8
	maxNameBytes         = 1_024
	maxMetadataProps     = 1_000
)

// ONNX element types (TensorProto.DataType).
const (
	typeFloat32 = 1
	typeUint8   = 2
	typeInt8    = 3
	typeInt32   = 6
	typeInt64   = 7
	typeBool    = 9
	typeFloat64 = 11
)

type onnxModel struct {
	// opsets is domain to version; the default domain is "".
	opsets map[string]int64
	// props are the metadata properties (rule G3).
	props        map[string]string
	nodes        []onnxNode
	initializers map[string]*onnxTensor
	// initializerNames keeps the order of the file.
	initializerNames []string
	inputs, outputs  []onnxValue
}

type onnxNode struct {
	domain, opType  string
	inputs, outputs []string
	attributes      []onnxAttribute
}

type onnxAttribute struct {
	name   string
	kind   int64
	f      float32
	i      int64
	s      []byte
	t      *onnxTensor
	floats []float32
	ints   []int64
	// strings of kind attrStrings.
	strings []string
}

// ONNX attribute kinds (AttributeProto.AttributeType).
const (
	attrFloat   = 1
	attrInt     = 2
	attrString  = 3
	attrTensor  = 4
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
)

// attribute gives the attribute of that name, nil when the node has none.
func (n *onnxNode) attribute(name string) *onnxAttribute {
	for k := range n.attributes {
		if n.attributes[k].name == name {
			return &n.attributes[k]
		}
	}
	return nil
}

// onnxValue is an input or output of the graph; dims that are symbolic are -1.
type onnxValue struct {
	name     string
	elemType int64
	dims     []int64
}

type onnxTensor struct {
	name     string
	dims     []int64
	elemType int64
	// elements is the product of dims.
	elements int
	raw      []byte
	hasRaw   bool
	// typed are the chunks of the typed field of elemType, packed or not.
	typed []wireField
}

// wireField is one field of a message as protobuf's wire format has it.
type wireField struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64
	bytes  []byte
}

var errWire = errors.New("not a protobuf message")

// eachField calls f for every field of message, in order.
func eachField(message []byte, f func(wireField) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errWire
		}
		message = message[n:]
		field := wireField{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			field.value, n = protowire.ConsumeVarint(message)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(message)
			field.value = uint64(v)
		case protowire.Fixed64Type:
			field.value, n = protowire.ConsumeFixed64(message)
		case protowire.BytesType:
			field.bytes, n = protowire.ConsumeBytes(message)
		default:
			return errWire // groups do not occur in ONNX
		}
		if n < 0 {
			return errWire
		}
		message = message[n:]
		if err := f(field); err != nil {
			return err
		}
	}
	return nil
}

func (f wireField) want(kind protowire.Type) error {
	if f.kind != kind {
		return fmt.Errorf("field %d has wire type %d", f.number, f.kind)
	}
	return nil
}

func (f wireField) integer() (int64, error) {
	return int64(f.value), f.want(protowire.VarintType)
}

func (f wireField) message() ([]byte, error) {
	return f.bytes, f.want(protowire.BytesType)
}

func (f wireField) text() (string, error) {
	if err := f.want(protowire.BytesType); err != nil {
		return "", err
	}
	if len(f.bytes) > maxNameBytes {
		return "", fmt.Errorf("a name of %d bytes", len(f.bytes))
	}
	return string(f.bytes), nil
}

// appendIntegers reads a repeated integer field, packed or not.
func (f wireField) appendIntegers(to []int64, limit int) ([]int64, error) {
	if f.kind == protowire.VarintType {
		if len(to) >= limit {
			return nil, fmt.Errorf("more than %d integers", limit)
		}
		return append(to, int64(f.value)), nil
	}
	b, err := f.message()
	for err == nil && len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 || len(to) >= limit {
			return nil, fmt.Errorf("bad list of integers in field %d", f.number)
		}
		to, b = append(to, int64(v)), b[n:]
	}
	return to, err
}

// readONNX parses the bytes of an ONNX model. The result keeps slices of data.
func readONNX(data []byte) (*onnxModel, error) {
	m := &onnxModel{opsets: map[string]int64{}, props: map[string]string{}, initializers: map[string]*onnxTensor{}}
	seenGraph := false
	err := eachField(data, func(f wireField) error {
		switch f.number {
		case 7: // graph
			b, err := f.message()
			if err != nil || seenGraph {
				return errors.Join(err, dup("graph", seenGraph))
			}
			seenGraph = true
			return m.readGraph(b)
		case 8: // opset_import
			return m.readOpset(f)
		case 14: // metadata_props
			return m.readProp(f)
		case 20, 25: // training_info, functions
			return fmt.Errorf("field %d of the model is not allowed", f.number)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !seenGraph {
		return nil, errors.New("the file has no graph")
	}
	return m, nil
}

func dup(what string, seen bool) error {
	if seen {
		return fmt.Errorf("%s occurs twice", what)
	}
	return nil
}

func (m *onnxModel) readOpset(f wireField) error {
	b, err := f.message()
	if err != nil {
		return err
	}
	domain, version := "", int64(0)
	err = eachField(b, func(f wireField) (err error) {
		switch f.number {
		case 1:
			domain, err = f.text()
		case 2:
			version, err = f.integer()
		}
		return err
	})
	if domain == "ai.onnx" {
		domain = "" // two names of the default domain
	}
	if _, seen := m.opsets[domain]; err == nil && (seen || len(m.opsets) >= 16) {
		err = fmt.Errorf("operator set %q occurs twice, or there are too many", domain)
	}
	m.opsets[domain] = version
	return err
}

func (m *onnxModel) readProp(f wireField) error {
	b, err := f.message()
	if err != nil {
		return err
	}
	key, value := "", ""
	err = eachField(b, func(f wireField) (err error) {
		switch f.number {
		case 1:
			key, err = f.text()
		case 2:
			if err = f.want(protowire.BytesType); err == nil {
				value = string(f.bytes)
			}
		}
		return err
	})
	if _, seen := m.props[key]; err == nil && (seen || len(m.props) >= maxMetadataProps) {
		err = fmt.Errorf("metadata property %q occurs twice, or there are too many", key)
	}
	m.props[key] = value
	return err
}

func (m *onnxModel) readGraph(b []byte) error {
	return eachField(b, func(f wireField) error {
		switch f.number {
		case 1, 5, 11, 12, 15:
		default:
			return nil // names, comments, intermediate types: nothing depends on them
		}
		body, err := f.message()
		if err != nil {
			return err
		}
		switch f.number {
		case 1:
			if len(m.nodes) >= maxGraphNodes {
				return fmt.Errorf("more than %d nodes", maxGraphNodes)
			}
			node, err := readNode(body)
			m.nodes = append(m.nodes, node)
			return err
		case 5:
			t, err := readTensor(body)
			if err != nil {
				return err
			}
			if _, seen := m.initializers[t.name]; seen || len(m.initializers) >= maxGraphInitializers {
				return fmt.Errorf("initializer %q occurs twice, or there are too many", t.name)
			}
			m.initializers[t.name] = t
			m.initializerNames = append(m.initializerNames, t.name)
			return nil
		case 15:
			return errors.New("sparse initializers are not allowed")
		}
		values := &m.inputs
		if f.number == 12 {
			values = &m.outputs
		}
		if len(*values) >= maxGraphValues {
			return fmt.Errorf("more than %d inputs or outputs", maxGraphValues)
		}
		v, err := readValue(body)
		*values = append(*values, v)
		return err
	})
}

func readNode(b []byte) (onnxNode, error) {
	var n onnxNode
	err := eachField(b, func(f wireField) (err error) {
		var s string
		switch f.number {
		case 1, 2:
			list := &n.inputs
			if f.number == 2 {
				list = &n.outputs
			}
			if len(*list) >= maxNodeEdges {
				return fmt.Errorf("more than %d edges on a node", maxNodeEdges)
			}
			s, err = f.text()
			*list = append(*list, s)
		case 4:
			n.opType, err = f.text()
		case 5:
			if len(n.attributes) >= maxNodeAttributes {
				return fmt.Errorf("more than %d attributes on a node", maxNodeAttributes)
			}
			var a onnxAttribute
			if a, err = readAttribute(f); err == nil && n.attribute(a.name) != nil {
				err = fmt.Errorf("attribute %q occurs twice", a.name)
			}
			n.attributes = append(n.attributes, a)
		case 7:
			n.domain, err = f.text()
		case 8:
			if len(f.bytes) > 0 {
				err = errors.New("overloads are not allowed")
			}
		}
		return err
	})
	if n.domain == "ai.onnx" {
		n.domain = ""
	}
	return n, err
}

func readAttribute(f wireField) (onnxAttribute, error) {
	var a onnxAttribute
	b, err := f.message()
	if err != nil {
		return a, err
	}
	err = eachField(b, func(f wireField) (err error) {
		switch f.number {
		case 1:
			a.name, err = f.text()
		case 2:
			err = f.want(protowire.Fixed32Type)
			a.f = math.Float32frombits(uint32(f.value))
		case 3:
			a.i, err = f.integer()
		case 4:
			a.s, err = f.message()
		case 5:
			if a.t != nil {
				return dup("an attribute's tensor", true)
			}
			var body []byte
			if body, err = f.message(); err == nil {
				a.t, err = readTensor(body)
			}
		case 7:
			a.floats, err = f.appendFloats(a.floats)
		case 8:
			// A list of integers is the only attribute that grows with the forest; its bytes bound it.
			a.ints, err = f.appendIntegers(a.ints, math.MaxInt32)
		case 9:
			var text string
			if text, err = f.text(); err == nil && len(a.strings) >= maxNodeAttributes {
				err = errors.New("too many strings in an attribute")
			}
			a.strings = append(a.strings, text)
		case 13: // comment
		case 20:
			a.kind, err = f.integer()
		default:
			// Subgraphs, lists of tensors, references, sparse tensors.
			err = fmt.Errorf("field %d of attribute %q is not allowed", f.number, a.name)
		}
		return err
	})
	return a, err
}

func (f wireField) appendFloats(to []float32) ([]float32, error) {
	if f.kind == protowire.Fixed32Type {
		return append(to, math.Float32frombits(uint32(f.value))), nil
	}
	b, err := f.message()
	if err == nil && len(b)%4 != 0 {
		err = errWire
	}
	for ; err == nil && len(b) > 0; b = b[4:] {
		to = append(to, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return to, err
}

func readValue(b []byte) (onnxValue, error) {
	var v onnxValue
	seen := false
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case 1:
			v.name, err = f.text()
		case 2:
			if seen {
				return dup("the type of a value", true)
			}
			seen = true
			err = v.readType(f)
		}
		return err
	})
	return v, err
}

func (v *onnxValue) readType(f wireField) error {
	b, err := f.message()
	if err != nil {
		return err
	}
	return eachField(b, func(f wireField) error {
		if f.number != 1 { // tensor_type
			return nil
		}
		b, err := f.message()
		if err != nil {
			return err
		}
		return eachField(b, func(f wireField) (err error) {
			switch f.number {
			case 1:
				v.elemType, err = f.integer()
			case 2:
				err = v.readShape(f)
			}
			return err
		})
	})
}

func (v *onnxValue) readShape(f wireField) error {
	b, err := f.message()
	if err != nil {
		return err
	}
	return eachField(b, func(f wireField) error {
		if f.number != 1 {
			return nil
		}
		b, err := f.message()
		if err != nil {
			return err
		}
		dim := int64(-1)
		if err := eachField(b, func(f wireField) (err error) {
			if f.number == 1 {
				dim, err = f.integer()
			}
			return err
		}); err != nil {
			return err
		}
		if len(v.dims) >= maxTensorDims {
			return fmt.Errorf("more than %d dimensions", maxTensorDims)
		}
		v.dims = append(v.dims, dim)
		return nil
	})
}
