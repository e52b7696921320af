package anomaly

import "math"

// laneRows is the number of training rows whose distances are computed side by side. Eight sums hide the latency of the additions and
// fit the registers.
const laneRows = 8

// lanes has one value of each of laneRows rows.
type lanes [laneRows]float64

// trainingRows are scaled training rows, laid out for distances from a sample: blocks of laneRows rows, each block feature by
// feature, so that the rows of a block advance together while the sum of each row keeps its order (rule LF1).
type trainingRows struct {
	features, count int
	// values has `features` lanes for each block. The last block is filled up with rows that are infinitely far.
	values []lanes
}

// newTrainingRows scales and lays out rows [count, features] in raw units (rule S1).
func newTrainingRows(s scaler, rows []float64) *trainingRows {
	features := len(s.mean)
	t := &trainingRows{features: features, count: len(rows) / features}
	t.values = make([]lanes, t.blocks()*features)
	for i := range t.values {
		for l := range t.values[i] {
			t.values[i][l] = math.Inf(1)
		}
	}
	for k, x := range rows {
		row, j := k/features, k%features
		t.values[row/laneRows*features+j][row%laneRows] = s.scale1(x, j)
	}
	return t
}

func (t *trainingRows) blocks() int { return (t.count + laneRows - 1) / laneRows }

// value is the scaled value of feature j of a row.
func (t *trainingRows) value(row, j int) float64 {
	return t.values[row/laneRows*t.features+j][row%laneRows]
}

// squaredDistances are the squared distances of a scaled sample from the rows of a block (rule LF1): each is a sum in schema
// order, no operation fused with another. It is +Inf for rows that fill up the last block.
func (t *trainingRows) squaredDistances(block int, z []float64) lanes {
	rows := t.values[block*t.features:][:len(z)]
	var s0, s1, s2, s3, s4, s5, s6, s7 float64
	for j, x := range z {
		// A square has no sign, and row - sample leaves the sample in its register.
		r := &rows[j]
		d0 := r[0] - x
		s0 += float64(d0 * d0)
		d1 := r[1] - x
		s1 += float64(d1 * d1)
		d2 := r[2] - x
		s2 += float64(d2 * d2)
		d3 := r[3] - x
		s3 += float64(d3 * d3)
		d4 := r[4] - x
		s4 += float64(d4 * d4)
		d5 := r[5] - x
		s5 += float64(d5 * d5)
		d6 := r[6] - x
		s6 += float64(d6 * d6)
		d7 := r[7] - x
		s7 += float64(d7 * d7)
	}
	return lanes{s0, s1, s2, s3, s4, s5, s6, s7}
}
