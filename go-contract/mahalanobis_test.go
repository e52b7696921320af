package anomaly

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// randomMahalanobis draws factors, and what follows from them: E and precision of the quadratic form of MD2, the square of the distance,
// are -P[i,j] / P[j,j] and P[j,j] with P the mean of R R' / F and W W' / (T F). upper says on which side of the diagonal the factors are.
func randomMahalanobis(random *rand.Rand, timesteps, features int, upper bool) mahalanobisWeights {
	size := timesteps * features
	factor := func(n int) []float64 {
		out := make([]float64, n*n)
		for i := range n {
			out[i*n+i] = .5 + random.Float64()
			for k := range i {
				at := i*n + k
				if upper {
					at = k*n + i
				}
				out[at] = random.NormFloat64() / math.Sqrt(float64(n))
			}
		}
		return out
	}
	w := mahalanobisWeights{
		row: factor(features), regression: make([]float64, size*features), precision: make([]float64, features),
		limitStart: make([]float64, features), limitSlope: make([]float64, features),
	}
	form := make([]float64, size*size)
	addForm(form, size, w.row, features, 1/float64(features))
	if timesteps > 1 {
		w.window = factor(size)
		addForm(form, size, w.window, size, 1/float64(size))
		for i := range form {
			form[i] /= 2
		}
	}
	for j := range features {
		own := size - features + j
		w.precision[j] = form[own*size+own]
		for i := range size {
			if i != own {
				w.regression[i*features+j] = -form[i*size+own] / w.precision[j]
			}
		}
	}
	return w
}

// addForm adds factor factor' times a number to the last n rows and columns of form [size, size].
func addForm(form []float64, size int, factor []float64, n int, times float64) {
	for a := range n {
		for b := range n {
			sum := 0.0
			for k := range n {
				sum += factor[a*n+k] * factor[b*n+k]
			}
			form[(size-n+a)*size+size-n+b] += times * sum
		}
	}
}

// withLimits gives every third feature a limit, of these every other one from below.
func (w mahalanobisWeights) withLimits() mahalanobisWeights {
	w.limitStart, w.limitSlope = slices.Clone(w.limitStart), slices.Clone(w.limitSlope)
	for j := 0; j < len(w.precision); j += 3 {
		w.limitStart[j], w.limitSlope[j] = 1.5, 1.25
		if j%6 == 3 {
			w.limitStart[j], w.limitSlope[j] = -2, -.75
		}
	}
	return w
}

// makeMahalanobis makes a model of windows of timesteps samples, or of single samples where timesteps is 0.
func makeMahalanobis(tb testing.TB, random *rand.Rand, timesteps, features int) madeModel {
	tb.Helper()
	w := randomMahalanobis(random, max(timesteps, 1), features, timesteps%2 == 0).withLimits()
	return mahalanobisOf(tb, randomScaler(random, features), timesteps, w)
}

func mahalanobisOf(tb testing.TB, s scaler, timesteps int, w mahalanobisWeights) madeModel {
	tb.Helper()
	meta := &anomalyv1.ModelMetadata{
		Mahalanobis:   &anomalyv1.MahalanobisParameters{Ridge: .01, LimitStart: w.limitStart, LimitSlope: w.limitSlope},
		Contamination: proto.Float64(.01), Threshold: 2.5,
	}
	if timesteps > 0 {
		meta.Timesteps = proto.Uint32(uint32(timesteps))
	}
	return makeModel(tb, Mahalanobis, meta, s, mahalanobisWiring(max(timesteps, 1), len(s.mean)), map[string][]float64{
		"row_factor": w.row, "window_factor": w.window, "regression": w.regression, "precision": w.precision,
		"limit_start": w.limitStart, "limit_slope": w.limitSlope,
	})
}

// exactly is x with 200 bits.
func exactly(x float64) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(x) }

// exactProduct is column c of x times w [len(x), columns], without rounding worth the name.
func exactProduct(x, w []float64, columns, c int) *big.Float {
	sum := exactly(0)
	for i := len(x) - 1; i >= 0; i-- {
		sum.Add(sum, new(big.Float).Mul(exactly(x[i]), exactly(w[i*columns+c])))
	}
	return sum
}

