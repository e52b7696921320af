package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// live is the model set in use with all that follows from it. It never changes: a reload puts another one in its place, and a call
// works with the one that it loaded when it began (rule R2). Nobody closes the one that was replaced: the native backend holds memory
// alone, which is free as soon as the last call lets go of it.
type live struct {
	scorer anomaly.Scorer
	id     string
	// fleet is what chooses a set for each series; nil for a single set. Then scorer is nil, and there are no models.
	fleet *fleet
	// modelSet is the answer of GetModelSet.
	modelSet *anomalyv1.GetModelSetResponse
	// models has an entry for each detector that can be scored, by its number.
	models [lastDetector + 1]*model
	// opened is when it came into use; written, when its manifest was written, zero when that is not known.
	opened, written time.Time
}

const lastDetector = int(anomaly.Mahalanobis)

// model is what the server knows of one detector of the live set.
type model struct {
	detector anomaly.Detector
	// window is the number of samples that are scored at once; windowed says that the model has one, be it of a single sample (rule W2).
	window   int
	windowed bool
	features []string
	// budget is the share of normal samples that may alarm (rule M4); 0 when nobody knows.
	budget float64
	counts *modelCounts
	recent *recent
}

// served is what a server answers with: a Scorer with one model set, or an *anomaly.Fleet.
type served interface{ ID() string }

// newLive describes a scorer or a fleet. The last driftWindow rows of each detector are kept to see drift by (rule DR6); 0 keeps none.
func newLive(s served, m *metrics, driftWindow int) *live {
	if all, ok := s.(*anomaly.Fleet); ok {
		return newFleetLive(all, m)
	}
	scorer := s.(anomaly.Scorer)
	l := &live{scorer: scorer, id: scorer.ID(), modelSet: describe(scorer), opened: time.Now()}
	for _, d := range anomaly.Detectors() {
		if metadata := scorer.Metadata(d); metadata != nil {
			names := metadata.GetFeatureNames()
			l.models[d] = &model{
				detector: d, window: anomaly.WindowLength(scorer, d), windowed: metadata.Timesteps != nil, features: names,
				budget: trainedShare(metadata), counts: m.model(d, names),
				recent: newRecent(anomaly.DriftReferenceOf(scorer, d), len(names), driftWindow),
			}
		}
	}
	if set, ok := scorer.(*anomaly.ModelSet); ok {
		if info, err := os.Stat(filepath.Join(set.Dir(), anomaly.ManifestFile)); err == nil {
			l.written = info.ModTime()
		}
	}
	return l
}

// model gives what is known of a detector; nil when it cannot be scored.
func (l *live) model(d anomaly.Detector) *model {
	if d < 0 || int(d) > lastDetector {
		return nil
	}
	return l.models[d]
}

// check gives the first fault of a target in the order of E2: detector, then model set. These the scorer refuses.
func (l *live) check(ctx context.Context, t target) error {
	err := l.scorer.Score(ctx, anomaly.Request{Detector: t.detector, ModelSetID: t.modelSetID}, new(anomaly.Verdict))
	if errors.Is(err, anomaly.CodeNoSamples) {
		return nil
	}
	return err
}

// describe is the answer of GetModelSet: metadata of the models that can be scored, without what only this server needs: calibration
// scores, history and drift reference.
func describe(scorer anomaly.Scorer) *anomalyv1.GetModelSetResponse {
	answer := &anomalyv1.GetModelSetResponse{ModelSetId: scorer.ID()}
	for _, d := range anomaly.Detectors() {
		metadata := scorer.Metadata(d)
		if metadata == nil {
			continue
		}
		answer.Models = append(answer.Models, anomaly.Published(metadata))
	}
	return answer
}
