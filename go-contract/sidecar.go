package anomaly

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// maxMessageBytes is the largest message of gRPC (rule L1).
const maxMessageBytes = MaxBatchBytes + 1<<20

// Sidecar is the backend that asks a running sidecar over gRPC. It implements Scorer and is safe for concurrent use. What the sidecar
// refuses is an *Error, as everywhere; a call without an answer is a *CallError.
type Sidecar struct {
	connections *connections
	deadline    time.Duration
	retries     int
	budget      *budget
	// pinned is the set to insist on; empty until the first description, and always with FollowModelSet.
	pinned  string
	follow  bool
	changed func(id string)
	// series is that of requests which name none.
	series string
	set    atomic.Pointer[describedSet]
	asking atomic.Bool
	closed context.Context
	close  context.CancelFunc
	counts struct{ attempts, retries atomic.Uint64 }
}

// describedSet is what a sidecar says of its model set.
type describedSet struct {
	id string
	// fleet is the id of the fleet that it belongs to; empty for a set alone.
	fleet    string
	metadata map[Detector]*anomalyv1.ModelMetadata
}

var _ Scorer = (*Sidecar)(nil)

// newSidecar prepares connections without using them.
func newSidecar(address string, opts []SidecarOption) (*Sidecar, error) {
	o := sidecarOptions{deadline: DefaultDeadline, retries: DefaultRetries}
	for _, opt := range opts {
		opt(&o)
	}
	all, err := connect(address, &o)
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		connections: all, deadline: o.deadline, retries: o.retries, budget: newBudget(),
		pinned: o.modelSetID, follow: o.follow, changed: o.changed, series: o.series,
	}
	s.closed, s.close = context.WithCancel(context.Background())
	s.set.Store(&describedSet{id: o.modelSetID})
	return s, nil
}

// DialSidecar connects to a sidecar, for example at `127.0.0.1:50051` or `unix:///run/dwcp/sidecar.sock`, and asks it which model
// set it has open. Several addresses of one sidecar, separated by commas, share the calls:
// `unix:/run/dwcp/score.sock,unix:/run/dwcp/score.sock.1`.
func DialSidecar(ctx context.Context, address string, opts ...SidecarOption) (*Sidecar, error) {
	s, err := newSidecar(address, opts)
	if err != nil {
		return nil, err
	}
	set, err := s.describe(ctx)
	if err == nil && s.pinned != "" && set.id != s.pinned {
		err = mismatch(s.pinned, set.id)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.set.Store(set)
	if !s.follow {
		s.pinned = set.id
	}
	return s, nil
}

// describe asks which set is in use.
func (s *Sidecar) describe(ctx context.Context) (*describedSet, error) {
	var reply *anomalyv1.GetModelSetResponse
	err := s.call(ctx, func(ctx context.Context, c *connection) (err error) {
		reply, err = c.client.GetModelSet(ctx, &anomalyv1.GetModelSetRequest{Series: s.series})
		return err
	})
	if err != nil {
		return nil, err
	}
	set := &describedSet{
		id: reply.GetModelSetId(), fleet: reply.GetFleetId(), metadata: map[Detector]*anomalyv1.ModelMetadata{},
	}
	for _, meta := range reply.GetModels() {
		d, err := ParseDetector(meta.GetModelType())
		if err == nil { // a detector of a later contract cannot be asked for here
			set.metadata[d] = meta
		}
	}
	return set, nil
}

func (s *Sidecar) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.deadline <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.deadline)
}

// ID is the id of the pinned model set, with FollowModelSet that of the last one known. At a fleet it is that of the set of WithSeries,
// empty without.
func (s *Sidecar) ID() string { return s.set.Load().id }

// FleetID is the id of the fleet that the sidecar had when it was asked for its model set; empty for a sidecar with one set.
func (s *Sidecar) FleetID() string { return s.set.Load().fleet }