// exactSquare is the mean of the squares of x times w [len(x), len(x)]: d_row or d_window of MD2.
func exactSquare(x, w []float64) *big.Float {
	sum := exactly(0)
	for c := len(x) - 1; c >= 0; c-- {
		v := exactProduct(x, w, len(x), c)
		sum.Add(sum, v.Mul(v, v))
	}
	return sum.Quo(sum, exactly(float64(len(x))))
}

// plainMahalanobis is MD2 to MD5 as they are written, in exact arithmetic where it sums; parts are those of the contributions.
func plainMahalanobis(s scaler, w mahalanobisWeights, scaled []float64) (score float64, parts, expected []float64) {
	features := len(s.mean)
	z := scaled[len(scaled)-features:]
	square := exactSquare(z, w.row)
	if w.window != nil {
		square.Add(square, exactSquare(scaled, w.window))
		square.Quo(square, exactly(2))
	}
	distance, _ := square.Sqrt(square).Float64()
	limit := math.Inf(-1)
	beyond, gains := make([]float64, features), make([]float64, features)
	for j, x := range z {
		beyond[j] = w.limitSlope[j] * (x - w.limitStart[j])
		limit = math.Max(limit, beyond[j])
		beyond[j] = math.Max(beyond[j], 0)
		m, _ := exactProduct(scaled, w.regression, features, j).Float64()
		gains[j] = w.precision[j] * (x - m) * (x - m)
		expected = append(expected, m*s.scale[j]+s.mean[j])
	}
	if limit > distance {
		return math.Min(limit, math.MaxFloat32), beyond, expected
	}
	return math.Min(distance, math.MaxFloat32), gains, expected
}

func TestMahalanobisEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(81, 82))
	for _, c := range []struct{ timesteps, features int }{{0, 7}, {0, 1}, {0, 38}, {5, 7}, {4, 13}, {2, 3}, {3, 1}, {12, 8}, {100, 1}} {
		steps, limits := max(c.timesteps, 1), 0
		for _, upper := range []bool{false, true} {
			s := randomScaler(random, c.features)
			w := randomMahalanobis(random, steps, c.features, upper).withLimits()
			e := mahalanobisOf(t, s, c.timesteps, w).open(t)
			for k := range 40 {
				window := randomRows(random, s, steps)
				switch last := window[len(window)-c.features:]; k % 4 {
				case 1: // beyond a limit
					last[0] += 9 * s.scale[0]
				case 2: // far from all
					last[c.features-1] -= 1e5 * s.scale[c.features-1]
				case 3: // at the mean
					copy(last, s.mean)
				}
				var scaled []float64
				for row := range slices.Chunk(window, c.features) {
					scaled = append(scaled, scaleRow(s, row)...)
				}
				score, parts, expected := plainMahalanobis(s, w, scaled)
				var v Verdict
				require.NoError(t, e.score(window, ExplainAlways, &v))
				requireScore(t, score, v.Score)
				require.Equal(t, float64(v.Score) > nearestMidpoint(2.5), v.IsAnomaly) // MD6
				requireShares(t, parts, v.Contributions)
				for j, m := range expected {
					require.InDelta(t, m, v.Expected[j], 1e-6*(1+math.Abs(m)))
				}
				if c.features > 1 && parts[1] == 0 && parts[0] > 0 { // the second has no limit
					limits++
				}
			}
		}
		require.True(t, limits > 0 || c.features == 1, "no limit was the score at %v", c)
	}
}

// TestMahalanobisOfACovariance: with factors of the inverse of a covariance the distance is the one of the textbook, here by elimination,
// and what is expected is the conditional mean (MD2, MD4).
func TestMahalanobisOfACovariance(t *testing.T) {
	// Two metrics of variance 1 with correlation r, ridge 0: inv(C) = [[1, -r], [-r, 1]] / (1 - r^2).
	const r = .8
	root := math.Sqrt(1 - r*r)
	s := scaler{mean: []float64{10, 100}, scale: []float64{2, 20}}
	w := mahalanobisWeights{
		row:        []float64{1 / root, 0, -r / root, 1}, // lower: R R' = inv(C)
		regression: []float64{0, r, r, 0}, precision: []float64{.5 / (1 - r*r), .5 / (1 - r*r)},
		limitStart: make([]float64, 2), limitSlope: make([]float64, 2),
	}
	e := mahalanobisOf(t, s, 0, w).open(t)
	for _, z := range [][2]float64{{1, 1}, {1, -1}, {3, 0}, {-.5, 2}} {
		var v Verdict
		require.NoError(t, e.score([]float64{10 + 2*z[0], 100 + 20*z[1]}, ExplainAlways, &v))
		requireScore(t, math.Sqrt((z[0]*z[0]-2*r*z[0]*z[1]+z[1]*z[1])/(1-r*r)/2), v.Score)
		require.InDelta(t, 10+2*r*z[1], v.Expected[0], 1e-4)
		require.InDelta(t, 100+20*r*z[0], v.Expected[1], 1e-4)
	}
}

