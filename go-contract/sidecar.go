package anomaly

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// DefaultDeadline is how long a call to a sidecar may take unless the caller's context is shorter.
const DefaultDeadline = 250 * time.Millisecond

// Sidecar is the backend that asks a running sidecar over gRPC. It implements Scorer and is safe for concurrent use.
type Sidecar struct {
	connection *grpc.ClientConn
	client     anomalyv1.ScoringServiceClient
	deadline   time.Duration
	id         string
	metadata   map[Detector]*anomalyv1.ModelMetadata
}

var _ Scorer = (*Sidecar)(nil)

type sidecarOptions struct {
	deadline   time.Duration
	modelSetID string
	dial       []grpc.DialOption
}

// SidecarOption changes how a sidecar is asked.
type SidecarOption func(*sidecarOptions)

// WithDeadline sets how long a call may take; 0 means no deadline but that of the caller's context.
func WithDeadline(d time.Duration) SidecarOption {
	return func(o *sidecarOptions) { o.deadline = d }
}

// WithModelSetID refuses a sidecar that has another model set open, now and with every call. Without it, the set that the sidecar
// has open when it is dialled is pinned.
func WithModelSetID(id string) SidecarOption {
	return func(o *sidecarOptions) { o.modelSetID = id }
}

// WithDialOptions adds options of gRPC, for example transport credentials. The default is a plain connection, meant for a unix
// socket or the loopback interface.
func WithDialOptions(options ...grpc.DialOption) SidecarOption {
	return func(o *sidecarOptions) { o.dial = append(o.dial, options...) }
}

// newSidecar prepares a connection without using it.
func newSidecar(address string, opts []SidecarOption) (*Sidecar, error) {
	o := sidecarOptions{deadline: DefaultDeadline}
	for _, opt := range opts {
		opt(&o)
	}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxBatchBytes+1<<20), grpc.MaxCallSendMsgSize(MaxBatchBytes+1<<20)),
	}, o.dial...)
	connection, err := grpc.NewClient(address, dial...)
	if err != nil {
		return nil, refuse(CodeInternal, "", "sidecar %s: %w", address, err)
	}
	return &Sidecar{
		connection: connection, client: anomalyv1.NewScoringServiceClient(connection), deadline: o.deadline, id: o.modelSetID,
		metadata: map[Detector]*anomalyv1.ModelMetadata{},
	}, nil
}

// DialSidecar connects to a sidecar, for example at `127.0.0.1:50051` or `unix:///run/dwcp/sidecar.sock`, and asks it which model
// set it has open.
func DialSidecar(ctx context.Context, address string, opts ...SidecarOption) (*Sidecar, error) {
	s, err := newSidecar(address, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.withDeadline(ctx)
	defer cancel()
	reply, err := s.client.GetModelSet(ctx, &anomalyv1.GetModelSetRequest{})
	if err != nil {
		s.Close()
		return nil, fromStatus(err)
	}
	if s.id != "" && reply.GetModelSetId() != s.id {
		s.Close()
		return nil, refuse(CodeModelSetMismatch, "model_set_id", "wanted %s; the sidecar has %s open", s.id, reply.GetModelSetId())
	}
	s.id = reply.GetModelSetId()
	for _, meta := range reply.GetModels() {
		d, err := ParseDetector(meta.GetModelType())
		if err == nil { // a detector of a later contract cannot be asked for here
			s.metadata[d] = meta
		}
	}
	return s, nil
}

func (s *Sidecar) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.deadline <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.deadline)
}

// ID is the id of the pinned model set.
func (s *Sidecar) ID() string { return s.id }

// Metadata is what the sidecar says about a detector, without calibration scores and training history.
func (s *Sidecar) Metadata(detector Detector) *anomalyv1.ModelMetadata { return s.metadata[detector] }

// Close closes the connection.
func (s *Sidecar) Close() error { return s.connection.Close() }

