package anomaly_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	anomaly "dwcp.internal/anomaly"
)

func ExampleDialSidecar() {
	ctx := context.Background()
	// Usually `unix:/run/dwcp/score.sock`, or `127.0.0.1:50051`; several, separated by commas, share the calls.
	sidecar, err := anomaly.DialSidecar(ctx, sidecarAddress, anomaly.WithDeadline(5*time.Second), anomaly.WithConnections(2))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sidecar.Close()

	congested := []float64{105.2, 120.0, 3.0, 20.0, 45.3, 58.7, 0.001}
	var verdict anomaly.Verdict
	err = sidecar.Score(ctx, anomaly.Request{Detector: anomaly.IsolationForest, Samples: [][]float64{congested}}, &verdict)
	switch {
	case err == nil:
		fmt.Println(verdict.Level, "because of", verdict.TopFeature)
	case errors.Is(err, anomaly.ErrUnavailable), errors.Is(err, anomaly.ErrOverloaded), errors.Is(err, context.DeadlineExceeded):
		fmt.Println("no answer:", err) // it was sent again where that was of use
	case errors.Is(err, anomaly.CodeModelSetMismatch):
		fmt.Println("the sidecar has loaded another model set:", err) // dial again, or use FollowModelSet
	default:
		fmt.Println("refused:", err) // the request is wrong
	}

	short := []float64{105.2, 55.0}
	err = sidecar.Score(ctx, anomaly.Request{Detector: anomaly.IsolationForest, Samples: [][]float64{short}}, &verdict)
	fmt.Println(anomaly.AsError(err).Code, anomaly.AsError(err).Field)
	// Output:
	// WARNING because of packet_loss
	// WRONG_WIDTH samples[0]
}

// One answer in the place of several detectors and a vote over them: the ensemble of the model set. Weights, thresholds and the common
// scale are those of training, and the same in every service.
func Example_ensemble() {
	models, err := anomaly.OpenModelSet(ensembleModels) // usually "models"
	if err != nil {
		fmt.Println(err)
		return
	}
	defer models.Close()

	// The longest window of the members. Those that score single samples take the last one.
	window := make([][]float64, anomaly.WindowLength(models, anomaly.Ensemble))
	for i := range window {
		window[i] = []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}
	}
	window[len(window)-1][1] = 19 // ms of latency
	var verdict anomaly.Verdict
	err = models.Score(context.Background(), anomaly.Request{Detector: anomaly.Ensemble, Samples: window}, &verdict)
	if err != nil {
		fmt.Println(err)
		return
	}
	switch verdict.Level {
	case anomaly.LevelCritical:
		fmt.Printf("now: %.2f because of %s\n", verdict.Score, verdict.TopFeature)
	case anomaly.LevelWarning:
		fmt.Printf("soon: %.2f because of %s\n", verdict.Score, verdict.TopFeature)
	}
	for _, member := range verdict.Members {
		if member.Missing != "" { // the others share its weight
			fmt.Println(member.Detector, "did not answer:", member.Missing)
			continue
		}
		fmt.Printf("%s: %.2f, weight %.2f\n", member.Detector, member.Normalized, member.Weight)
	}
	// Output:
	// soon: 0.68 because of latency
	// isolation_forest: 0.10, weight 0.07
	// lstm_autoencoder: 1.00, weight 0.13
	// dense_autoencoder: 0.35, weight 0.20
	// local_outlier_factor: 0.53, weight 0.27
	// one_class_svm: 1.00, weight 0.33
}

func ExampleNewFallback() {
	ctx := context.Background()
	local, err := anomaly.OpenModelSet("../models/reference/v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer local.Close()
	// The sidecar is asked first, and need not run yet. It is held to the model set that is open here, so that both give the same scores.
	scorer, err := anomaly.NewFallback(local, sidecarAddress, anomaly.WithDeadline(5*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer scorer.Close()

	congested := []float64{105.2, 120.0, 3.0, 20.0, 45.3, 58.7, 0.001}
	var verdict anomaly.Verdict
	remote, err := scorer.Score(ctx, anomaly.Request{Detector: anomaly.IsolationForest, Samples: [][]float64{congested}}, &verdict)
	if err != nil { // the input is refused, or ctx is done
		fmt.Println(err)
		return
	}
	if remote != nil {
		fmt.Println("scored here, because", remote)
	}
	fmt.Println(verdict.Level, verdict.TopFeature)
	counts := scorer.Counts()
	fmt.Println(counts.Sidecar, "by the sidecar,", counts.Local(), "here")
	// Output:
	// WARNING packet_loss
	// 1 by the sidecar, 0 here
}

// Each sample is sent once; the sidecar keeps the window that the LSTM autoencoder scores.
func ExampleSidecar_OpenStream() {
	ctx := context.Background()
	sidecar, err := anomaly.DialSidecar(ctx, sidecarAddress, anomaly.WithDeadline(5*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sidecar.Close()
	stream, err := sidecar.OpenStream(ctx, anomaly.StreamSettings{Detectors: []anomaly.Detector{anomaly.LSTMAutoencoder}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stream.Close()

	for i := range 12 {
		sample := anomaly.StreamSample{Series: "link-7", Values: []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}}
		if i == 11 {
			sample.Values[1] = 55 // ms of latency
		}
		results, err := stream.Score(ctx, sample)
		if err != nil {
			fmt.Println(err)
			return
		}
		switch v := results[0].Verdicts[0]; {
		case errors.Is(v.Err, anomaly.CodeWindowTooShort): // the first nine samples
		case v.Err != nil:
			fmt.Println(v.Err)
		case v.Verdict.IsAnomaly:
			fmt.Println(i, v.Verdict.Level, v.Verdict.TopFeature)
		default:
			fmt.Println(i, v.Verdict.Level)
		}
	}
	// Output:
	// 9 NORMAL
	// 10 NORMAL
	// 11 CRITICAL latency
}

// One goroutine sends, another receives: samples that wait travel together, which is many times faster than one call each.
func ExampleStream_Send() {
	ctx := context.Background()
	sidecar, err := anomaly.DialSidecar(ctx, sidecarAddress, anomaly.WithDeadline(5*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sidecar.Close()
	stream, err := sidecar.OpenStream(ctx, anomaly.StreamSettings{Detectors: []anomaly.Detector{anomaly.IsolationForest}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stream.Close()

	go func() {
		defer stream.CloseSend()
		for i := range 1000 {
			values := []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}
			if i == 704 {
				values = []float64{105.2, 120.0, 3.0, 20.0, 45.3, 58.7, 0.001}
			}
			if stream.Send(ctx, anomaly.StreamSample{Series: fmt.Sprint("link-", i%10), Values: values}) != nil {
				return // Receive says why
			}
		}
	}()
	count := 0
	for {
		result, err := stream.Receive(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err, len(stream.Unanswered()), "samples were not answered")
			return
		}
		count++
		if v := result.Verdicts[0]; v.Err == nil && v.Verdict.IsAnomaly {
			fmt.Println(result.Sample.Series, v.Verdict.TopFeature)
		}
	}
	fmt.Println(count, "scored")
	// Output:
	// link-4 packet_loss
	// 1000 scored
}