// TestMahalanobisGains: a contribution is what the squared distance falls when the metric alone is as expected (MD5).
func TestMahalanobisGains(t *testing.T) {
	random := rand.New(rand.NewPCG(83, 84))
	for _, steps := range []int{1, 5} {
		s := scaler{mean: make([]float64, 7), scale: slices.Repeat([]float64{1}, 7)}
		w := randomMahalanobis(random, steps, 7, steps == 1)
		m := newMahalanobis(s, 1, steps, w)
		for range 20 {
			window := randomRows(random, s, steps)
			var v Verdict
			require.NoError(t, m.score(window, ExplainAlways, &v))
			z := window[len(window)-7:]
			before := m.distance(window, z)
			_, parts, expected := plainMahalanobis(s, w, window)
			for j := range 7 {
				kept := z[j]
				z[j] = expected[j]
				after := m.distance(window, z)
				z[j] = kept
				require.InDelta(t, before*before-after*after, parts[j], 1e-12)
			}
			requireShares(t, parts, v.Contributions)
		}
	}
}

// TestMahalanobisLimits: a limit is a score by itself from where it is above the distance; a slope of 0 is none (MD3, MD5).
func TestMahalanobisLimits(t *testing.T) {
	s := scaler{mean: []float64{0, 0, 0}, scale: []float64{1, 1, 1}}
	w := mahalanobisWeights{
		row:        []float64{1, 0, 0, 0, 1, 0, 0, 0, 1},
		regression: make([]float64, 9), precision: []float64{1, 1, 1},
		limitStart: []float64{2, -3, 1}, limitSlope: []float64{4, -2, 0},
	}
	e := mahalanobisOf(t, s, 0, w).open(t)
	third := math.Sqrt(3)
	zero := math.Copysign(0, -1)
	for _, c := range []struct {
		sample        []float64
		score         float64
		contributions []float32
	}{
		{[]float64{0, 0, 0}, 0, []float32{0, 0, 0}},
		{[]float64{zero, zero, zero}, 0, []float32{0, 0, 0}}, // F5
		{[]float64{2, 0, 0}, 2 / third, []float32{1, 0, 0}},  // where a limit begins it is 0
		{[]float64{2.5, 0, 0}, 2, []float32{1, 0, 0}},
		{[]float64{4, -7, 0}, 8, []float32{.5, .5, 0}}, // two limits share
		{[]float64{3, -7, 0}, 8, []float32{1. / 3, 2. / 3, 0}},
		{[]float64{-9, 9, 0}, math.Sqrt(54), []float32{.5, .5, 0}}, // the other side has none
		{[]float64{0, 0, 1e6}, 1e6 / third, []float32{0, 0, 1}},    // a slope of 0
		{[]float64{0, 0, math.MaxFloat64}, 1e15 / third, []float32{0, 0, 1}},
		{[]float64{math.MaxFloat64, 0, 0}, 4 * (1e15 - 2), []float32{1, 0, 0}},
		{[]float64{math.MaxFloat64, -math.MaxFloat64, 0}, 4 * (1e15 - 2), []float32{2. / 3, 1. / 3, 0}},
	} {
		var v Verdict
		require.NoError(t, e.score(c.sample, ExplainAlways, &v))
		requireScore(t, c.score, v.Score)
		require.False(t, math.Signbit(float64(v.Score)), "a slope of 0 makes no negative zero: %v", c.sample)
		require.InDeltaSlice(t, c.contributions, v.Contributions, 1e-6, c.sample)
	}

	// Where distance and limit are the same number it is the distance that explains.
	s = scaler{mean: make([]float64, 4), scale: []float64{1, 1, 1, 1}}
	w = mahalanobisWeights{
		row:        []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2},
		regression: make([]float64, 16), precision: []float64{1, 1, 1, 1},
		limitStart: make([]float64, 4), limitSlope: []float64{0, .5, 0, 0},
	}
	e = mahalanobisOf(t, s, 0, w).open(t)
	var v Verdict
	require.NoError(t, e.score([]float64{5, 4, 0, 2}, ExplainAlways, &v)) // 2 and 2
	require.Equal(t, float32(2), v.Score)
	require.InDeltaSlice(t, []float32{25. / 45, 16. / 45, 0, 4. / 45}, v.Contributions, 1e-6)
}

