package anomaly

// zLimit bounds scaled values, so that every finite input has a finite score (rule S1).
const zLimit = 1e15

// scaler is z = clamp((x - mean) / scale) in float64 (rule S1). mean and scale are in raw units.
type scaler struct{ mean, scale []float64 }

// scale1 scales a value of feature j. Each operation rounds on its own; an overflow is an infinity that the clamp makes
// finite. There is no 0/0 and no inf/inf: scale is finite and above 0.
func (s scaler) scale1(x float64, j int) float64 {
	z := float64(x-s.mean[j]) / s.scale[j]
	if z > zLimit {
		return zLimit
	}
	if z < -zLimit {
		return -zLimit
	}
	return z
}

// scaleWindow writes the scaled values of a window, sample after sample, to z.
func (s scaler) scaleWindow(z, window []float64) {
	for k, j := 0, 0; k < len(window); k++ {
		z[k] = s.scale1(window[k], j)
		if j++; j == len(s.mean) {
			j = 0
		}
	}
}

// references gives reference values as scorers use them: scaled (rule IF8), and as they are published (rule P1).
func (s scaler) references(raw []float64) (scaled []float64, published []float32) {
	for j, r := range raw {
		scaled = append(scaled, s.scale1(r, j))
		published = append(published, float32(r))
	}
	return scaled, published
}

// squaresApart fills parts, one for each feature, with the sums over a scaled window of (z - from)^2, and gives the sum of the parts
// (rules DA3, SV4, LC4).
func squaresApart(parts, z, from []float64) (total float64) {
	clear(parts)
	for start := 0; start < len(z); start += len(parts) {
		for j, x := range z[start:][:len(parts)] {
			d := x - from[j]
			parts[j] += float64(d * d)
		}
	}
	for _, part := range parts {
		total += part
	}
	return total
}
