package anomaly

import (
	"math"
	"math/big"
)

// The gates need exp at about 10,000 places of a window, and an SVM at each support vector; math.Exp would take half of the scoring
// time. What is computed here is q = e^x - 1, because both activations follow from it without cancellation:
//
//	sigmoid(x) = 1 / (2 + q)    with q = e^-x - 1
//	tanh(x)    = -q / (2 + q)   with q = e^-2x - 1
//
// Method (Tang, Table-driven implementation of the exponential function, ACM TOMS 15, 1989): x = (128 k + j) ln2/128 + r,
// e^x = 2^k 2^(j/128) e^r, with 2^(j/128) from a table and e^r from its series, |r| < .0028.

const (
	expTableBits = 7
	expTableSize = 1 << expTableBits
	// roundShift moves the integer nearest to a small number into the low bits of the sum.
	roundShift  = 0x1.8p52
	invLn2Table = math.Log2E * expTableSize
	// ln2/128 in two parts; the first has so few bits that its product with an integer is exact.
	ln2TableHigh = 0x1.62e42fefa0000p-8
	ln2TableLow  = 0x1.cf79abc9e3b39p-47
	// expLimit keeps 2^k in range. sigmoid and tanh are 0, 1 or -1 to the last bit long before.
	expLimit = 700
)

// expEntry is 2^(j/128): its nearest float64 as bits, and what that lacks, relatively.
type expEntry struct {
	bits uint64
	tail float64
}

var expTable = makeExpTable()

func makeExpTable() (table [expTableSize]expEntry) {
	const precision = 160
	root := new(big.Float).SetPrec(precision).SetInt64(2)
	for range expTableBits {
		root.Sqrt(root)
	}
	power := new(big.Float).SetPrec(precision).SetInt64(1)
	for j := range table {
		nearest, _ := power.Float64()
		rest := new(big.Float).SetPrec(precision).SetFloat64(nearest)
		rest.Sub(power, rest)
		tail, _ := rest.Float64()
		table[j] = expEntry{bits: math.Float64bits(nearest), tail: tail / nearest}
		power.Mul(power, root)
	}
	return table
}

// reduceExp gives r of the method, and 128 k + j in the low bits of nearest. Values beyond expLimit count as that.
//
// It and expSeries stand apart because the compiler puts functions of this size into the loops that call them, and no larger ones.
func reduceExp(x float64) (r float64, nearest uint64) {
	if x > expLimit {
		x = expLimit
	}
	if x < -expLimit {
		x = -expLimit
	}
	shifted := float64(x*invLn2Table) + roundShift
	n := shifted - roundShift
	return x - float64(n*ln2TableHigh) - float64(n*ln2TableLow), math.Float64bits(shifted)
}

// expSeries gives s = 2^k 2^(j/128) and p with e^x = s + s*p, from what reduceExp gives.
func expSeries(r float64, nearest uint64) (s, p float64) {
	entry := &expTable[nearest%expTableSize]
	r2 := float64(r * r)
	low := 1.0/2 + float64(r*(1.0/6))
	high := 1.0/24 + float64(r*(1.0/120)) + float64(r2*(1.0/720))
	return math.Float64frombits(entry.bits + nearest>>expTableBits<<52), entry.tail + r + float64(r2*(low+float64(r2*high)))
}

// expm1All replaces every value x by e^x - 1, to within 2 units in the last place for |x| <= 700. Values beyond count as 700.
func expm1All(values []float64) {
	for i, x := range values {
		s, p := expSeries(reduceExp(x))
		values[i] = (s - 1) + float64(s*p)
	}
}

// expAndExpm1 replaces every value x by e^x and gives e^x - 1, both to within 2 units in the last place for |x| <= 700. Values beyond
// count as 700. A kernel needs both: neither follows from the other without cancellation (rules SV2, SV3).
func expAndExpm1(values *lanes) (expm1 lanes) {
	for i, x := range values {
		s, p := expSeries(reduceExp(x))
		values[i] = s + float64(s*p)
		expm1[i] = (s - 1) + float64(s*p)
	}
	return expm1
}
