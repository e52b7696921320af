// Package server is the Go sidecar: dwcp.anomaly.v1.ScoringService, OperationsService and inference.GRPCInferenceService over any
// anomaly.Scorer, to the outside the same as the Python sidecar. Rules are those of proto/CONTRACT.md.
//
//   - wire.go, decode*.go and encode.go read and write messages without an object for each sample; codec.go hands them to gRPC.
//   - methods.go lists what is answered, method.go is the way of every unary call, service.go has the calls of ScoringService,
//     inference.go those of the Open Inference Protocol.
//   - stream.go is the life of a stream, scorings.go what it scores, window.go what it remembers.
//   - live.go is the model set in use; folder.go and reload.go put another one in its place.
//   - settings.go, listen.go, tls.go and metrics.go are what they say; server.go binds, answers and stops; run.go is the whole life of
//     the process.
package server
