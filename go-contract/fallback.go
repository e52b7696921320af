package anomaly

import (
	"context"
	"errors"
	"sync/atomic"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Fallback asks a sidecar first and falls back on a local model set when the sidecar gives no answer. Both give the same scores:
// the sidecar is held to the id of the local set, with every call. What the sidecar refuses because of the input is refused: the
// local set would say the same.
//
// A sidecar that failed several times in a row is left alone for a while, so that one that hangs does not cost every call its
// deadline. The while is a tenth of a second at first and up to five seconds; then one call tries again, and when it is answered,
// all do.
type Fallback struct {
	local   *ModelSet
	sidecar *Sidecar
	rest    rest
	counts  struct{ sidecar, unavailable, overloaded, deadline, mismatch, other, resting atomic.Uint64 }
}

// NewFallback prepares connections to the sidecar at address, which may be several (DialSidecar). It does not wait for them: a
// sidecar that is down now may come later. Nothing is sent again unless WithRetries says so, since the local set answers faster.
func NewFallback(local *ModelSet, address string, opts ...SidecarOption) (*Fallback, error) {
	opts = append([]SidecarOption{WithRetries(0)}, opts...)
	s, err := newSidecar(address, append(opts, WithModelSetID(local.ID())))
	if err != nil {
		return nil, err
	}
	return &Fallback{local: local, sidecar: s}, nil
}

// Score scores with the sidecar, or else locally. remote is nil when the sidecar gave the verdict or refused the input, else why it
// did not.
func (f *Fallback) Score(ctx context.Context, request Request, verdict *Verdict) (remote, err error) {
	return f.either(ctx, request.Detector, func(s Scorer) error { return s.Score(ctx, request, verdict) })
}

// ScoreBatch scores many samples or windows as Score does one.
func (f *Fallback) ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) (remote, err error) {
	return f.either(ctx, request.Detector, func(s Scorer) error { return s.ScoreBatch(ctx, request, verdict) })
}

func (f *Fallback) either(ctx context.Context, detector Detector, score func(Scorer) error) (remote, err error) {
	if remote = f.rest.asleep(); remote == nil {
		remote = score(f.sidecar)
		switch {
		case remote == nil || f.ofInput(remote, detector):
			f.rest.answered()
			f.counts.sidecar.Add(1)
			return nil, remote
		case ctx.Err() != nil: // the caller gave up; its answer is not "the sidecar is down"
			f.rest.gaveUp()
			return remote, callFailed(ctx, remote, 1)
		}
		f.rest.failed()
	}
	f.count(remote)
	return remote, score(f.local)
}

// ofInput says whether a refusal would be the local set's too.
func (f *Fallback) ofInput(err error, detector Detector) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case CodeInvalidRequest, CodeNoSamples, CodeTooManySamples, CodeWrongWidth, CodeNotFinite, CodeWindowTooShort, CodeBatchTooLarge:
		return true
	case CodeUnknownDetector, CodeDetectorUnavailable: // checked before the model set is (rule E2): the sidecar may have another
		return f.local.Metadata(detector) == nil
	}
	return false
}

func (f *Fallback) count(remote error) {
	c := &f.counts.other
	switch {
	case errors.Is(remote, errResting):
		c = &f.counts.resting
	case errors.Is(remote, ErrUnavailable):
		c = &f.counts.unavailable
	case errors.Is(remote, ErrOverloaded):
		c = &f.counts.overloaded
	case errors.Is(remote, context.DeadlineExceeded):
		c = &f.counts.deadline
	case errors.Is(remote, CodeModelSetMismatch):
		c = &f.counts.mismatch
	}
	c.Add(1)
}

// FallbackCounts are totals since NewFallback.
type FallbackCounts struct {
	// Sidecar counts calls that the sidecar answered, refusals of the input included.
	Sidecar uint64
	// The rest are calls that were scored locally: because the sidecar was unavailable, overloaded, too slow, had another model
	// set, failed otherwise, or was not asked because it had failed just before.
	Unavailable, Overloaded, Deadline, Mismatch, Other, Resting uint64
}

// Local counts calls that were scored locally.
func (c FallbackCounts) Local() uint64 {
	return c.Unavailable + c.Overloaded + c.Deadline + c.Mismatch + c.Other + c.Resting
}

// Counts says who scored how much, for example to publish as a metric: a sidecar that never answers goes unnoticed otherwise.
func (f *Fallback) Counts() FallbackCounts {
	c := &f.counts
	return FallbackCounts{
		Sidecar: c.sidecar.Load(), Unavailable: c.unavailable.Load(), Overloaded: c.overloaded.Load(), Deadline: c.deadline.Load(),
		Mismatch: c.mismatch.Load(), Other: c.other.Load(), Resting: c.resting.Load(),
	}
}

// Metadata is that of the local set.
func (f *Fallback) Metadata(detector Detector) *anomalyv1.ModelMetadata {
	return f.local.Metadata(detector)
}

// Close closes the connections; the local set stays open.
func (f *Fallback) Close() error { return f.sidecar.Close() }