// Metadata is what the sidecar says about a detector, without calibration scores and training history.
func (s *Sidecar) Metadata(detector Detector) *anomalyv1.ModelMetadata {
	return s.set.Load().metadata[detector]
}

// SidecarCounts are totals since the sidecar was dialled.
type SidecarCounts struct {
	// Attempts are calls sent, Retries those among them that were sent again.
	Attempts, Retries uint64
}

// Counts says how much was asked.
func (s *Sidecar) Counts() SidecarCounts {
	return SidecarCounts{Attempts: s.counts.attempts.Load(), Retries: s.counts.retries.Load()}
}

// Close closes all connections; open streams end.
func (s *Sidecar) Close() error {
	s.close()
	return s.connections.close()
}

// wanted is the set that a request of a series insists on, empty for any. At a fleet the pinned set is that of one series.
func (s *Sidecar) wanted(id, series string) string {
	if id != "" || (s.FleetID() != "" && series != s.series) {
		return id
	}
	return s.pinned
}

func mismatch(want, got string) *Error {
	return refuse(CodeModelSetMismatch, "model_set_id", "wanted %s; the sidecar has %s open", want, got)
}

// checkID refuses an answer from another set than the wanted one, and learns of a new one where none is wanted and the answer is of the
// series that is followed.
func (s *Sidecar) checkID(want, got, series string) error {
	if want != "" && got != want {
		return mismatch(want, got)
	}
	if s.FleetID() != "" && (series != s.series || series == "") {
		return nil
	}
	if s.follow && got != s.ID() && s.asking.CompareAndSwap(false, true) {
		go s.learn()
	}
	return nil
}

// learn fetches the description of the set in use. When that fails, the next answer starts it again.
func (s *Sidecar) learn() {
	defer s.asking.Store(false)
	set, err := s.describe(s.closed)
	if err != nil || set.id == s.ID() {
		return
	}
	s.set.Store(set)
	if s.changed != nil {
		s.changed(set.id)
	}
}

// Score asks for the score of one sample or window; the samples are sent along and checked by the sidecar.
func (s *Sidecar) Score(ctx context.Context, request Request, verdict *Verdict) error {
	series := cmp.Or(request.Series, s.series)
	id := s.wanted(request.ModelSetID, series)
	message := &anomalyv1.ScoreRequest{
		Detector: anomalyv1.Detector(request.Detector), Explain: anomalyv1.Explain(request.Explain), ModelSetId: id, Series: series,
		Samples: make([]*anomalyv1.Sample, len(request.Samples)),
	}
	for i, sample := range request.Samples {
		message.Samples[i] = &anomalyv1.Sample{Values: sample}
	}
	var reply *anomalyv1.ScoreResponse
	err := s.call(ctx, func(ctx context.Context, c *connection) (err error) {
		reply, err = c.client.Score(ctx, message)
		return err
	})
	if err != nil {
		return err
	}
	v := reply.GetVerdict()
	if v == nil {
		return refuse(CodeInternal, "", "the sidecar answered without a verdict")
	}
	readVerdict(v, verdict)
	return s.checkID(id, reply.GetModelSetId(), series)
}

// readVerdict copies a message, and uses the slices of verdict again.
func readVerdict(v *anomalyv1.Verdict, verdict *Verdict) {
	*verdict = Verdict{
		Score: v.GetScore(), IsAnomaly: v.GetIsAnomaly(), Threshold: v.GetThreshold(), PValue: v.GetPValue(), Level: Level(v.GetLevel()),
		Contributions: append(verdict.Contributions[:0], v.GetContributions()...), Expected: append(verdict.Expected[:0], v.GetExpected()...),
		TopFeature: v.GetTopFeature(), DepthSum: v.GetDepthSum(), Members: readMembers(v.GetMembers(), verdict.Members[:0]),
	}
}