// TestMahalanobisOfTheLargestParameters: a finite score, whatever MD7 allows and the sample is (F4, MD3).
func TestMahalanobisOfTheLargestParameters(t *testing.T) {
	const steps, features = 4, 3
	size := steps * features
	fill := func(n int, x float64) []float64 { return slices.Repeat([]float64{x}, n) }
	w := mahalanobisWeights{
		row: fill(features*features, 1e6), window: fill(size*size, -1e6), regression: fill(size*features, 1e6),
		precision: fill(features, 1e6), limitStart: fill(features, -1e6), limitSlope: fill(features, 1e6),
	}
	for _, f := range []struct {
		values []float64
		n      int
	}{{w.row, features}, {w.window, size}} {
		for i := range f.values {
			if i/f.n < i%f.n {
				f.values[i] = 0
			}
		}
	}
	for j := range features {
		w.regression[(size-features+j)*features+j] = 0
	}
	s := scaler{mean: make([]float64, features), scale: fill(features, 1)}
	e := mahalanobisOf(t, s, steps, w).open(t)
	for _, sample := range farSamples(features) {
		var v Verdict
		require.NoError(t, e.score(slices.Repeat(sample, steps), ExplainAlways, &v))
		require.True(t, finite(float64(v.Score)) && v.Score >= 0, "%v of %v", v.Score, sample)
		for j := range features {
			require.True(t, v.Contributions[j] >= 0 && v.Contributions[j] <= 1)
			require.False(t, math.IsNaN(float64(v.Expected[j])))
		}
	}
}

// TestMahalanobisRefusesWhatNoCovarianceGives: rules MD4 and MD7, with the name and place of the number.
func TestMahalanobisRefusesWhatNoCovarianceGives(t *testing.T) {
	const steps, features = 2, 3
	whole := func() mahalanobisWeights {
		return randomMahalanobis(rand.New(rand.NewPCG(85, 86)), steps, features, false)
	}
	w := whole()
	require.NoError(t, w.check(features, steps*features))
	for text, damage := range map[string]func(w *mahalanobisWeights){
		"row_factor[4] is NaN":             func(w *mahalanobisWeights) { w.row[4] = math.NaN() },
		"row_factor[8] is +Inf":            func(w *mahalanobisWeights) { w.row[8] = math.Inf(1) },
		"row_factor[0] is 1.0000000000000": func(w *mahalanobisWeights) { w.row[0] = math.Nextafter(1e6, 2e6) },
		"window_factor[35] is -Inf":        func(w *mahalanobisWeights) { w.window[35] = math.Inf(-1) },
		"window_factor[0] is -2e+06":       func(w *mahalanobisWeights) { w.window[0] = -2e6 },
		"regression[1] is NaN":             func(w *mahalanobisWeights) { w.regression[1] = math.NaN() },
		"regression[17] is 1e+07":          func(w *mahalanobisWeights) { w.regression[17] = 1e7 },
		"regression[4,1] is 1e-300":        func(w *mahalanobisWeights) { w.regression[4*features+1] = 1e-300 },
		"precision[0] is 0":                func(w *mahalanobisWeights) { w.precision[0] = 0 },
		"precision[2] is -1":               func(w *mahalanobisWeights) { w.precision[2] = -1 },
		"precision[1] is NaN":              func(w *mahalanobisWeights) { w.precision[1] = math.NaN() },
		"precision[1] is 1e+09":            func(w *mahalanobisWeights) { w.precision[1] = 1e9 },
		"row_factor is not triangular":     func(w *mahalanobisWeights) { w.row[1] = 1e-300 },
		"window_factor is not triangular":  func(w *mahalanobisWeights) { w.window[5] = -1e-300 },
	} {
		w := whole()
		damage(&w)
		require.ErrorContains(t, w.check(features, steps*features), text)
	}
	w.row[0], w.window[0], w.precision[0], w.regression[1] = 1e6, -1e6, 1e6, -1e6
	require.NoError(t, w.check(features, steps*features), "the largest sizes are allowed")
}

