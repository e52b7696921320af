//go:build onnxruntime && cgo

package anomaly

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// libraryVariable names the shared library of ONNX Runtime when it is not where this package looks for it.
const libraryVariable = "DWCP_ONNXRUNTIME"

// onnxRuntimeEngine scores with ONNX Runtime the same bytes that were digested and audited.
type onnxRuntimeEngine struct {
	features, timesteps int
	// windowed says that an item is a window, forest that the graph is a forest's (rule G1).
	windowed, forest bool
	// most is how many items are scored in one run.
	most int
	// plain computes score and decision only; explained also contributions and expected values, which cost a forest seven
	// times as much.
	plain, explained *ort.DynamicAdvancedSession
}

// mostDistanceItems bounds the memory of a run of a graph that holds distances: one from each item to each training row, several times.
const mostDistanceItems = 64

// mostStateValues bounds the memory of a run of a graph with a window, which holds the states of a layer at every step of every item, or
// as many values as the window has.
const mostStateValues = 1 << 22

// widestStep is the largest number of values that a graph with a window holds of a step: units of a layer, or features.
func widestStep(meta *anomalyv1.ModelMetadata) uint32 {
	return slices.Max(slices.Concat([]uint32{meta.GetNFeatures()}, meta.GetLstm().GetUnits(), meta.GetClassifier().GetUnits()))
}

var (
	environmentOnce  sync.Once
	environmentError error
)

// startONNXRuntime loads the library once per process.
func startONNXRuntime(library string) error {
	environmentOnce.Do(func() {
		if library == "" {
			library, environmentError = findONNXRuntime()
		}
		if environmentError == nil {
			ort.SetSharedLibraryPath(library)
			environmentError = ort.InitializeEnvironment()
		}
	})
	return environmentError
}

