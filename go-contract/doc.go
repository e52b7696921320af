// Package anomaly opens model sets of the DWCP anomaly detectors and scores network metrics with them, to the bit as the Python
// side does.
//
// A model set is a folder that training writes: ONNX graphs with the scaler inside, metadata, golden vectors and a manifest with
// the digest of every file. The rules are those of proto/CONTRACT.md; comments cite them by number.
//
// # From Python to Go
//
// The Python producer, from the folder training/:
//
//	python train_isolation_forest.py --synthetic --output ../models
//	python train_lstm_autoencoder.py --synthetic --output ../models
//
// The Go consumer:
//
//	set, err := anomaly.OpenModelSet("models") // checks digests, audits graphs, runs the golden vectors
//	if err != nil {
//		return err // an *anomaly.Error with a code, the file at fault and a message
//	}
//	defer set.Close()
//
//	sample := []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001} // raw values in the order of the feature schema
//	var verdict anomaly.Verdict                                    // can be used again: scoring then allocates nothing
//	err = set.Score(ctx, anomaly.Request{Detector: anomaly.IsolationForest, Samples: [][]float64{sample}}, &verdict)
//	if err != nil {
//		return err // an error is never a score
//	}
//	if verdict.IsAnomaly {
//		log.Printf("%s: score %v, p = %v, because of %s", verdict.Level, verdict.Score, verdict.PValue, verdict.TopFeature)
//	}
//
// # Detectors
//
// A model set holds any of them. The LSTM detectors score a window, a Mahalanobis distance a window or one sample, an ensemble the
// longest window of its members, the others one sample (rules W1, W2).
//
//	name                  constant            scores                                                  layout          rules
//	isolation_forest      IsolationForest     how soon random splits separate a sample                forest.v1       IF1 to IF8
//	lstm_autoencoder      LSTMAutoencoder     the error of reconstructing a window                    lstm.v1         LA1 to LA8
//	dense_autoencoder     DenseAutoencoder    the error of reconstructing a sample                    dense.v1        DA1 to DA6
//	local_outlier_factor  LocalOutlierFactor  how thinly a sample lies, compared with its neighbours  neighbors.v1    LF1 to LF7
//	one_class_svm         OneClassSVM         how far outside the support vectors a sample lies       svm.v1          SV1 to SV6
//	lstm_classifier       LSTMClassifier      how probable an anomaly is, as labels of training say   classifier.v1   LC1 to LC6
//	ensemble              Ensemble            the weighted mean of other detectors of the set         ensemble.v1     EN1 to EN7
//	                                          the same without an upper end of its scale              ensemble.v2     EN8
//	mahalanobis           Mahalanobis         the distance from the mean, as metrics go together      mahalanobis.v1  MD1 to MD7
//
// An ensemble answers in the place of several detectors and a vote over them: their scores on a common scale, weighted; Verdict.Members
// says what each of them said, and which could not be scored. The score does not depend on what else is in a batch.
//
// The local outlier factor and the SVM look at every training row they keep: time grows with rows times features. TrainForest and
// TrainWindows fit a model in process.
//
// # Backends
//
// Three backends implement Scorer and give the same bits in the EXACT class (rule P2):
//
//   - native, the default: pure Go, without cgo, on every platform.
//   - ONNX Runtime, behind the build tag `onnxruntime`: OpenModelSet(path, WithBackend(ONNXRuntime)).
//   - a sidecar over gRPC: DialSidecar(ctx, address, WithModelSetID(set.ID())).
//
// NewFallback asks a sidecar and, when that gives no answer, scores in process.
//
// # Asking a sidecar
//
// Every call has a deadline. A call that scored nothing is sent again within it, over another connection where there is one
// (WithRetries, WithConnections); a refusal never is. What the sidecar refuses is an *Error as everywhere else; a call without an
// answer is a *CallError: ErrUnavailable, ErrOverloaded or context.DeadlineExceeded to errors.Is. The model set found when dialling is
// pinned (WithModelSetID, FollowModelSet). OpenStream is for series that are scored sample by sample: each sample is sent once.
// docs/clients.md says more.
//
// # Files
//
// model.go, manifest.go, metadata.go and golden.go open a set. onnx_reader.go and onnx_tensor.go read its graphs; graph_audit.go,
// graph_wiring.go and the files *_graph.go and *_wiring.go audit them. isolation_forest.go, lstm_autoencoder.go, dense_autoencoder.go,
// local_outlier_factor.go, one_class_svm.go, lstm_classifier.go and mahalanobis.go score; matrix.go and lstm_layer.go are parts of
// networks, triangle.go of distances, training_rows.go and neighbors.go find what is near. ensemble.go joins the others, ensemble_metadata.go checks that it may.
// train*.go fit models in process. sidecar*.go ask a sidecar: connections, retries, TLS, errors and streams have a file each; fallback*.go
// put a local set behind it. The drop-in files for the consumer are in monitoring/, the commands in cmd/.
package anomaly
