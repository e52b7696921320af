package anomaly

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// readTensor parses a TensorProto. Its values stay where they are until a method below decodes them.
func readTensor(b []byte) (*onnxTensor, error) {
	t := &onnxTensor{}
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case 1:
			t.dims, err = f.appendIntegers(t.dims, maxTensorDims)
		case 2:
			t.elemType, err = f.integer()
		case 4, 5, 7, 10: // float_data, int32_data, int64_data, double_data
			t.typed = append(t.typed, f)
		case 8:
			t.name, err = f.text()
		case 9:
			if t.hasRaw {
				return dup("raw_data", true)
			}
			t.raw, err = f.message()
			t.hasRaw = true
		case 12, 16: // comment, properties
		case 14:
			if f.value != 0 {
				err = errors.New("external data is not allowed")
			}
		default:
			err = fmt.Errorf("field %d of a tensor is not allowed", f.number)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	size, field := elementSize(t.elemType)
	if size == 0 {
		return nil, fmt.Errorf("tensor %q has element type %d", t.name, t.elemType)
	}
	elements := int64(1)
	for _, d := range t.dims {
		if d < 0 || d > math.MaxInt32 || (d > 0 && elements > math.MaxInt32/d) {
			return nil, fmt.Errorf("tensor %q has dimensions %v", t.name, t.dims)
		}
		elements *= d
	}
	t.elements = int(elements)
	if t.hasRaw && len(t.typed) > 0 {
		return nil, fmt.Errorf("tensor %q has both raw and typed data", t.name)
	}
	if t.hasRaw && int64(len(t.raw)) != elements*int64(size) {
		return nil, fmt.Errorf("tensor %q has %d bytes for %d elements", t.name, len(t.raw), elements)
	}
	for _, f := range t.typed {
		if f.number != field {
			return nil, fmt.Errorf("tensor %q has its data in the field of another type", t.name)
		}
	}
	return t, nil
}

// elementSize gives bytes per element in raw data, and the number of the typed field; 0 for types that do not occur.
func elementSize(elemType int64) (size int, field protowire.Number) {
	switch elemType {
	case typeFloat32:
		return 4, 4
	case typeUint8, typeInt8, typeBool:
		return 1, 5
	case typeInt32:
		return 4, 5
	case typeInt64:
		return 8, 7
	case typeFloat64:
		return 8, 10
	}
	return 0, 0
}

// float64s decodes a tensor of float64.
func (t *onnxTensor) float64s() ([]float64, error) {
	b, err := t.fixed(typeFloat64, 8)
	if err != nil {
		return nil, err
	}
	values := make([]float64, t.elements)
	for i := range values {
		values[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return values, nil
}

// float32s decodes a tensor of float32.
func (t *onnxTensor) float32s() ([]float32, error) {
	b, err := t.fixed(typeFloat32, 4)
	if err != nil {
		return nil, err
	}
	values := make([]float32, t.elements)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return values, nil
}

// fixed gives the little-endian bytes of a tensor of floating-point type.
func (t *onnxTensor) fixed(elemType int64, size int) ([]byte, error) {
	if t.elemType != elemType {
		return nil, fmt.Errorf("tensor %q has element type %d, not %d", t.name, t.elemType, elemType)
	}
	if t.hasRaw {
		return t.raw, nil
	}
	var b []byte
	for _, f := range t.typed {
		switch {
		case f.kind == protowire.BytesType:
			b = append(b, f.bytes...)
		case f.kind == protowire.Fixed32Type && size == 4:
			b = binary.LittleEndian.AppendUint32(b, uint32(f.value))
		case f.kind == protowire.Fixed64Type && size == 8:
			b = binary.LittleEndian.AppendUint64(b, f.value)
		default:
			return nil, fmt.Errorf("tensor %q has data of wire type %d", t.name, f.kind)
		}
	}
	if len(b) != t.elements*size {
		return nil, fmt.Errorf("tensor %q has %d bytes for %d elements", t.name, len(b), t.elements)
	}
	return b, nil
}

// int64s decodes a tensor of integers or bools.
func (t *onnxTensor) int64s() ([]int64, error) {
	if t.elemType == typeFloat32 || t.elemType == typeFloat64 {
		return nil, fmt.Errorf("tensor %q has element type %d, which is not an integer", t.name, t.elemType)
	}
	var values []int64
	if t.hasRaw {
		values = make([]int64, t.elements)
		for i := range values {
			switch t.elemType {
			case typeInt64:
				values[i] = int64(binary.LittleEndian.Uint64(t.raw[8*i:]))
			case typeInt32:
				values[i] = int64(int32(binary.LittleEndian.Uint32(t.raw[4*i:])))
			case typeInt8:
				values[i] = int64(int8(t.raw[i]))
			default:
				values[i] = int64(t.raw[i])
			}
		}
		return values, nil
	}
	var err error
	for _, f := range t.typed {
		if values, err = f.appendIntegers(values, t.elements); err != nil {
			return nil, err
		}
	}
	if len(values) != t.elements {
		return nil, fmt.Errorf("tensor %q has %d values for %d elements", t.name, len(values), t.elements)
	}
	return values, nil
}
