package anomaly

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// reloading is a sidecar whose set can be switched; its Reload gives an outcome.
type reloading struct {
	streamer
	anomalyv1.UnimplementedOperationsServiceServer
	current atomic.Pointer[string]
	refusal error
}

func (f *reloading) GetModelSet(context.Context, *anomalyv1.GetModelSetRequest) (*anomalyv1.GetModelSetResponse, error) {
	models := []*anomalyv1.ModelMetadata{f.set.Metadata(IsolationForest)}
	return &anomalyv1.GetModelSetResponse{ModelSetId: *f.current.Load(), Models: models}, nil
}

func (f *reloading) Score(ctx context.Context, r *anomalyv1.ScoreRequest) (*anomalyv1.ScoreResponse, error) {
	if id := r.GetModelSetId(); id != "" && id != *f.current.Load() {
		return nil, ToStatus(refuse(CodeModelSetMismatch, "model_set_id", "wanted %s", id)).Err()
	}
	reply, err := f.streamer.Score(ctx, r)
	if reply != nil {
		reply.ModelSetId = *f.current.Load()
	}
	return reply, err
}

func (f *reloading) Reload(context.Context, *anomalyv1.ReloadRequest) (*anomalyv1.ReloadResponse, error) {
	if f.refusal != nil {
		return nil, f.refusal
	}
	id := "reloaded"
	changed := *f.current.Swap(&id) != id
	return &anomalyv1.ReloadResponse{ModelSetId: id, Changed: changed}, nil
}

func (f *reloading) use(id string) { f.current.Store(&id) }

func newReloading(t *testing.T) (*reloading, string) {
	f := &reloading{streamer: *newStreamer(t)}
	f.use("first")
	address, _ := serveUnix(t, f)
	return f, address
}

func TestAPinnedSetStaysPinned(t *testing.T) {
	f, address := newReloading(t)
	s := dialFake(t, address)
	var v Verdict
	require.NoError(t, s.Score(t.Context(), oneSample, &v))
	f.use("second")
	for range 3 {
		require.ErrorIs(t, s.Score(t.Context(), oneSample, &v), CodeModelSetMismatch)
	}
	assert.Equal(t, "first", s.ID())
	again := dialFake(t, address)
	require.NoError(t, again.Score(t.Context(), oneSample, &v))
	assert.Equal(t, "second", again.ID())
	_, err := DialSidecar(t.Context(), address, WithModelSetID("first"))
	require.ErrorIs(t, err, CodeModelSetMismatch)
}

func TestFollowingTheModelSet(t *testing.T) {
	f, address := newReloading(t)
	changes := make(chan string, 10)
	s := dialFake(t, address, FollowModelSet(func(id string) { changes <- id }))
	assert.Equal(t, "first", s.ID())
	var v Verdict
	require.NoError(t, s.Score(t.Context(), oneSample, &v))
	f.use("second")
	require.NoError(t, s.Score(t.Context(), oneSample, &v))
	select {
	case id := <-changes:
		assert.Equal(t, "second", id)
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	assert.Equal(t, "second", s.ID())
	assert.NotNil(t, s.Metadata(IsolationForest))
	require.NoError(t, s.Score(t.Context(), oneSample, &v))
	assert.Empty(t, changes)
	request := oneSample
	request.ModelSetID = "first"
	require.ErrorIs(t, s.Score(t.Context(), request, &v), CodeModelSetMismatch, "a request can insist")
}

func TestReloadOverTheClient(t *testing.T) {
	f, address := newReloading(t)
	s := dialFake(t, address, FollowModelSet(nil))
	id, changed, err := s.Reload(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "reloaded", id)
	assert.True(t, changed)
	require.Eventually(t, func() bool { return s.ID() == "reloaded" }, 10*time.Second, time.Millisecond)
	_, changed, err = s.Reload(t.Context())
	require.NoError(t, err)
	assert.False(t, changed)

	refused := status.New(codes.FailedPrecondition, "bytes differ") // as E4 says of the codes of model sets
	details, err := refused.WithDetails(detailsOf(CodeDigestMismatch, "isolation_forest.onnx")...)
	require.NoError(t, err)
	f.refusal = details.Err()
	_, _, err = s.Reload(t.Context())
	require.ErrorIs(t, err, CodeDigestMismatch)
	assert.Equal(t, "isolation_forest.onnx", AsError(err).Field)
	f.refusal = status.Error(codes.PermissionDenied, "not over this address")
	_, _, err = s.Reload(t.Context())
	var failed *CallError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, codes.PermissionDenied, failed.Status)
}

func detailsOf(code Code, field string) []protoadapt.MessageV1 {
	return []protoadapt.MessageV1{
		&errdetails.ErrorInfo{Reason: code.String(), Domain: errorDomain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field}}},
	}
}
