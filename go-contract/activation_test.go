package anomaly

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// ulps is the distance of two values in units in the last place of want.
func ulps(got, want float64) float64 {
	return math.Abs(got-want) / (math.Nextafter(math.Abs(want), math.Inf(1)) - math.Abs(want))
}

func TestActivationsAgreeWithMath(t *testing.T) {
	worst := map[string]float64{}
	check := func(name string, x, got, want float64) {
		t.Helper()
		e := ulps(got, want)
		require.LessOrEqual(t, e, 6.0, "%s(%v) = %v, want %v", name, x, got, want)
		worst[name] = max(worst[name], e)
	}
	try := func(x float64) {
		q := [1]float64{x}
		expm1All(q[:])
		check("expm1", x, q[0], math.Expm1(x))
		check("sigmoid", x, sigmoid(x), 1/(1+math.Exp(-x)))
		check("tanh", x, tanh(x), math.Tanh(x))
	}
	n := 400_000
	if raceEnabled {
		n /= 20
	}
	for i := range n {
		try(80 * (float64(i)/float64(n) - .5)) // -40 to 40
	}
	for exponent := -300; exponent < 2; exponent++ { // small values, where exp(x)-1 would cancel
		for _, m := range []float64{1, 1.234567, 1.9999} {
			try(m * math.Pow(10, float64(exponent)))
			try(-m * math.Pow(10, float64(exponent)))
		}
	}
	t.Log("largest error in units in the last place:", worst)
}

func TestActivationsAtTheEnds(t *testing.T) {
	for _, x := range []float64{800, 1e15, 1e300, math.MaxFloat64} {
		require.Equal(t, 1.0, sigmoid(x))
		require.Less(t, sigmoid(-x), 1e-300)
		require.Equal(t, 1.0, tanh(x))
		require.Equal(t, -1.0, tanh(-x))
	}
	require.Equal(t, .5, sigmoid(0))
	require.Equal(t, 0.0, tanh(0))
}
