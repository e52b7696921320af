package anomaly

import (
	"context"
	"crypto/ed25519"
	"slices"

	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Backend is what computes the scores of a model set in this process.
type Backend string

// The backends. The third one, a sidecar, is opened with DialSidecar.
const (
	// Native is pure Go, the default.
	Native Backend = "native"
	// ONNXRuntime runs the graphs with ONNX Runtime through cgo; it needs the build tag `onnxruntime`.
	ONNXRuntime Backend = "onnxruntime"
)

type options struct {
	backend                    Backend
	intraThreads, interThreads int
	library                    string
	checksSignature            bool
	publicKeys                 []ed25519.PublicKey
	// maxSets is how many sets of a fleet are open. compact lets go of what only opening needs: a fleet has very many sets.
	maxSets int
	compact bool
}

// Option changes how a model set is opened.
type Option func(*options)

// WithBackend selects what computes the scores.
func WithBackend(b Backend) Option { return func(o *options) { o.backend = b } }

// WithONNXRuntimeThreads sets the threads of ONNX Runtime, inside an operator and between operators. The default is 1 and 1;
// scores do not depend on it (rule P2).
func WithONNXRuntimeThreads(intra, inter int) Option {
	return func(o *options) { o.intraThreads, o.interThreads = intra, inter }
}

// WithONNXRuntimeLibrary sets the path of the shared library. Without it, the environment variable DWCP_ONNXRUNTIME is used, then
// the library inside an installed Python wheel is looked for.
func WithONNXRuntimeLibrary(path string) Option { return func(o *options) { o.library = path } }

// model is one detector of a set, ready to score.
type model struct {
	metadata    *anomalyv1.ModelMetadata
	shape       shape
	calibration calibration
	engine      engine
	golden      *anomalyv1.GoldenFile
	goldenFile  string
}

// ModelSet is an open model set (rules A1 to A8). It implements Scorer and is safe for concurrent use.
type ModelSet struct {
	id  string
	dir string
	// models has an entry for every detector that can be scored; metadata also has those without a graph.
	models   map[Detector]*model
	metadata map[Detector]*anomalyv1.ModelMetadata
}

var _ Scorer = (*ModelSet)(nil)

// OpenModelSet opens the model set in a folder: it checks the digests of all files, audits metadata and graphs, constructs the
// scorers and runs every golden vector of the set (rules A5, V1). A set that fails anywhere is refused whole with an *Error.
func OpenModelSet(path string, opts ...Option) (*ModelSet, error) {
	o := options{backend: Native, intraThreads: 1, interThreads: 1}
	for _, opt := range opts {
		opt(&o)
	}
	set, refusal := openModelSet(path, o)
	if refusal != nil {
		return nil, refusal // not set and refusal as they are: a nil *Error would be an error
	}
	return set, nil
}

func openModelSet(path string, o options) (*ModelSet, *Error) {
	files, refusal := readSetFiles(path, o)
	if refusal != nil {
		return nil, refusal
	}
	set := &ModelSet{
		id: files.id, dir: files.dir, models: map[Detector]*model{}, metadata: map[Detector]*anomalyv1.ModelMetadata{},
	}
	if refusal := set.addAll(files, o); refusal != nil {
		set.Close() // nothing half-open remains
		return nil, refusal
	}
	for _, d := range set.Detectors() {
		if report := set.Golden(context.Background(), d, set); report.Err() != nil {
			set.Close()
			return nil, AsError(report.Err())
		}
	}
	if o.compact {
		set.shrink()
	}
	return set, nil
}

// addAll opens all models. The ensemble is the last, wherever the manifest lists it: it joins the others.
func (s *ModelSet) addAll(files *setFiles, o options) *Error {
	var ensemble *anomalyv1.ModelEntry
	for _, entry := range files.manifest.GetModels() {
		if Detector(entry.GetDetector()) == Ensemble {
			ensemble = entry
		} else if refusal := s.add(files, entry, o); refusal != nil {
			return refusal
		}
	}
	if ensemble == nil {
		return nil
	}
	return s.join(files, ensemble)
}

// shrink lets go of what only opening needs: golden vectors, and of the metadata what GetModelSet leaves out, but for the calibration
// scores, which the model has.
func (s *ModelSet) shrink() {
	for detector, metadata := range s.metadata {
		short := Published(metadata)
		s.metadata[detector] = short
		if m := s.models[detector]; m != nil {
			m.metadata, m.golden, m.shape = short, nil, shapeOf(short)
			m.calibration.scores = slices.Clone(m.calibration.scores)
		}
	}
}

// Published is a copy of metadata as GetModelSet gives them: without calibration scores, training history and drift reference.
func Published(metadata *anomalyv1.ModelMetadata) *anomalyv1.ModelMetadata {
	short := proto.CloneOf(metadata)
	if short.Calibration != nil {
		short.Calibration.Scores = nil
	}
	if short.Training != nil {
		short.Training.History = nil
	}
	short.Drift = nil
	return short
}

// add parses, audits and constructs one model.
func (s *ModelSet) add(files *setFiles, entry *anomalyv1.ModelEntry, o options) *Error {
	detector := Detector(entry.GetDetector())
	meta, refusal := parseMetadata(entry.GetMetadata(), files.serving[entry.GetMetadata()], detector)
	if refusal != nil {
		return refusal
	}
	if meta.GetGraph().GetFile() != entry.GetGraph() {
		return refuse(CodeMetadataInvalid, entry.GetMetadata(), "the graph is %q; the manifest says %q", meta.GetGraph().GetFile(), entry.GetGraph())
	}
	s.metadata[detector] = meta
	if entry.GetGraph() == "" {
		return nil
	}
	data := files.serving[entry.GetGraph()]
	native, err := openGraph(data, meta)
	if err != nil {
		return refuse(CodeGraphInvalid, entry.GetGraph(), "%w", err)
	}
	m := &model{metadata: meta, shape: shapeOf(meta), calibration: newCalibration(meta), engine: native}
	m.goldenFile = entry.GetGolden()
	if m.golden, refusal = parseGolden(entry.GetGolden(), files.serving[entry.GetGolden()], detector); refusal != nil {
		return refusal
	}
	switch o.backend {
	case Native:
	case ONNXRuntime:
		if m.engine, err = newONNXRuntimeEngine(data, meta, o); err != nil {
			return refuse(CodeInternal, entry.GetGraph(), "%w", err)
		}
	default:
		return refuse(CodeInvalidRequest, "backend", "%q is not a backend; there are %s and %s", o.backend, Native, ONNXRuntime)
	}
	s.models[detector] = m
	return nil
}

// openGraph reads and audits a graph and constructs the native scorer (rule G2).
func openGraph(data []byte, meta *anomalyv1.ModelMetadata) (engine, error) {
	graph, err := readONNX(data)
	if err != nil {
		return nil, err
	}
	if err := auditGraph(graph, meta); err != nil {
		return nil, err
	}
	return layouts[meta.GetGraph().GetLayout()].open(graph, meta)
}

// ID is the id of the set: the SHA-256 of its manifest (rule A1).
func (s *ModelSet) ID() string { return s.id }

// Dir is the folder that the set was read from, links resolved (rule A6).
func (s *ModelSet) Dir() string { return s.dir }

// Detectors lists the detectors that can be scored, in the order of the enum.
func (s *ModelSet) Detectors() []Detector {
	var list []Detector
	for _, d := range Detectors() {
		if s.models[d] != nil {
			list = append(list, d)
		}
	}
	return list
}

// Metadata describes a detector that can be scored; nil for others. It must not be changed.
func (s *ModelSet) Metadata(detector Detector) *anomalyv1.ModelMetadata {
	if m := s.models[detector]; m != nil {
		return m.metadata
	}
	return nil
}

// Close lets go of what the backend holds. The native backend holds nothing.
func (s *ModelSet) Close() error {
	for _, m := range s.models {
		_ = m.engine.close() // a session that does not close is no reason to keep the others
	}
	return nil
}

// model gives the model of a detector, or the first fault of E2.
func (s *ModelSet) model(detector Detector, setID string) (*model, *Error) {
	m := s.models[detector]
	if m == nil {
		if !detector.known() {
			return nil, refuse(CodeUnknownDetector, "detector", "%d is not a detector", detector)
		}
		return nil, refuse(CodeDetectorUnavailable, "detector", "%s cannot be scored with this model set: %s", detector, s.unavailable(detector))
	}
	if setID != "" && setID != s.id {
		return nil, refuse(CodeModelSetMismatch, "model_set_id", "the request wants %s; in use is %s", setID, s.id)
	}
	return m, nil
}

// Score scores one sample or window in this process. It does not allocate when verdict is used again.
func (s *ModelSet) Score(_ context.Context, request Request, verdict *Verdict) error {
	m, refusal := s.model(request.Detector, request.ModelSetID)
	if refusal == nil {
		refusal = m.shape.checkSamples(request.Samples)
	}
	if refusal != nil {
		return refusal
	}
	window := request.Samples[len(request.Samples)-m.shape.timesteps:]
	verdict.Members = verdict.Members[:0]
	if err := m.scoreSamples(window, request.Explain, verdict); err != nil {
		return AsError(err)
	}
	m.finish(verdict)
	return nil
}

// scoreSamples scores the last samples of a request. An engine wants them in one piece.
func (m *model) scoreSamples(samples [][]float64, explain Explain, verdict *Verdict) error {
	if len(samples) == 1 {
		return m.engine.score(samples[0], explain, verdict)
	}
	buffer := windows.Get().(*[]float64)
	flat := (*buffer)[:0]
	for _, sample := range samples {
		flat = append(flat, sample...)
	}
	err := m.engine.score(flat, explain, verdict)
	*buffer = flat
	windows.Put(buffer)
	return err
}

// finish adds what follows from score and decision: threshold, p-value, level, top feature.
func (m *model) finish(v *Verdict) {
	v.Threshold = m.metadata.GetThreshold()
	v.PValue, v.Level = m.calibration.judge(v.Score, v.IsAnomaly)
	v.TopFeature = ""
	best := float32(0)
	for j, c := range v.Contributions {
		if c > best {
			best, v.TopFeature = c, m.shape.names[j]
		}
	}
}
