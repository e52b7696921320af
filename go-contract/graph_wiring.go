package anomaly

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A native scorer does not run the nodes of a graph, so a graph could compute something else than what is scored here: a node
// too many, operands swapped, another constant. The wiring of a graph is therefore compared as text, line by line, with what
// its layout prescribes (rule G2). A line is one of
//
//	opset <domain>=<version>
//	input|output <name> <type>[<dims>]
//	initializer <name> <type>[<dims>]            a value of the model; audited by its reader
//	constant <name> <type>[<dims>]=<values>      any other initializer
//	<domain.Operator>(<inputs>)->(<outputs>){<attributes, by name>}

// checkWiring compares the graph with the lines that are expected. isValue says which initializers are values of the model.
func (m *onnxModel) checkWiring(want []string, isValue func(name string) bool) error {
	got, err := m.wiring(isValue)
	if err != nil {
		return err
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("the graph ends before %q", want[i])
		case i >= len(want):
			return fmt.Errorf("the graph has %q, which is not part of its layout", got[i])
		case got[i] != want[i]:
			return fmt.Errorf("the graph has %q in the place of %q", got[i], want[i])
		}
	}
	return nil
}

// wiring is the text of the graph.
func (m *onnxModel) wiring(isValue func(name string) bool) ([]string, error) {
	var lines []string
	domains := make([]string, 0, len(m.opsets))
	for domain := range m.opsets {
		domains = append(domains, domain)
	}
	slices.Sort(domains)
	for _, domain := range domains {
		lines = append(lines, fmt.Sprintf("opset %s=%d", domain, m.opsets[domain]))
	}
	for _, v := range m.inputs {
		lines = append(lines, fmt.Sprintf("input %s %s%s", v.name, typeName(v.elemType), dimsText(v.dims)))
	}
	for _, v := range m.outputs {
		lines = append(lines, fmt.Sprintf("output %s %s%s", v.name, typeName(v.elemType), dimsText(v.dims)))
	}
	// The order of initializers has no meaning, hence by name.
	names := slices.Clone(m.initializerNames)
	slices.Sort(names)
	for _, name := range names {
		t := m.initializers[name]
		line := fmt.Sprintf("%s %s%s", name, typeName(t.elemType), dimsText(t.dims))
		if isValue(name) {
			lines = append(lines, "initializer "+line)
			continue
		}
		values, err := t.text()
		if err != nil {
			return nil, err
		}
		lines = append(lines, "constant "+line+"="+values)
	}
	for i := range m.nodes {
		line, err := m.nodes[i].text()
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// treeArrays are the attributes of TreeEnsemble that hold the trees; its reader audits them.
var treeArrays = []string{
	"leaf_targetids", "leaf_weights", "nodes_falseleafs", "nodes_falsenodeids", "nodes_featureids", "nodes_modes",
	"nodes_splits", "nodes_trueleafs", "nodes_truenodeids", "tree_roots",
}

func (n *onnxNode) text() (string, error) {
	var b strings.Builder
	if n.domain != "" {
		b.WriteString(n.domain + ".")
	}
	fmt.Fprintf(&b, "%s(%s)->(%s)", n.opType, strings.Join(n.inputs, ","), strings.Join(n.outputs, ","))
	var attributes []string
	for i := range n.attributes {
		a := &n.attributes[i]
		if n.opType == "TreeEnsemble" && slices.Contains(treeArrays, a.name) {
			continue
		}
		value, err := a.text()
		if err != nil {
			return "", err
		}
		attributes = append(attributes, a.name+"="+value)
	}
	if len(attributes) > 0 {
		slices.Sort(attributes)
		fmt.Fprintf(&b, "{%s}", strings.Join(attributes, ","))
	}
	return b.String(), nil
}

func (a *onnxAttribute) text() (string, error) {
	switch a.kind {
	case attrFloat:
		return strconv.FormatFloat(float64(a.f), 'g', -1, 32), nil
	case attrInt:
		return strconv.FormatInt(a.i, 10), nil
	case attrString:
		return strconv.Quote(string(a.s)), nil
	case attrFloats:
		return fmt.Sprint(a.floats), nil
	case attrInts:
		return fmt.Sprint(a.ints), nil
	case attrStrings:
		return fmt.Sprintf("%q", a.strings), nil
	case attrTensor:
		if a.t != nil {
			values, err := a.t.text()
			return typeName(a.t.elemType) + dimsText(a.t.dims) + values, err
		}
	}
	return "", fmt.Errorf("attribute %q has kind %d, which is not allowed", a.name, a.kind)
}

// text is the values of a tensor, or their digest when they are many.
func (t *onnxTensor) text() (string, error) {
	var text string
	switch t.elemType {
	case typeFloat64:
		values, err := t.float64s()
		if err != nil {
			return "", err
		}
		text = fmt.Sprint(values)
	case typeFloat32:
		values, err := t.float32s()
		if err != nil {
			return "", err
		}
		text = fmt.Sprint(values)
	default:
		values, err := t.int64s()
		if err != nil {
			return "", err
		}
		text = fmt.Sprint(values)
	}
	return text, nil
}

func typeName(elemType int64) string {
	switch elemType {
	case typeFloat32:
		return "float32"
	case typeFloat64:
		return "float64"
	case typeInt32:
		return "int32"
	case typeInt64:
		return "int64"
	case typeInt8:
		return "int8"
	case typeUint8:
		return "uint8"
	case typeBool:
		return "bool"
	}
	return "type" + strconv.FormatInt(elemType, 10)
}

// dimsText is [2,3]; a symbolic dimension is ?.
func dimsText(dims []int64) string {
	parts := make([]string, len(dims))
	for i, d := range dims {
		parts[i] = "?"
		if d >= 0 {
			parts[i] = strconv.FormatInt(d, 10)
		}
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// within is a set of names as a function.
func within(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}
