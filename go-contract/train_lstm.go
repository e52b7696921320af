package anomaly

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	"google.golang.org/protobuf/proto"
)

// WindowOptions are the settings of training on windows; zero values mean the defaults.
type WindowOptions struct {
	// Percentile of the training windows' scores that becomes the threshold, 95 by default. A lower one raises more alarms
	// (rule D3).
	Percentile float64
	// Components is the most principal components that are kept, 32 by default.
	Components int
}

func (o WindowOptions) withDefaults() WindowOptions {
	if !(o.Percentile > 0 && o.Percentile < 100) {
		o.Percentile = 95
	}
	if o.Components <= 0 {
		o.Components = 32
	}
	return o
}

// explainedVariance is the share of variance after which no further component is kept.
const explainedVariance = .9

// Recalibrate gives the LSTM autoencoder of a set a threshold and calibration scores from new rows, oldest first, as a model set in
// memory. Network and scaler stay; fewer rows than a window are WINDOW_TOO_SHORT. The rows are neither kept nor changed.
func Recalibrate(set *ModelSet, rows [][]float64, options WindowOptions) (*ModelSet, error) {
	m, refusal := set.model(LSTMAutoencoder, "")
	if refusal != nil {
		return nil, refusal
	}
	network, ok := m.engine.(interface {
		withThreshold(threshold float64) engine
	})
	if !ok {
		return nil, refuse(CodeInternal, "", "a network in another backend than the native one cannot be recalibrated")
	}
	meta := proto.Clone(m.metadata).(*anomalyv1.ModelMetadata)
	rows, refusal = copyRows(meta.GetFeatureSchema(), rows)
	if refusal == nil {
		refusal = decide(meta, m.engine, rows, false, options.withDefaults())
	}
	if refusal != nil {
		return nil, refusal
	}
	return inMemory(LSTMAutoencoder, meta, network.withThreshold(meta.GetThreshold())), nil
}

// decide sets threshold and calibration from the scores of all windows of rows. With unseen, the model was fitted on the first rows,
// which it therefore reconstructs better than any others: the threshold then comes from the held-out windows too.
func decide(meta *anomalyv1.ModelMetadata, e engine, rows [][]float64, unseen bool, o WindowOptions) *Error {
	steps := windowLength(meta)
	if len(rows) < steps {
		return refuse(CodeWindowTooShort, "rows", "%d rows; the window of the model has %d", len(rows), steps)
	}
	flat := flatten(rows)
	width := len(rows[0])
	var v Verdict
	scores := make([]float32, 0, len(rows))
	for i := 0; i+steps <= len(rows); i++ {
		if err := e.score(flat[i*width:(i+steps)*width], ExplainNever, &v); err != nil {
			return refuse(CodeInternal, "", "%w", err)
		}
		scores = append(scores, v.Score)
	}
	held, source := scores, "the training windows themselves: too few to hold some out"
	if n := len(scores); n >= minHoldOutRows {
		cut := int(float64(n) * (1 - holdOut))
		scores, held, source = scores[:cut], scores[min(cut+steps, n-1):], "the last 20 % of the training windows"
		if unseen {
			scores = held
		}
	}
	meta.Threshold = nearestMidpoint(quantile(widen(scores), o.Percentile/100))
	meta.Calibration = calibrationOf(held, source)
	if meta.Lstm != nil {
		meta.Lstm.ThresholdPercentile = o.Percentile
	}
	return nil
}

func flatten(rows [][]float64) []float64 {
	flat := make([]float64, 0, len(rows)*len(rows[0]))
	for _, row := range rows {
		flat = append(flat, row...)
	}
	return flat
}

func (a *lstmAutoencoder) withThreshold(threshold float64) engine {
	b := &lstmAutoencoder{
		scaler: a.scaler, threshold: threshold, timesteps: a.timesteps, features: a.features,
		encoder1: a.encoder1, encoder2: a.encoder2, decoder1: a.decoder1, decoder2: a.decoder2, dense: a.dense,
	}
	b.scratch.New = a.scratch.New
	return b
}

// TrainWindows fits a model that reconstructs windows of `timesteps` rows from their principal components, as a model set in memory
// that answers like an LSTM autoencoder: same inputs, and score, contributions and expected values by LA5 to LA8. It is the linear
// relative of the autoencoder (Baldi, Hornik: Neural Networks and Principal Component Analysis, 1989) and needs seconds of data
// and no library. Fewer rows than a window are WINDOW_TOO_SHORT. The rows are neither kept nor changed.
func TrainWindows(schema *anomalyv1.FeatureSchema, rows [][]float64, timesteps int, options WindowOptions) (*ModelSet, error) {
	o := options.withDefaults()
	if timesteps < 1 || timesteps > maxTimesteps {
		return nil, refuse(CodeInvalidRequest, "timesteps", "%d is not between 1 and %d", timesteps, maxTimesteps)
	}
	rows, refusal := copyRows(schema, rows)
	if refusal != nil {
		return nil, refusal
	}
	if len(rows) < timesteps {
		return nil, refuse(CodeWindowTooShort, "rows", "%d rows; the window of the model has %d", len(rows), timesteps)
	}
	fitted := rows
	if n := len(rows); n >= minHoldOutRows {
		fitted = rows[:max(int(float64(n)*(1-holdOut)), timesteps)]
	}
	s := fitScaler(fitted)
	meta := newMetadata(LSTMAutoencoder, schema, s, medians(fitted))
	steps := uint32(timesteps)
	meta.Timesteps = &steps
	p := fitPrincipalWindows(s, fitted, timesteps, o.Components)
	if refusal := decide(meta, p, rows, true, o); refusal != nil {
		return nil, refusal
	}
	p.threshold = meta.GetThreshold()
	return inMemory(LSTMAutoencoder, meta, p), nil
}

