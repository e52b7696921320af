package anomaly

// lstmWeights are the weights of one layer as Keras and the graph have them: kernel [in, 4 units], recurrent [units, 4 units],
// bias [4 units], gates in the order input, forget, output, candidate (rule LA3).
type lstmWeights struct {
	in, units               int
	kernel, recurrent, bias []float64
}

// lstmLayer is one layer (rule LA3). The four gates of a unit are neighbours. Its matrices give the exponents of the activations at
// once: columns of the gates input, forget and output are negated, those of the candidate multiplied by -2. Both are exact.
type lstmLayer struct {
	in, units         int
	kernel, recurrent *matrix
}

func newLSTMLayer(w lstmWeights) *lstmLayer {
	gates := func(c int) (source int, factor float64) {
		unit, gate := c/4, c%4
		if gate == 3 {
			return gate*w.units + unit, -2
		}
		return gate*w.units + unit, -1
	}
	return &lstmLayer{
		in: w.in, units: w.units,
		kernel:    newMatrix(w.kernel, w.bias, w.in, 4*w.units, gates),
		recurrent: newMatrix(w.recurrent, nil, w.units, 4*w.units, gates),
	}
}

// lstmScratch is what the layers of one scoring work in.
type lstmScratch struct {
	// even and odd are the outputs of layers, timesteps*units.
	even, odd []float64
	cell      []float64
	cellExp   []float64
	gates     []block
	constant  []block
	gateExp   []float64
}

// newLSTMScratch makes room for layers of at most `widest` units.
func newLSTMScratch(timesteps, widest int) lstmScratch {
	floats := func(n int) []float64 { return make([]float64, n) }
	blocks := blocksOf(4 * widest)
	return lstmScratch{
		even: floats(timesteps * widest), odd: floats(timesteps * widest), cell: floats(widest), cellExp: floats(widest),
		gates: make([]block, blocks), constant: make([]block, blocks), gateExp: floats(blockColumns * blocks),
	}
}

// run runs the layer over timesteps inputs and writes the outputs, timesteps*units. When in holds a single input, that is the
// input of every step, and its product is computed once (decoder_1, rule LA1). States start at 0 (LA1).
func (l *lstmLayer) run(s *lstmScratch, in, out []float64, timesteps int) {
	gates := s.gates[:l.kernel.blocks]
	constant := s.constant[:l.kernel.blocks]
	copy(constant, l.kernel.bias)
	same := len(in) == l.in
	if same {
		l.kernel.addTo(constant, in)
	}
	cell := s.cell[:l.units]
	clear(cell)
	for t := range timesteps {
		copy(gates, constant)
		if !same {
			l.kernel.addTo(gates, in[t*l.in:][:l.in])
		}
		if t > 0 { // the first state is 0 and adds nothing
			l.recurrent.addTo(gates, out[(t-1)*l.units:][:l.units])
		}
		l.cells(s, gates, cell, out[t*l.units:][:l.units])
	}
}

// cells computes c = f*c + i*g and h = o*tanh(c) for all units (rule LA3).
func (l *lstmLayer) cells(s *lstmScratch, gates []block, cell, h []float64) {
	q := s.gateExp[:blockColumns*len(gates)]
	for p := range gates {
		*(*block)(q[blockColumns*p:]) = gates[p]
	}
	expm1All(q[:4*len(cell)])
	cellExp := s.cellExp[:len(cell)]
	for u := range cell {
		g := (*[4]float64)(q[4*u:])
		candidate := -g[3] / (2 + g[3])
		c := float64(cell[u]/(2+g[1])) + float64(candidate/(2+g[0]))
		cell[u] = c
		cellExp[u] = -2 * c
	}
	expm1All(cellExp)
	h = h[:len(cellExp)]
	for u, qc := range cellExp {
		h[u] = -qc / float64((2+qc)*(2+q[4*u+2]))
	}
}

// sigmoid and tanh are the scalar forms, for tests and for readers.
func sigmoid(x float64) float64 {
	q := [1]float64{-x}
	expm1All(q[:])
	return 1 / (2 + q[0])
}

func tanh(x float64) float64 {
	q := [1]float64{-2 * x}
	expm1All(q[:])
	return -q[0] / (2 + q[0])
}
