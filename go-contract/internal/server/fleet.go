package server

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// fleet is a fleet with what the server knows of the models of all its sets.
type fleet struct {
	all      *anomaly.Fleet
	features []string
	metrics  *metrics

	// models has one entry for all models that look alike to the server: with thousands of sets there are a few of them.
	mutex  sync.RWMutex
	models map[modelKind]*model
}

// modelKind is what the server sees of a model; features are those of the fleet.
type modelKind struct {
	detector anomaly.Detector
	window   int
	windowed bool
}

// newFleetLive describes a fleet. Its GetModelSet answers with the id of the fleet alone (rule FL9).
func newFleetLive(all *anomaly.Fleet, m *metrics) *live {
	f := &fleet{all: all, features: all.FeatureNames(), metrics: m, models: map[modelKind]*model{}}
	l := &live{fleet: f, id: all.ID(), modelSet: &anomalyv1.GetModelSetResponse{FleetId: all.ID()}, opened: time.Now()}
	if info, err := os.Stat(filepath.Join(all.Dir(), anomaly.FleetFile)); err == nil {
		l.written = info.ModTime()
	}
	return l
}

// choose gives what answers for a series: of a fleet the set of that series, opened now if need be (rules FL2 to FL4).
func (l *live) choose(series string) (*live, error) {
	if l.fleet == nil {
		return l, anomaly.CheckSeries(series)
	}
	set, err := l.fleet.all.Set(series)
	if err != nil {
		return nil, err
	}
	return l.fleet.live(set), nil
}

// live describes one set. It is made for each request, which costs less than to keep it beside every set.
func (f *fleet) live(set *anomaly.ModelSet) *live {
	l := &live{scorer: set, id: set.ID()}
	for _, d := range anomaly.Detectors() {
		if metadata := set.Metadata(d); metadata != nil {
			l.models[d] = f.model(modelKind{d, anomaly.WindowLength(set, d), metadata.Timesteps != nil})
		}
	}
	return l
}

func (f *fleet) model(kind modelKind) *model {
	f.mutex.RLock()
	m := f.models[kind]
	f.mutex.RUnlock()
	if m != nil {
		return m
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if m = f.models[kind]; m == nil {
		m = &model{
			detector: kind.detector, window: kind.window, windowed: kind.windowed, features: f.features,
			counts: f.metrics.model(kind.detector, f.features),
		}
		f.models[kind] = m
	}
	return m
}

// check gives the first fault of the settings of a stream: a detector that there is not at all, or another fleet than the one that is
// wanted (rule FL8).
func (f *fleet) check(_ context.Context, t target) error {
	if !slices.Contains(anomaly.Detectors(), t.detector) {
		return sampleError(anomaly.CodeUnknownDetector, "detector", "%d is not a detector", t.detector)
	}
	if t.modelSetID != "" && t.modelSetID != f.all.ID() {
		return sampleError(anomaly.CodeModelSetMismatch, "model_set_id", "the stream wants %s; in use is the fleet %s", t.modelSetID, f.all.ID())
	}
	return nil
}