// principalWindows reconstructs a scaled window as its mean + components^T components (z - mean).
type principalWindows struct {
	scaler
	threshold           float64
	timesteps, features int
	windowMean          []float64
	// components are orthonormal rows, [kept, timesteps*features].
	components [][]float64
}

func fitPrincipalWindows(s scaler, rows [][]float64, timesteps, most int) *principalWindows {
	width := len(s.mean)
	size := width * timesteps
	p := &principalWindows{scaler: s, timesteps: timesteps, features: width, windowMean: make([]float64, size)}
	scaled := make([]float64, 0, len(rows)*width)
	for _, row := range rows {
		for j, x := range row {
			scaled = append(scaled, s.scale1(x, j))
		}
	}
	n := len(rows) - timesteps + 1
	for i := range n {
		for k, z := range scaled[i*width:][:size] {
			p.windowMean[k] += z / float64(n)
		}
	}
	covariance := make([][]float64, size)
	for k := range covariance {
		covariance[k] = make([]float64, size)
	}
	d := make([]float64, size)
	for i := range n {
		for k, z := range scaled[i*width:][:size] {
			d[k] = z - p.windowMean[k]
		}
		for a, da := range d {
			row := covariance[a]
			for b := range a + 1 {
				row[b] += da * d[b] / float64(n)
			}
		}
	}
	total := 0.0
	for a := range covariance {
		total += covariance[a][a]
		for b := range a {
			covariance[b][a] = covariance[a][b]
		}
	}
	values, vectors := symmetricEigen(covariance)
	kept := 0.0
	// At least half of the directions stay out, or every window would be reconstructed.
	for k := 0; k < min(most, size/2) && total > 0 && kept < explainedVariance*total && values[k] > 1e-12*total; k++ {
		kept += values[k]
		p.components = append(p.components, vectors[k])
	}
	return p
}

func (p *principalWindows) score(window []float64, explain Explain, verdict *Verdict) error {
	size := p.timesteps * p.features
	if len(window) != size {
		return fmt.Errorf("a window of %d values, not %d", len(window), size)
	}
	z, r := make([]float64, size), make([]float64, size)
	for k, x := range window {
		z[k] = p.scale1(x, k%p.features)
	}
	copy(r, p.windowMean)
	for _, c := range p.components {
		along := 0.0
		for k := range c {
			along += c[k] * (z[k] - p.windowMean[k])
		}
		for k := range c {
			r[k] += along * c[k]
		}
	}
	parts, total := make([]float64, p.features), 0.0
	for k := range z {
		d := z[k] - r[k]
		parts[k%p.features] += float64(d * d)
	}
	for _, e := range parts {
		total += e
	}
	verdict.Score = float32(total / float64(size))
	verdict.IsAnomaly = float64(verdict.Score) > p.threshold
	verdict.DepthSum = 0
	verdict.Contributions, verdict.Expected = verdict.Contributions[:0], verdict.Expected[:0]
	if explain.wanted(verdict.IsAnomaly) {
		verdict.Contributions = appendShares(verdict.Contributions, parts, total)
		for j, rj := range r[size-p.features:] {
			verdict.Expected = append(verdict.Expected, float32(float64(rj*p.scaler.scale[j])+p.scaler.mean[j]))
		}
	}
	return nil
}

func (p *principalWindows) close() error { return nil }

// symmetricEigen gives eigenvalues, largest first, and their eigenvectors as rows, by cyclic Jacobi rotations (Golub, Van Loan:
// Matrix Computations, section 8.5). It destroys m.
func symmetricEigen(m [][]float64) (values []float64, vectors [][]float64) {
	n := len(m)
	vectors = make([][]float64, n)
	for i := range vectors {
		vectors[i] = make([]float64, n)
		vectors[i][i] = 1
	}
	const sweeps = 30
	for range sweeps {
		off, diagonal := 0.0, 0.0
		for i := range m {
			diagonal += m[i][i] * m[i][i]
			for j := range i {
				off += m[i][j] * m[i][j]
			}
		}
		if off <= 1e-24*diagonal {
			break
		}
		for i := range m {
			for j := range i {
				rotate(m, vectors, j, i)
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m[b][b], m[a][a]) })
	sorted := make([][]float64, n)
	for k, i := range order {
		values = append(values, m[i][i])
		sorted[k] = vectors[i]
	}
	return values, sorted
}

// rotate makes m[p][q] zero; rows of vectors are the eigenvectors.
func rotate(m, vectors [][]float64, p, q int) {
	if m[p][q] == 0 {
		return
	}
	theta := (m[q][q] - m[p][p]) / (2 * m[p][q])
	t := math.Copysign(1/(math.Abs(theta)+math.Hypot(theta, 1)), theta)
	c := 1 / math.Hypot(t, 1)
	s := t * c
	for k := range m {
		kp, kq := m[k][p], m[k][q]
		m[k][p], m[k][q] = c*kp-s*kq, s*kp+c*kq
	}
	for k := range m {
		pk, qk := m[p][k], m[q][k]
		m[p][k], m[q][k] = c*pk-s*qk, s*pk+c*qk
		vp, vq := vectors[p][k], vectors[q][k]
		vectors[p][k], vectors[q][k] = c*vp-s*vq, s*vp+c*vq
	}
}
