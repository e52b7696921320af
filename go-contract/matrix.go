package anomaly

// Nearly all of the time of a network goes into products of a vector with a matrix. A matrix is stored in blocks of 6 columns, so that 6
// sums run side by side in registers (8 would spill).

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
		w := m.weights[p*m.in:][:m.in]
		addRows(&sums[p], w, x)
	}
}

// addRows adds x times the rows of one block to sums.
func addRows(sums *block, rows []block, x []float64) {
	rows = rows[:len(x)]
	a0, a1, a2, a3, a4, a5 := sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
	for k, v := range x {
		b := &rows[k]
		a0 += float64(b[0] * v)
		a1 += float64(b[1] * v)
		a2 += float64(b[2] * v)
		a3 += float64(b[3] * v)
		a4 += float64(b[4] * v)
		a5 += float64(b[5] * v)
	}
	sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = a0, a1, a2, a3, a4, a5
}
