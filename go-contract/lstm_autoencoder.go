package anomaly

import "sync"

// lstmAutoencoder is the native scorer of an LSTM autoencoder (rules LA1 to LA8), in float64.
//
// Nearly all of its time goes into products of a vector with a matrix. A matrix is stored in blocks of 6 columns, so that 6
// sums run side by side in registers (8 would spill); the four gates of a unit are neighbours.
type lstmAutoencoder struct {
	scaler
	threshold           float64
	timesteps, features int

	encoder1, encoder2, decoder1, decoder2 *lstmLayer
	dense                                  *matrix

	scratch sync.Pool // of *lstmScratch
}

// lstmWeights are the weights of one layer as Keras and the graph have them: kernel [in, 4 units], recurrent [units, 4 units],
// bias [4 units], gates in the order input, forget, output, candidate (rule LA3).
type lstmWeights struct {
	in, units               int
	kernel, recurrent, bias []float64
}

// networkWeights are all weights; dense is [units, features].
type networkWeights struct {
	layers                 [4]lstmWeights
	denseKernel, denseBias []float64
}

// blockColumns is the number of columns in a block of a matrix.
const blockColumns = 6

// block is one row of a block of columns.
type block [blockColumns]float64

// matrix is a matrix [in, columns] with a bias, in blocks of columns; the last block is filled up with zeros.
type matrix struct {
	in     int
	blocks int
	// weights has block after block, each of `in` rows.
	weights []block
	bias    []block
}

func blocksOf(columns int) int { return (columns + blockColumns - 1) / blockColumns }

// newMatrix packs w [in, columns]. Column c of the result is column source(c) times factor(c).
func newMatrix(w, bias []float64, in, columns int, column func(c int) (source int, factor float64)) *matrix {
	m := &matrix{in: in, blocks: blocksOf(columns)}
	m.weights = make([]block, m.blocks*in)
	m.bias = make([]block, m.blocks)
	for c := range columns {
		source, factor := column(c)
		for k := range in {
			m.weights[c/blockColumns*in+k][c%blockColumns] = factor * w[k*columns+source]
		}
		if bias != nil {
			m.bias[c/blockColumns][c%blockColumns] = factor * bias[source]
		}
	}
	return m
}

// addTo adds x times the matrix to sums, one entry per block.
func (m *matrix) addTo(sums []block, x []float64) {
	for p := range sums {
		w := m.weights[p*m.in:][:len(x)]
		acc := &sums[p]
		a0, a1, a2, a3, a4, a5 := acc[0], acc[1], acc[2], acc[3], acc[4], acc[5]
		for k, v := range x {
			b := &w[k]
			a0 += float64(b[0] * v)
			a1 += float64(b[1] * v)
			a2 += float64(b[2] * v)
			a3 += float64(b[3] * v)
			a4 += float64(b[4] * v)
			a5 += float64(b[5] * v)
		}
		acc[0], acc[1], acc[2], acc[3], acc[4], acc[5] = a0, a1, a2, a3, a4, a5
	}
}

// lstmLayer is one layer. Its matrices give the exponents of the activations at once: columns of the gates input, forget and
// output are negated, those of the candidate multiplied by -2. Both are exact.
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

// lstmScratch is what one scoring works in.
type lstmScratch struct {
	z []float64
	// even and odd are the outputs of layers, timesteps*units.
	even, odd []float64
	cell      []float64
	cellExp   []float64
	gates     []block
	constant  []block
	gateExp   []float64
	errors    []float64
	last      []float64
	output    []block
}

func newLSTMAutoencoder(s scaler, threshold float64, timesteps int, w networkWeights) *lstmAutoencoder {
	features := len(s.mean)
	a := &lstmAutoencoder{scaler: s, threshold: threshold, timesteps: timesteps, features: features}
	widest := 0
	for i, layer := range []**lstmLayer{&a.encoder1, &a.encoder2, &a.decoder1, &a.decoder2} {
		*layer = newLSTMLayer(w.layers[i])
		widest = max(widest, w.layers[i].units)
	}
	a.dense = newMatrix(w.denseKernel, w.denseBias, a.decoder2.units, features, func(c int) (int, float64) { return c, 1 })
	a.scratch.New = func() any {
		floats := func(n int) []float64 { return make([]float64, n) }
		blocks := blocksOf(4 * widest)
		return &lstmScratch{
			z: floats(timesteps * features), even: floats(timesteps * widest), odd: floats(timesteps * widest),
			cell: floats(widest), cellExp: floats(widest), gateExp: floats(blockColumns * blocks),
			gates: make([]block, blocks), constant: make([]block, blocks),
			errors: floats(features), last: floats(features), output: make([]block, a.dense.blocks),
		}
	}
	return a
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

// score scores a window of timesteps*features raw values.
func (a *lstmAutoencoder) score(window []float64, explain Explain, verdict *Verdict) error {
	s := a.scratch.Get().(*lstmScratch)
	features, steps := a.features, a.timesteps
	for k, j := 0, 0; k < len(window); k++ {
		s.z[k] = a.scale1(window[k], j)
		if j++; j == features {
			j = 0
		}
	}
	bottleneck := a.encode(s)
	a.decoder1.run(s, bottleneck, s.even, steps)
	a.decoder2.run(s, s.even[:steps*a.decoder1.units], s.odd, steps)

	clear(s.errors)
	for t := range steps {
		copy(s.output, a.dense.bias)
		a.dense.addTo(s.output, s.odd[t*a.decoder2.units:][:a.decoder2.units])
		for j := range s.errors {
			r := s.output[j/blockColumns][j%blockColumns]
			d := s.z[t*features+j] - r
			s.errors[j] += float64(d * d)
			s.last[j] = r
		}
	}
	total := 0.0
	for _, e := range s.errors {
		total += e
	}
	verdict.Score = float32(total / float64(steps*features)) // LA5
	verdict.IsAnomaly = float64(verdict.Score) > a.threshold // LA8
	verdict.DepthSum = 0
	verdict.Contributions, verdict.Expected = verdict.Contributions[:0], verdict.Expected[:0]
	if explain.wanted(verdict.IsAnomaly) {
		verdict.Contributions = appendShares(verdict.Contributions, s.errors, total) // LA6
		for j, r := range s.last {
			verdict.Expected = append(verdict.Expected, float32(float64(r*a.scale[j])+a.mean[j])) // LA7
		}
	}
	a.scratch.Put(s)
	return nil
}

// encode runs both encoders over s.z and gives the last output of the second, the bottleneck (rule LA1).
func (a *lstmAutoencoder) encode(s *lstmScratch) []float64 {
	steps, units := a.timesteps, a.encoder2.units
	a.encoder1.run(s, s.z, s.even, steps)
	a.encoder2.run(s, s.even[:steps*a.encoder1.units], s.odd, steps)
	return s.odd[(steps-1)*units : steps*units]
}

func (a *lstmAutoencoder) close() error { return nil }

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
