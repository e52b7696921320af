package anomaly

import (
	"context"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// DefaultMaxSets is how many sets of a fleet stay open. One with a forest of 100 trees takes 0.28 MB, and 0.4 MB with what
// is yet to be collected (tests/bench/fleet.py).
const DefaultMaxSets = 2000

// refusedFor is how long a set that is refused is not tried again (rule FL4).
const refusedFor = time.Minute

// Fleet is many model sets, each opened when a series first needs it, at most so many open at a time (rules FL1 to FL7). It is safe
// for concurrent use.
//
//	fleet, err := anomaly.OpenFleet("models/fleet", anomaly.WithMaxSets(500))
//	...
//	err = fleet.Score(ctx, anomaly.Request{Series: "link-7", Detector: anomaly.IsolationForest, Samples: samples}, &verdict)
type Fleet struct {
	index   *fleetIndex
	cache   *lazyCache[*ModelSet]
	options options
	refused atomic.Pointer[func(id string, refusal *Error)]
}

// FleetCounts says what a fleet has done with its sets.
type FleetCounts struct {
	// Open is how many sets are open now.
	Open int
	// Opened, Closed and Failed are totals; Failed are those that were refused.
	Opened, Closed, Failed uint64
	// Hits are requests that found their set open, or being opened.
	Hits uint64
}

// WithMaxSets sets how many sets of a fleet are open at most; the default is DefaultMaxSets. Other openers do not look at it.
func WithMaxSets(n int) Option { return func(o *options) { o.maxSets = max(n, 1) } }

// OpenFleet opens the fleet in a folder: it reads and checks fleet.json alone (rule FL6). Options are those of OpenModelSet, for each
// of its sets, with the native backend; and WithMaxSets. What is wrong with the index is an *Error with the field fleet.json.
func OpenFleet(path string, opts ...Option) (*Fleet, error) {
	o := options{backend: Native, maxSets: DefaultMaxSets}
	for _, opt := range opts {
		opt(&o)
	}
	if o.backend != Native {
		return nil, refuse(CodeInvalidRequest, "backend", "%s is no backend of a fleet; use %s", o.backend, Native)
	}
	o.compact = true
	index, refusal := readFleetIndex(path)
	if refusal != nil {
		return nil, refusal
	}
	return &Fleet{index: index, cache: newLazyCache[*ModelSet](o.maxSets, runtime.GOMAXPROCS(0), refusedFor), options: o}, nil
}

// Reopen gives the fleet that a folder holds now, with the open sets of this one. This one stays usable; when the new one is in use,
// TakeOver closes what only this one needs (rule FL7).
func (f *Fleet) Reopen(path string) (*Fleet, error) {
	index, refusal := readFleetIndex(path)
	if refusal != nil {
		return nil, refusal
	}
	next := &Fleet{index: index, cache: f.cache, options: f.options}
	next.refused.Store(f.refused.Load())
	return next, nil
}

// TakeOver closes the sets of the former index that this one does not name, all of them when its features are others, and lets
// refused sets be tried again (rules FL4, FL7).
func (f *Fleet) TakeOver(former *Fleet) {
	has := f.index.has()
	same := sameFeatures(f.index.features, former.index.features)
	f.cache.retain(func(id string) bool { return same && has(id) })
}

// OnRefused has refused called with each set that is refused, from the goroutine that needed it. One function at a time.
func (f *Fleet) OnRefused(refused func(id string, refusal *Error)) { f.refused.Store(&refused) }

// ID is the id of the fleet: the SHA-256 of fleet.json (rule FL1).
func (f *Fleet) ID() string { return f.index.id }

// Dir is the folder that the index was read from, links resolved.
func (f *Fleet) Dir() string { return f.index.dir }

// Len is the number of series that the index lists.
func (f *Fleet) Len() int { return len(f.index.sets) }

// FeatureNames are those of all sets, in the order of a sample's values.
func (f *Fleet) FeatureNames() []string {
	names := make([]string, len(f.index.features))
	for j, feature := range f.index.features {
		names[j] = feature[0]
	}
	return names
}

// Counts says how many sets are open, and what was done so far.
func (f *Fleet) Counts() FleetCounts { return f.cache.count() }

// Set gives the open model set of a series, opened now if need be. Hold it for a request or two and not for longer: what is held is in
// memory whatever WithMaxSets says. The error is an *Error with the field series: INVALID_REQUEST, UNKNOWN_SERIES, or
// DETECTOR_UNAVAILABLE for a set that is refused (rules FL3, FL4).
func (f *Fleet) Set(series string) (*ModelSet, error) {
	id, refusal := f.index.set(series)
	if refusal != nil {
		return nil, refusal
	}
	set, refusal := f.cache.get(id, func() (*ModelSet, *Error) { return f.open(id) })
	if refusal != nil {
		return nil, refusal
	}
	return set, nil
}

// Score scores one sample or window of request.Series with the set of that series.
func (f *Fleet) Score(ctx context.Context, request Request, verdict *Verdict) error {
	set, err := f.Set(request.Series)
	if err != nil {
		return err
	}
	return set.Score(ctx, request, verdict)
}

// ScoreBatch scores many samples or windows of request.Series with the set of that series.
func (f *Fleet) ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) error {
	set, err := f.Set(request.Series)
	if err != nil {
		return err
	}
	return set.ScoreBatch(ctx, request, verdict)
}

// Close lets go of all sets that are open. Calls that use one finish; a later one opens its set again.
func (f *Fleet) Close() error {
	f.cache.retain(func(string) bool { return false })
	return nil
}

// open opens the set of an id (rule FL4).
func (f *Fleet) open(id string) (*ModelSet, *Error) {
	set, refusal := openModelSet(filepath.Join(f.index.dir, fleetSets, id[:16]), f.options)
	if refusal == nil {
		refusal = f.check(set, id)
	}
	if refusal == nil {
		return set, nil
	}
	if refused := f.refused.Load(); refused != nil {
		(*refused)(id, refusal)
	}
	return nil, refuse(CodeDetectorUnavailable, "series", "model set %s of this series is refused: %s: %w", id[:16], refusal.Code, refusal)
}

// check refuses a set that is not the one that the index names, or has other features than the fleet.
func (f *Fleet) check(set *ModelSet, id string) *Error {
	if set.id != id {
		return refuse(CodeDigestMismatch, ManifestFile, "the set in %s is %s; the index says %s", filepath.Base(set.dir), set.id, id)
	}
	for detector, metadata := range set.metadata {
		if features := schemaFeatures(metadata.GetFeatureSchema()); !sameFeatures(features, f.index.features) {
			return refuse(CodeMetadataInvalid, "feature_schema", "%s has the features %v; the fleet has %v", detector, features, f.index.features)
		}
	}
	return nil
}

func schemaFeatures(schema *anomalyv1.FeatureSchema) (features [][2]string) {
	for _, f := range schema.GetFeatures() {
		features = append(features, [2]string{f.GetName(), f.GetUnit()})
	}
	return features
}

func sameFeatures(a, b [][2]string) bool { return slices.Equal(a, b) }