// findONNXRuntime looks for the library in DWCP_ONNXRUNTIME, then in a Python environment above the working directory: the wheel
// ships it.
func findONNXRuntime() (string, error) {
	if path := os.Getenv(libraryVariable); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	for err == nil {
		found, _ := filepath.Glob(filepath.Join(dir, ".venv", "lib", "python*", "site-packages", "onnxruntime", "capi", "libonnxruntime.so.*"))
		if len(found) > 0 {
			return found[0], nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return "", fmt.Errorf("libonnxruntime.so was not found: set %s to its path, or install the onnxruntime wheel in .venv", libraryVariable)
}

// newONNXRuntimeEngine opens sessions on the bytes of a graph.
func newONNXRuntimeEngine(graph []byte, meta *anomalyv1.ModelMetadata, o options) (engine, error) {
	if err := startONNXRuntime(o.library); err != nil {
		return nil, err
	}
	settings, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer settings.Destroy()
	err = errors.Join(
		settings.SetIntraOpNumThreads(o.intraThreads),
		settings.SetInterOpNumThreads(o.interThreads),
		// Threads that spin steal the processor from those that score elsewhere.
		settings.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		settings.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
	)
	if err != nil {
		return nil, err
	}
	e := &onnxRuntimeEngine{
		features: int(meta.GetNFeatures()), timesteps: windowLength(meta), windowed: meta.Timesteps != nil,
		forest: meta.Forest != nil, most: MaxBatchItems,
	}
	if meta.Neighbors != nil || meta.Svm != nil {
		e.most = mostDistanceItems
	}
	if e.windowed {
		e.most = max(1, mostStateValues/(e.timesteps*int(widestStep(meta))))
	}
	inputs, outputs := []string{"samples"}, []string{"score", "is_anomaly"}
	if e.forest {
		inputs, outputs = append(inputs, "occlusion"), append(outputs, "depth_sum")
	}
	if e.plain, err = ort.NewDynamicAdvancedSessionWithONNXData(graph, inputs, outputs, settings); err != nil {
		return nil, err
	}
	outputs = append(slices.Clone(outputs), "contributions", "expected")
	if e.explained, err = ort.NewDynamicAdvancedSessionWithONNXData(graph, inputs, outputs, settings); err != nil {
		return nil, errors.Join(err, e.plain.Destroy())
	}
	return e, nil
}

func (e *onnxRuntimeEngine) close() error {
	return errors.Join(e.plain.Destroy(), e.explained.Destroy())
}

func (e *onnxRuntimeEngine) score(window []float64, explain Explain, verdict *Verdict) error {
	var batch BatchVerdict
	batch.reset(1, e.features, explain)
	if err := e.scoreBatch(context.Background(), window, 1, len(window), explain, &batch); err != nil {
		return err
	}
	verdict.Score, verdict.IsAnomaly, verdict.DepthSum = batch.Scores[0], batch.IsAnomaly[0], batch.DepthSums[0]
	verdict.Contributions, verdict.Expected = verdict.Contributions[:0], verdict.Expected[:0]
	if explain.wanted(verdict.IsAnomaly) {
		verdict.Contributions = append(verdict.Contributions, batch.Contributions...)
		verdict.Expected = append(verdict.Expected, batch.Expected...)
	}
	return nil
}

// scoreBatch scores all items, and explains the anomalies in a second run when only they are to be explained.
func (e *onnxRuntimeEngine) scoreBatch(_ context.Context, rows []float64, count, stride int, explain Explain, verdict *BatchVerdict) error {
	size := e.features * e.timesteps
	if stride != size { // windows of a series overlap
		windows := make([]float64, 0, count*size)
		for i := range count {
			windows = append(windows, rows[i*stride:][:size]...)
		}
		rows = windows
	}
	if explain == ExplainAlways {
		return e.run(rows, count, true, verdict)
	}
	if err := e.run(rows, count, false, verdict); err != nil || explain == ExplainNever {
		return err
	}
	return verdict.explainAlarms(rows, size, size, e.features, func(windows []float64, count int, explained *BatchVerdict) error {
		return e.run(windows, count, true, explained)
	})
}

// run runs a graph on count windows, in pieces where one run would take too much memory. The score of an item does not depend on it (W4).
func (e *onnxRuntimeEngine) run(rows []float64, count int, explain bool, verdict *BatchVerdict) error {
	size := e.features * e.timesteps
	for start := 0; start < count; start += e.most {
		end := min(start+e.most, count)
		piece := verdict.piece(start, end, e.features, explain)
		if err := e.runPiece(rows[start*size:end*size], end-start, explain, &piece); err != nil {
			return err
		}
	}
	return nil
}

// piece are the items from start to before end, in the memory of v; the lists that a run does not fill are left out.
func (v *BatchVerdict) piece(start, end, width int, explain bool) BatchVerdict {
	p := BatchVerdict{Scores: v.Scores[start:end], IsAnomaly: v.IsAnomaly[start:end], DepthSums: v.DepthSums[start:end]}
	if explain {
		p.Contributions, p.Expected = v.Contributions[start*width:end*width], v.Expected[start*width:end*width]
	}
	return p
}

// runPiece runs a graph once (rule G1).
func (e *onnxRuntimeEngine) runPiece(rows []float64, count int, explain bool, verdict *BatchVerdict) (err error) {
	session := e.plain
	shape := ort.NewShape(int64(count), int64(e.features))
	if e.windowed {
		shape = ort.NewShape(int64(count), int64(e.timesteps), int64(e.features))
	}
	samples, err := ort.NewTensor(shape, rows)
	if err != nil {
		return err
	}
	inputs := []ort.Value{samples}
	outputs := make([]ort.Value, 2, 5)
	if e.forest {
		groups := int64(1)
		if explain {
			groups += int64(e.features)
		}
		mask := make([]bool, groups*int64(e.features))
		for g := range groups - 1 { // row g+1 replaces feature g
			mask[(g+1)*int64(e.features)+g] = true
		}
		occlusion, err := ort.NewTensor(ort.NewShape(groups, int64(e.features)), mask)
		if err != nil {
			return errors.Join(err, samples.Destroy())
		}
		inputs, outputs = append(inputs, occlusion), append(outputs, nil)
	}
	if explain {
		session = e.explained
		outputs = append(outputs, nil, nil)
	}
	defer func() {
		for _, v := range append(inputs, outputs...) {
			if v != nil {
				err = errors.Join(err, v.Destroy())
			}
		}
	}()
	if err := session.Run(inputs, outputs); err != nil {
		return err
	}
	err = errors.Join(copyOutput(verdict.Scores, outputs[0]), copyOutput(verdict.IsAnomaly, outputs[1]))
	if e.forest {
		err = errors.Join(err, copyOutput(verdict.DepthSums, outputs[2]))
	} else {
		clear(verdict.DepthSums)
	}
	if explain {
		last := len(outputs)
		err = errors.Join(err, copyOutput(verdict.Contributions, outputs[last-2]), copyOutput(verdict.Expected, outputs[last-1]))
	}
	return err
}

// copyOutput copies the values of an output tensor.
func copyOutput[T ort.TensorData](to []T, value ort.Value) error {
	tensor, ok := value.(*ort.Tensor[T])
	if !ok || len(tensor.GetData()) != len(to) {
		return fmt.Errorf("an output has type %T and shape %v, not %d values of %T", value, value.GetShape(), len(to), to)
	}
	copy(to, tensor.GetData())
	return nil
}
