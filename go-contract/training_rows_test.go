package anomaly

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainSquaredDistance is LF1 as it is written. math.FMA is never used: every product is rounded before it is added.
func plainSquaredDistance(a, b []float64) float64 {
	sum := 0.0
	for j := range a {
		square := float64((a[j] - b[j]) * (a[j] - b[j]))
		sum = float64(sum + square)
	}
	return sum
}

func TestSquaredDistancesHaveTheBitsOfThePlainSum(t *testing.T) {
	random := rand.New(rand.NewPCG(31, 32))
	for _, features := range []int{1, 2, 7, 38, 87} {
		for _, count := range []int{1, 7, 8, 9, 33} {
			s := randomScaler(random, features)
			raw := randomRows(random, s, count)
			rows := newTrainingRows(s, raw)
			require.Equal(t, count, rows.count)
			fused := 0
			for range 50 {
				z := scaleRow(s, randomRows(random, s, 1))
				for i := range rows.blocks() * laneRows {
					got := rows.squaredDistances(i/laneRows, z)[i%laneRows]
					if i >= count {
						require.True(t, math.IsInf(got, 1), "rows that fill up a block are infinitely far")
						continue
					}
					row := scaleRow(s, raw[i*features:][:features])
					require.Equal(t, math.Float64bits(plainSquaredDistance(z, row)), math.Float64bits(got))
					other := 0.0
					for j := range z {
						require.Equal(t, row[j], rows.value(i, j))
						other = math.FMA(z[j]-row[j], z[j]-row[j], other)
					}
					if other != got {
						fused++
					}
				}
			}
			if features > 2 {
				require.NotZero(t, fused, "the test would not see a fused multiply-add")
			}
		}
	}
}