func TestTriangles(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		w    []float64
		want bool
	}{
		"one value": {1, []float64{3}, true},
		"lower":     {2, []float64{1, 0, 2, 3}, true},
		"upper":     {2, []float64{1, 2, 0, 3}, true},
		"diagonal":  {2, []float64{1, 0, 0, 3}, true},
		"nothing":   {2, make([]float64, 4), true},
		"full":      {2, []float64{1, 2, 3, 4}, false},
		"corners":   {3, []float64{0, 0, 1, 0, 0, 0, 1, 0, 0}, false},
		"zeros":     {2, []float64{1, math.Copysign(0, -1), 2, 3}, true},
	} {
		require.Equal(t, c.want, isTriangular(c.w, c.n), name)
	}
	random := rand.New(rand.NewPCG(87, 88))
	for n := 1; n < 40; n++ { // blocks of any filling, their zeros left out or not
		for _, upper := range []bool{false, true} {
			w := randomMahalanobis(random, 1, n, upper).row
			w[(n-1)*n], w[n-1] = 0, 0
			x := make([]float64, n)
			for i := range x {
				x[i] = random.NormFloat64()
			}
			want, _ := exactSquare(x, w).Float64()
			want *= float64(n)
			require.InDelta(t, want, newTriangle(w, n).squaredLength(x), 1e-13*want)
		}
	}
}

// TestMahalanobisOfASeries: every row from the first full window on, each with the rows before it (W4).
func TestMahalanobisOfASeries(t *testing.T) {
	random := rand.New(rand.NewPCG(99, 100))
	m := makeMahalanobis(t, random, 5, 7)
	set := m.set(t)
	rows := randomRows(random, m.scaler(), 60)
	for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
		var batch BatchVerdict
		request := BatchRequest{Detector: Mahalanobis, Rows: rows, Layout: BatchSeries, Explain: explain}
		require.NoError(t, set.ScoreBatch(t.Context(), request, &batch))
		require.Len(t, batch.Scores, 56)
		for i := range batch.Scores {
			var one, item Verdict
			samples := slices.Collect(slices.Chunk(rows[i*7:][:35], 7))
			require.NoError(t, set.Score(t.Context(), Request{Detector: Mahalanobis, Samples: samples, Explain: explain}, &one))
			batch.Item(i, 7, &item)
			require.Equal(t, one.Score, item.Score)
			if explain.wanted(one.IsAnomaly) {
				require.Equal(t, one.Contributions, item.Contributions)
				require.Equal(t, one.Expected, item.Expected)
			}
		}
	}
	var v Verdict
	short := Request{Detector: Mahalanobis, Samples: slices.Collect(slices.Chunk(rows[:28], 7))}
	err := set.Score(t.Context(), short, &v)
	require.ErrorIs(t, err, CodeWindowTooShort)
	require.Equal(t, "samples", AsError(err).Field)
}

// TestMahalanobisOfMany: the same bits from many goroutines at once.
func TestMahalanobisOfMany(t *testing.T) {
	random := rand.New(rand.NewPCG(89, 90))
	m := makeMahalanobis(t, random, 5, 7)
	e := m.open(t)
	rows := randomRows(random, m.scaler(), 200)
	want := make([]Verdict, 40)
	for i := range want {
		require.NoError(t, e.score(rows[i*35:][:35], ExplainAlways, &want[i]))
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			var v Verdict
			for i := range 400 {
				if err := e.score(rows[i%40*35:][:35], ExplainAlways, &v); err != nil {
					t.Error(err)
					return
				}
				if fmt.Sprint(v) != fmt.Sprint(want[i%40]) {
					t.Errorf("window %d: %v, not %v", i%40, v, want[i%40])
					return
				}
			}
		})
	}
	wait.Wait()
}
