//go:build !race

package server

// raceEnabled says whether the race detector slows everything down.
const raceEnabled = false