func (s *Sidecar) pinned(id string) string {
	if id != "" {
		return id
	}
	return s.id
}

func (s *Sidecar) checkID(want, got string) error {
	if got != want {
		return refuse(CodeModelSetMismatch, "model_set_id", "wanted %s; the sidecar answered with %s", want, got)
	}
	return nil
}

// Score asks for the score of one sample or window; the samples are sent along and checked by the sidecar.
func (s *Sidecar) Score(ctx context.Context, request Request, verdict *Verdict) error {
	ctx, cancel := s.withDeadline(ctx)
	defer cancel()
	id := s.pinned(request.ModelSetID)
	message := &anomalyv1.ScoreRequest{
		Detector: anomalyv1.Detector(request.Detector), Explain: anomalyv1.Explain(request.Explain), ModelSetId: id,
		Samples: make([]*anomalyv1.Sample, len(request.Samples)),
	}
	for i, sample := range request.Samples {
		message.Samples[i] = &anomalyv1.Sample{Values: sample}
	}
	reply, err := s.client.Score(ctx, message)
	if err != nil {
		return fromStatus(err)
	}
	v := reply.GetVerdict()
	if v == nil {
		return refuse(CodeInternal, "", "the sidecar answered without a verdict")
	}
	*verdict = Verdict{
		Score: v.GetScore(), IsAnomaly: v.GetIsAnomaly(), Threshold: v.GetThreshold(), PValue: v.GetPValue(), Level: Level(v.GetLevel()),
		Contributions: append(verdict.Contributions[:0], v.GetContributions()...), Expected: append(verdict.Expected[:0], v.GetExpected()...),
		TopFeature: v.GetTopFeature(), DepthSum: v.GetDepthSum(),
	}
	return s.checkID(id, reply.GetModelSetId())
}

// ScoreBatch asks for the scores of many samples or windows in one call.
func (s *Sidecar) ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) error {
	ctx, cancel := s.withDeadline(ctx)
	defer cancel()
	id := s.pinned(request.ModelSetID)
	rows := make([]byte, 0, 8*len(request.Rows))
	for _, x := range request.Rows {
		rows = binary.LittleEndian.AppendUint64(rows, math.Float64bits(x))
	}
	reply, err := s.client.ScoreBatch(ctx, &anomalyv1.ScoreBatchRequest{
		Detector: anomalyv1.Detector(request.Detector), Rows: rows, Layout: anomalyv1.BatchLayout(request.Layout),
		Explain: anomalyv1.Explain(request.Explain), ModelSetId: id,
	})
	if err != nil {
		return fromStatus(err)
	}
	if err := s.checkBatchReply(reply); err != nil {
		return err
	}
	verdict.Scores, verdict.IsAnomaly, verdict.PValues = reply.GetScores(), reply.GetIsAnomaly(), reply.GetPValues()
	verdict.Contributions, verdict.Expected = reply.GetContributions(), reply.GetExpected()
	verdict.DepthSums, verdict.Threshold = reply.GetDepthSums(), reply.GetThreshold()
	verdict.Levels = verdict.Levels[:0]
	for _, l := range reply.GetLevels() {
		verdict.Levels = append(verdict.Levels, Level(l))
	}
	return s.checkID(id, reply.GetModelSetId())
}

// checkBatchReply refuses lists that do not belong together, so that no caller runs off their end.
func (s *Sidecar) checkBatchReply(r *anomalyv1.ScoreBatchResponse) error {
	n := len(r.GetScores())
	if len(r.GetIsAnomaly()) != n || len(r.GetPValues()) != n || len(r.GetLevels()) != n ||
		len(r.GetContributions()) != len(r.GetExpected()) || (n > 0 && len(r.GetExpected())%n != 0) ||
		(len(r.GetDepthSums()) != 0 && len(r.GetDepthSums()) != n) {
		return refuse(CodeInternal, "", "the sidecar answered with lists of different lengths")
	}
	return nil
}