// readMembers appends what the members of an ensemble said.
func readMembers(members []*anomalyv1.MemberVerdict, to []MemberVerdict) []MemberVerdict {
	for _, m := range members {
		said := MemberVerdict{
			Detector: Detector(m.GetDetector()), Weight: m.GetWeight(), Score: m.GetScore(), Normalized: m.GetNormalized(), Missing: m.GetMissing(),
		}
		if said.Missing == "" && m.Score == nil { // no score must not look like a score of 0 (rule E3)
			said.Missing = "the sidecar gave neither a score nor a reason"
		}
		to = append(to, said)
	}
	return to
}

// ScoreBatch asks for the scores of many samples or windows in one call.
func (s *Sidecar) ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) error {
	if 8*len(request.Rows) > maxMessageBytes-1<<10 { // it cannot even be sent
		return refuse(CodeBatchTooLarge, "rows", "%d bytes of rows; a batch carries at most %d", 8*len(request.Rows), MaxBatchBytes)
	}
	series := cmp.Or(request.Series, s.series)
	id := s.wanted(request.ModelSetID, series)
	rows := make([]byte, 0, 8*len(request.Rows))
	for _, x := range request.Rows {
		rows = binary.LittleEndian.AppendUint64(rows, math.Float64bits(x))
	}
	message := &anomalyv1.ScoreBatchRequest{
		Detector: anomalyv1.Detector(request.Detector), Rows: rows, Layout: anomalyv1.BatchLayout(request.Layout),
		Explain: anomalyv1.Explain(request.Explain), ModelSetId: id, Series: series,
	}
	var reply *anomalyv1.ScoreBatchResponse
	err := s.call(ctx, func(ctx context.Context, c *connection) (err error) {
		reply, err = c.client.ScoreBatch(ctx, message)
		return err
	})
	if err != nil {
		return err
	}
	if err := checkBatchReply(reply); err != nil {
		return err
	}
	verdict.Scores, verdict.IsAnomaly, verdict.PValues = reply.GetScores(), reply.GetIsAnomaly(), reply.GetPValues()
	verdict.Contributions, verdict.Expected = reply.GetContributions(), reply.GetExpected()
	verdict.DepthSums, verdict.Threshold = reply.GetDepthSums(), reply.GetThreshold()
	verdict.Levels = verdict.Levels[:0]
	for _, l := range reply.GetLevels() {
		verdict.Levels = append(verdict.Levels, Level(l))
	}
	return s.checkID(id, reply.GetModelSetId(), series)
}

// checkBatchReply refuses lists that do not belong together, so that no caller runs off their end.
func checkBatchReply(r *anomalyv1.ScoreBatchResponse) error {
	n := len(r.GetScores())
	if len(r.GetIsAnomaly()) != n || len(r.GetPValues()) != n || len(r.GetLevels()) != n ||
		len(r.GetContributions()) != len(r.GetExpected()) || (n > 0 && len(r.GetExpected())%n != 0) ||
		(len(r.GetDepthSums()) != 0 && len(r.GetDepthSums()) != n) {
		return refuse(CodeInternal, "", "the sidecar answered with lists of different lengths")
	}
	return nil
}

// Reload makes the sidecar open the model set that its folder holds now, and gives the id of the set in use and whether it is
// another one than before (rule R2). A set that the sidecar refuses is an *Error with the code and the file; the old one stays in
// use (R3). The call is not sent again by itself, and opening a set takes longer than scoring: the deadline is that of ctx alone.
// It reaches one connection; all workers of a sidecar follow (R4). A pinned Sidecar stays pinned.
func (s *Sidecar) Reload(ctx context.Context) (id string, changed bool, err error) {
	c := s.connections.pick(nil)
	reply, err := anomalyv1.NewOperationsServiceClient(c).Reload(ctx, &anomalyv1.ReloadRequest{})
	if err != nil {
		return "", false, callFailed(ctx, err, 1)
	}
	if s.follow {
		_ = s.checkID("", reply.GetModelSetId(), "") // wants none, so it refuses none
	}
	return reply.GetModelSetId(), reply.GetChanged(), nil
}
