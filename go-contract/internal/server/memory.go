package server

import (
	"context"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// tidyEvery is how often memory that is free is looked for, and tidyBytes how much of it is worth a collection.
const (
	tidyEvery = 10 * time.Second
	tidyBytes = 4 << 20
)

// tidy gives free memory back to the system until ctx is done. The runtime does so by itself, but takes its time: what one burst of
// large requests needed would be held for minutes.
func tidy(ctx context.Context) {
	free := []runtimemetrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if runtimemetrics.Read(free); free[0].Value.Uint64() > tidyBytes {
			debug.FreeOSMemory()
		}
	}
}
