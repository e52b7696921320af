package anomaly

// triangle is a triangular matrix [n, n] without a bias. Half of it is zeros, which are left out block by block.
type triangle struct {
	*matrix
	// from and to bound the rows of each block that are not all zeros.
	from, to []int
}

func newTriangle(w []float64, n int) *triangle {
	t := &triangle{matrix: newMatrix(w, nil, n, n, func(c int) (int, float64) { return c, 1 })}
	for p := range t.blocks {
		rows := t.weights[p*n:][:n]
		from, to := 0, n
		for from < to && rows[from] == (block{}) {
			from++
		}
		for from < to && rows[to-1] == (block{}) {
			to--
		}
		t.from, t.to = append(t.from, from), append(t.to, to)
	}
	return t
}

// squaredLength is the sum of the squares of x times the matrix.
func (t *triangle) squaredLength(x []float64) float64 {
	var squares block
	for p := range t.blocks {
		from, to := t.from[p], t.to[p]
		var sums block
		addRows(&sums, t.weights[p*t.in+from:p*t.in+to], x[from:to])
		for c, sum := range sums {
			squares[c] += float64(sum * sum)
		}
	}
	total := 0.0
	for _, square := range squares {
		total += square
	}
	return total
}

// isTriangular says whether a matrix [n, n] has zeros alone above its diagonal, or below it.
func isTriangular(w []float64, n int) bool {
	above, below := false, false
	for k, v := range w {
		if v != 0 {
			above, below = above || k/n < k%n, below || k/n > k%n
		}
	}
	return !above || !below
}
