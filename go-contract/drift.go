package anomaly

import (
	"math"
	"sort"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// FeatureDrift says how far recent rows of one feature are from the training rows.
type FeatureDrift struct {
	// PSI is the population stability index (rule DR2), Wasserstein the distance in training standard deviations (rule DR3).
	PSI, Wasserstein float64
	// PSICritical and WassersteinCritical are what rows without drift exceed at the nominal rate (rule DR4).
	PSICritical, WassersteinCritical float64
	// Drifted says that a statistic exceeds both its critical value and its threshold (rule DR5).
	Drifted bool
}

// DriftReference is what recent rows are compared with, for all features of a model (rules DR1 to DR5). It never changes and is safe
// for concurrent use.
type DriftReference struct {
	features                           []driftBins
	sizes                              []uint32
	psiThreshold, wassersteinThreshold float64
}

// driftBins are the training rows of one feature.
type driftBins struct {
	edges, shares            []float64
	scale                    float64
	psiCritical, farCritical []float64
	groups                   []int
	groupCounts              []int64
	bins                     int
	rows                     float64
}

// DriftReferenceOf gives the reference of a detector; nil when it has none. An ensemble has that of its first member that has one: all
// of them score the same rows (rule DR6).
func DriftReferenceOf(scorer Scorer, detector Detector) *DriftReference {
	metadata := scorer.Metadata(detector)
	if metadata == nil {
		return nil
	}
	if r := newDriftReference(metadata.GetDrift()); r != nil {
		return r
	}
	for _, member := range metadata.GetEnsemble().GetMembers() {
		if r := newDriftReference(scorer.Metadata(Detector(member.GetDetector())).GetDrift()); r != nil {
			return r
		}
	}
	return nil
}

// newDriftReference takes an audited message; nil for none.
func newDriftReference(d *anomalyv1.DriftReference) *DriftReference {
	if d == nil {
		return nil
	}
	r := &DriftReference{sizes: d.GetSizes(), psiThreshold: d.GetPsiThreshold(), wassersteinThreshold: d.GetWassersteinThreshold()}
	for _, f := range d.GetFeatures() {
		r.features = append(r.features, newDriftBins(f))
	}
	return r
}

func newDriftBins(f *anomalyv1.DriftFeature) driftBins {
	b := driftBins{
		edges: f.GetEdges(), scale: f.GetScale(), psiCritical: f.GetPsiCritical(), farCritical: f.GetWassersteinCritical(),
		bins: len(f.GetCounts()),
	}
	var rows, held int64
	for _, count := range f.GetCounts() {
		rows += int64(count)
	}
	for _, count := range f.GetCounts()[:len(b.edges)] {
		held += int64(count)
		b.shares = append(b.shares, float64(held)/float64(rows))
	}
	b.groups = driftGroups(f.GetCounts(), rows)
	b.groupCounts = b.grouped(func(bin int) int64 { return int64(f.GetCounts()[bin]) })
	b.rows = float64(rows)
	return b
}

// driftGroups gives the first bin of each group of DR2: the first bin, joined inner ones, the last bin. Inner bins that are left over
// belong to the group before them.
func driftGroups(counts []uint32, rows int64) []int {
	last := len(counts) - 1
	groups, begin, held := []int{0}, 1, int64(0)
	for i := 1; i < last; i++ {
		held += int64(counts[i])
		if 10*held >= rows {
			groups = append(groups, begin)
			begin, held = i+1, 0
		}
	}
	if begin < last && len(groups) == 1 { // only where nearly all rows lie in the first and the last bin
		groups = append(groups, begin)
	}
	return append(groups, last)
}

// grouped sums what each bin has over the groups.
func (b *driftBins) grouped(count func(bin int) int64) []int64 {
	sums := make([]int64, len(b.groups))
	g := 0
	for bin := range b.bins {
		if g+1 < len(b.groups) && bin == b.groups[g+1] {
			g++
		}
		sums[g] += count(bin)
	}
	return sums
}

// Least is the number of rows below which nothing is compared (rule DR4).
func (r *DriftReference) Least() int { return int(r.sizes[0]) }

// Compare compares recent rows, at least Least of them, with the training rows: one answer for each feature, in schema order. The rows
// are raw finite values in schema order, one row after the other.
func (r *DriftReference) Compare(rows []float64) []FeatureDrift {
	width := len(r.features)
	found := make([]FeatureDrift, width)
	for j := range r.features {
		b := &r.features[j]
		counts, beyond := b.count(rows[j:], width)
		f := FeatureDrift{PSI: b.psi(counts), Wasserstein: b.wasserstein(counts, beyond)}
		f.PSICritical = r.critical(b.psiCritical, len(rows)/width)
		f.WassersteinCritical = r.critical(b.farCritical, len(rows)/width)
		f.Drifted = f.PSI > max(f.PSICritical, r.psiThreshold) || f.Wasserstein > max(f.WassersteinCritical, r.wassersteinThreshold)
		found[j] = f
	}
	return found
}

// count gives the rows in each bin (rule DR1) and the sum of the distances beyond the edges of every stride-th value.
func (b *driftBins) count(values []float64, stride int) (counts []int64, beyond float64) {
	counts = make([]int64, b.bins)
	low, high := b.edges[0], b.edges[len(b.edges)-1]
	for i := 0; i < len(values); i += stride {
		x := values[i]
		counts[sort.SearchFloat64s(b.edges, x)]++
		if x < low {
			beyond += low - x
		} else if x > high {
			beyond += x - high
		}
	}
	return counts, beyond
}

// psi is the population stability index (rule DR2).
func (b *driftBins) psi(counts []int64) float64 {
	rows := 0.0
	for _, count := range counts {
		rows += float64(count)
	}
	sum, smooth := 0.0, 0.5*float64(len(b.groups))
	for g, count := range b.grouped(func(bin int) int64 { return counts[bin] }) {
		recent := (float64(count) + 0.5) / (rows + smooth)
		training := (float64(b.groupCounts[g]) + 0.5) / (b.rows + smooth)
		sum += (recent - training) * math.Log(recent/training)
	}
	return sum
}

// wasserstein is the area between the two distribution functions, in training standard deviations (rule DR3).
func (b *driftBins) wasserstein(counts []int64, beyond float64) float64 {
	rows := int64(0)
	for _, count := range counts {
		rows += count
	}
	area, before, held := 0.0, 0.0, int64(0)
	for i, edge := range b.edges {
		held += counts[i]
		apart := math.Abs(float64(held)/float64(rows) - b.shares[i])
		if i > 0 {
			area += (apart + before) / 2 * (edge - b.edges[i-1])
		}
		before = apart
	}
	return min((area+beyond/float64(rows))/b.scale, math.MaxFloat64)
}

// critical interpolates values for the sizes in the logarithm of the number of rows; above the largest size its value holds (rule DR4).
func (r *DriftReference) critical(values []float64, rows int) float64 {
	last := len(r.sizes) - 1
	k := sort.Search(len(r.sizes), func(i int) bool { return int64(r.sizes[i]) > int64(rows) }) - 1
	if k == last {
		return values[last]
	}
	low, high := math.Log(float64(r.sizes[k])), math.Log(float64(r.sizes[k+1]))
	share := (math.Log(float64(rows)) - low) / (high - low)
	return values[k] + share*(values[k+1]-values[k])
}
