package anomaly

import (
	"math"
	"sync"
)

// mahalanobis is the native scorer of a Mahalanobis distance (rules MD1 to MD5), in float64.
type mahalanobis struct {
	scaler
	threshold float64
	// row is R. window is W, nil where a single sample is scored (MD2).
	row, window *triangle
	// regression is E, by which each value of the last sample is expected from all others of the window (MD4).
	regression *matrix
	precision  []float64
	// limitStart and limitSlope are the limits, in scaled units (MD3).
	limitStart, limitSlope []float64

	scratch sync.Pool // of *mahalanobisScratch
}

// shareSteps is how many parts of 1 a contribution is a multiple of (rule MD5).
const shareSteps = 1 << 24

// mahalanobisWeights are what training stored, as the graph has it: row [features, features], window [size, size] or nil, regression
// [size, features] with `size` the values of a window, and a value per feature in the others.
type mahalanobisWeights struct {
	row, window, regression           []float64
	precision, limitStart, limitSlope []float64
}

// mahalanobisScratch is what one scoring works in.
type mahalanobisScratch struct {
	// scaled are the scaled values of the window, w of MD1.
	scaled []float64
	// expected are m of MD4, as blocks and as values.
	sums            []block
	expected, parts []float64
}

func newMahalanobis(s scaler, threshold float64, timesteps int, w mahalanobisWeights) *mahalanobis {
	features := len(s.mean)
	size := timesteps * features
	m := &mahalanobis{
		scaler: s, threshold: threshold, row: newTriangle(w.row, features),
		regression: newMatrix(w.regression, nil, size, features, func(c int) (int, float64) { return c, 1 }),
		precision:  w.precision, limitStart: w.limitStart, limitSlope: w.limitSlope,
	}
	if timesteps > 1 {
		m.window = newTriangle(w.window, size)
	}
	m.scratch.New = func() any {
		return &mahalanobisScratch{
			scaled: make([]float64, size), sums: make([]block, m.regression.blocks),
			expected: make([]float64, features), parts: make([]float64, features),
		}
	}
	return m
}

// score scores a window of timesteps*features raw values.
func (m *mahalanobis) score(window []float64, explain Explain, verdict *Verdict) error {
	s := m.scratch.Get().(*mahalanobisScratch)
	m.scaleWindow(s.scaled, window)
	z := s.scaled[len(s.scaled)-len(m.mean):]
	distance, limit := m.distance(s.scaled, z), m.limit(z)
	if verdict.decide(min(max(distance, limit), math.MaxFloat32), m.threshold, explain) { // MD3, MD6
		m.expect(s)
		if limit > distance { // MD5
			m.beyondLimits(s.parts, z)
		} else {
			m.gains(s.parts, z, s.expected)
		}
		total := 0.0
		for _, part := range s.parts {
			total += part
		}
		for _, part := range s.parts {
			share := 0.0
			if total > 0 {
				share = math.RoundToEven(part/total*shareSteps) / shareSteps
			}
			verdict.Contributions = append(verdict.Contributions, float32(share))
		}
		for j, e := range s.expected {
			verdict.Expected = append(verdict.Expected, float32(float64(e*m.scale[j])+m.mean[j])) // MD4
		}
	}
	m.scratch.Put(s)
	return nil
}

// distance is that of MD2. scaled is the window, z its last sample.
func (m *mahalanobis) distance(scaled, z []float64) float64 {
	squared := m.row.squaredLength(z) / float64(len(z))
	if m.window == nil {
		return math.Sqrt(squared)
	}
	return math.Sqrt((squared + m.window.squaredLength(scaled)/float64(len(scaled))) / 2)
}

// limit is that of MD3.
func (m *mahalanobis) limit(z []float64) float64 {
	limit := math.Inf(-1)
	for j := range z {
		limit = max(limit, m.beyondLimit(z, j))
	}
	return limit
}

// beyondLimit is what value j of the last sample scores by itself.
func (m *mahalanobis) beyondLimit(z []float64, j int) float64 {
	return m.limitSlope[j] * (z[j] - m.limitStart[j])
}

// expect fills s.expected with the mean that the model gives each metric when all else of the window is known (MD4).
func (m *mahalanobis) expect(s *mahalanobisScratch) {
	clear(s.sums)
	m.regression.addTo(s.sums, s.scaled)
	for j := range s.expected {
		s.expected[j] = s.sums[j/blockColumns][j%blockColumns]
	}
}

// beyondLimits are the parts of MD5 where a limit gave the score.
func (m *mahalanobis) beyondLimits(parts, z []float64) {
	for j := range parts {
		parts[j] = max(0, m.beyondLimit(z, j))
	}
}

// gains are the parts of MD5 where the distance gave the score: how much its square falls when one metric alone is as expected.
func (m *mahalanobis) gains(parts, z, expected []float64) {
	for j := range parts {
		d := z[j] - expected[j]
		parts[j] = m.precision[j] * float64(d*d)
	}
}

func (m *mahalanobis) close() error { return nil }
