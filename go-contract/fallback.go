package anomaly

import (
	"context"
	"errors"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Fallback asks a sidecar first and falls back on a local model set when that fails for any reason. Both give the same scores: the
// sidecar is held to the id of the local set, with every call.
type Fallback struct {
	local   *ModelSet
	sidecar *Sidecar
}

// NewFallback prepares a connection to the sidecar at address. It does not wait for it: a sidecar that is down now may come later.
func NewFallback(local *ModelSet, address string, opts ...SidecarOption) (*Fallback, error) {
	s, err := newSidecar(address, append(opts, WithModelSetID(local.ID())))
	if err != nil {
		return nil, err
	}
	return &Fallback{local: local, sidecar: s}, nil
}

// Score scores with the sidecar, or else locally. remote is nil when the sidecar gave the verdict, else why it did not.
func (f *Fallback) Score(ctx context.Context, request Request, verdict *Verdict) (remote, err error) {
	if remote = f.sidecar.Score(ctx, request, verdict); remote == nil {
		return nil, nil
	}
	if ctx.Err() != nil { // the caller gave up; its answer is not "the sidecar is down"
		return remote, AsError(errors.Join(ctx.Err(), remote))
	}
	return remote, f.local.Score(ctx, request, verdict)
}

// Metadata is that of the local set.
func (f *Fallback) Metadata(detector Detector) *anomalyv1.ModelMetadata {
	return f.local.Metadata(detector)
}

// Close closes the connection; the local set stays open.
func (f *Fallback) Close() error { return f.sidecar.Close() }
