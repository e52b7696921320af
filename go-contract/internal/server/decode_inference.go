package server

import (
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxListed is how many inputs, outputs, dimensions and raw contents of a request are kept: more than any model has, so that one too
// many can be told.
const maxListed = 64

// inferInput is the first input of a request.
type inferInput struct {
	name, datatype string
	shape          []int64
	// values are those of fp64_contents; others says whether there are contents of another type.
	values []float64
	others bool
}

// inferRequest is inference.ModelInferRequest as far as anything depends on it.
type inferRequest struct {
	model, version, id string
	input              inferInput
	// inputs is how many inputs there are, raw how many raw contents.
	inputs, raw int
	outputs     []string
	// rawValues are the first raw contents; rawRest the number of bytes behind their last whole value.
	rawValues []float64
	rawRest   int
}

// decode replaces what r holds.
func (r *inferRequest) decode(b []byte) error {
	*r = inferRequest{
		input:   inferInput{shape: r.input.shape[:0], values: r.input.values[:0]},
		outputs: r.outputs[:0], rawValues: r.rawValues[:0],
	}
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting)
		if err != nil {
			return err
		}
		b = rest
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case 1:
			r.model, err = text(f.bytes)
		case 2:
			r.version, err = text(f.bytes)
		case 3:
			r.id, err = text(f.bytes)
		case 4:
			err = skipParameter(f.bytes, maxNesting-1)
		case 5:
			r.inputs++
			to := &r.input
			if r.inputs > 1 {
				to = new(inferInput) // it has to be read to be refused
			}
			err = to.decode(f.bytes)
		case 6:
			var name string
			if name, err = outputName(f.bytes); len(r.outputs) <= maxListed {
				r.outputs = append(r.outputs, name)
			}
		case 7:
			if r.raw++; r.raw == 1 {
				r.rawValues = appendDoubles(slices.Grow(r.rawValues, len(f.bytes)/8), f.bytes)
				r.rawRest = len(f.bytes) % 8
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// text takes over a string.
func text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errMalformed
	}
	return string(b), nil
}

// decode reads an InferInputTensor.
func (in *inferInput) decode(b []byte) error {
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting-1)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.number == 1 && f.kind == protowire.BytesType:
			in.name, err = text(f.bytes)
		case f.number == 2 && f.kind == protowire.BytesType:
			in.datatype, err = text(f.bytes)
		case f.number == 3 && f.kind == protowire.VarintType:
			in.dimension(f.varint)
		case f.number == 3 && f.kind == protowire.BytesType:
			err = eachVarint(f.bytes, in.dimension)
		case f.number == 4 && f.kind == protowire.BytesType:
			err = skipParameter(f.bytes, maxNesting-2)
		case f.number == 5 && f.kind == protowire.BytesType:
			err = in.contents(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *inferInput) dimension(n uint64) {
	if len(in.shape) <= maxListed {
		in.shape = append(in.shape, int64(n))
	}
}

// contents reads an InferTensorContents. Contents of other types are checked, not kept.
func (in *inferInput) contents(b []byte) error {
	other := func(uint64) { in.others = true }
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting-2)
		if err != nil {
			return err
		}
		b = rest
		packed := f.kind == protowire.BytesType
		switch {
		case f.number >= 1 && f.number <= 5 && packed:
			err = eachVarint(f.bytes, other)
		case f.number >= 1 && f.number <= 5 && f.kind == protowire.VarintType:
			other(0)
		case f.number == 6 && packed:
			if in.others = in.others || len(f.bytes) > 0; len(f.bytes)%4 != 0 {
				err = errMalformed
			}
		case f.number == 6 && f.kind == protowire.Fixed32Type, f.number == 8 && packed:
			other(0)
		case f.number == 7 && packed:
			if len(f.bytes)%8 != 0 {
				return errMalformed
			}
			in.values = appendDoubles(in.values, f.bytes)
		case f.number == 7 && f.kind == protowire.Fixed64Type:
			in.values = appendDoubles(in.values, f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eachVarint reads a packed list.
func eachVarint(b []byte, do func(uint64)) error {
	for len(b) > 0 {
		value, rest, err := varint(b, 10)
		if err != nil {
			return err
		}
		b = rest
		do(value)
	}
	return nil
}

// outputName reads an InferRequestedOutputTensor.
func outputName(b []byte) (name string, err error) {
	for len(b) > 0 && err == nil {
		var f field
		if f, b, err = nextField(b, maxNesting-1); err != nil || f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case 1:
			name, err = text(f.bytes)
		case 2:
			err = skipParameter(f.bytes, maxNesting-2)
		}
	}
	return name, err
}

// skipParameter reads an entry of a map of parameters. Nothing depends on it, but it has to be a message.
func skipParameter(b []byte, nesting int) error {
	for len(b) > 0 {
		f, rest, err := nextField(b, nesting)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.kind != protowire.BytesType:
		case f.number == 1:
			_, err = text(f.bytes)
		case f.number == 2:
			err = skipValue(f.bytes, nesting-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipValue reads an InferParameter.
func skipValue(b []byte, nesting int) error {
	for len(b) > 0 {
		f, rest, err := nextField(b, nesting)
		if err != nil {
			return err
		}
		b = rest
		if f.number == 3 && f.kind == protowire.BytesType && !utf8.Valid(f.bytes) {
			return errMalformed
		}
	}
	return nil
}

// namesRequest is a message with a model's name and version: inference.ModelReadyRequest and
// inference.ModelMetadataRequest.
type namesRequest struct{ model, version string }

func (r *namesRequest) decode(b []byte) (err error) {
	*r = namesRequest{}
	for len(b) > 0 && err == nil {
		var f field
		if f, b, err = nextField(b, maxNesting); err != nil || f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case 1:
			r.model, err = text(f.bytes)
		case 2:
			r.version, err = text(f.bytes)
		}
	}
	return err
}
