//go:build !race

package anomaly

// raceEnabled says whether the race detector is on: it makes sync.Pool drop objects at random, so allocations cannot be counted.
const raceEnabled = false
