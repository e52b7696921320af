package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	anomaly "dwcp.internal/anomaly"
)

// idleBytes of memory are allocated and never touched, so they cost nothing. But the garbage collector, which waits until the memory in
// use has doubled, counts them in: with the few MB of a model set alone it runs dozens of times a second, which was measured to take
// a fifth of the CPU time of all calls.
const idleBytes = 10 << 20

// fleetGCPercent is how much of the memory in use may be garbage before it is collected, in a process with a fleet. Its sets are large
// and have next to no pointers: collecting costs little, and 2,000 of them stay under 1 GB (tests/bench/fleet.py).
const fleetGCPercent = 40

// Run opens the model set, serves until the first signal and stops gracefully; a second signal ends calls in flight. SIGHUP asks for a
// reload instead. It prints one line when it answers: `ready ADDRESS... model_set=ID`. An error is a StartError or, for the model set,
// an *anomaly.Error.
func Run(settings Settings, signals <-chan os.Signal, out io.Writer, log *slog.Logger) error {
	if err := settings.check(); err != nil { // before the set is opened, which takes longer
		return err
	}
	idle := make([]byte, idleBytes)
	defer runtime.KeepAlive(idle)
	seen := lookAt(settings.Models)
	set, err := openServed(settings.Models, settings)
	if err != nil {
		return err
	}
	if _, told := os.LookupEnv("GOGC"); anomaly.IsFleet(settings.Models) && !told {
		debug.SetGCPercent(fleetGCPercent)
	}
	s, err := newServer(set, seen, settings, log)
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go tidy(ctx)
	line := fmt.Sprintf("ready %s model_set=%s\n", strings.Join(s.Addresses, " "), set.ID())
	if settings.ReadyFile != "" {
		if err := writeReadyFile(settings.ReadyFile, line); err != nil {
			cancel()
			s.Stop(ctx)
			return err
		}
		defer os.Remove(settings.ReadyFile)
	}
	fmt.Fprint(out, line)
	if s.MetricsAddress != "" {
		log.Info("metrics are served", "url", "http://"+s.MetricsAddress+"/metrics")
	}
	s.untilStop(ctx, signals)
	ctx, cancel = context.WithTimeout(ctx, settings.Grace)
	defer cancel()
	go func() {
		s.untilStop(ctx, signals)
		cancel()
	}()
	s.Stop(ctx)
	return nil
}

// untilStop waits for a signal that is not SIGHUP, or for the end of ctx. At SIGHUP the server reloads, as Reload does; the outcome is
// in the log.
func (s *Server) untilStop(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case signal := <-signals:
			if signal != syscall.SIGHUP {
				return
			}
			s.service.reloader.join()
		case <-ctx.Done():
			return
		}
	}
}

// writeReadyFile writes the ready line so that a reader never sees half of it.
func writeReadyFile(path, line string) error {
	draft := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	err := os.WriteFile(draft, []byte(line), 0o644)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		os.Remove(draft)
		return cannotStart("--ready-file %s: it cannot be written; choose a folder that can be written to", path)
	}
	return nil
}
