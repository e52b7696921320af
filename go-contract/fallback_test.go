package anomaly

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func TestFallback(t *testing.T) {
	set := openReference(t)
	var want, got Verdict
	require.NoError(t, set.Score(t.Context(), oneSample, &want))
	for name, test := range map[string]struct {
		service *scripted
		remote  error
		counts  FallbackCounts
	}{
		"answers":     {&scripted{id: set.ID(), outcome: answering}, nil, FallbackCounts{Sidecar: 1}},
		"not there":   {nil, ErrUnavailable, FallbackCounts{Unavailable: 1}},
		"too slow":    {&scripted{id: set.ID(), outcome: hanging}, context.DeadlineExceeded, FallbackCounts{Deadline: 1}},
		"another set": {&scripted{id: "other", outcome: answering}, CodeModelSetMismatch, FallbackCounts{Mismatch: 1}},
		"overloaded":  {&scripted{id: set.ID(), outcome: failing(1, codes.ResourceExhausted)}, ErrOverloaded, FallbackCounts{Overloaded: 1}},
		"stopping":    {&scripted{id: set.ID(), outcome: failing(1, codes.Unavailable)}, ErrUnavailable, FallbackCounts{Unavailable: 1}},
		"has a bug":   {&scripted{id: set.ID(), outcome: failing(1, codes.Internal)}, CodeInternal, FallbackCounts{Other: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			address := "unix:" + filepath.Join(t.TempDir(), "nobody")
			if test.service != nil {
				address, _ = serveUnix(t, test.service)
			}
			var options []SidecarOption
			if name != "too slow" {
				options = append(options, WithDeadline(20*time.Second)) // a busy machine must not fail the test
			}
			f, err := NewFallback(set, address, options...)
			require.NoError(t, err)
			defer f.Close()
			remote, err := f.Score(t.Context(), oneSample, &got)
			require.NoError(t, err)
			assert.Equal(t, test.counts, f.Counts())
			if test.remote == nil {
				require.NoError(t, remote)
				assert.Equal(t, float32(42), got.Score)
				return
			}
			require.ErrorIs(t, remote, test.remote)
			assert.Equal(t, want.Score, got.Score)
			assert.EqualValues(t, 1, f.Counts().Local())
			if test.service != nil {
				assert.EqualValues(t, 1, test.service.calls.Load(), "nothing is sent again: the local set answers faster")
			}
		})
	}
}

// TestARefusedInputIsNotScoredLocally: it would be refused there too, and the sidecar is not at fault.
func TestARefusedInputIsNotScoredLocally(t *testing.T) {
	set := openReference(t)
	f, err := NewFallback(set, serve(t, &fakeSidecar{set: set, id: set.ID()}), WithDeadline(20*time.Second))
	require.NoError(t, err)
	defer f.Close()
	var v Verdict
	remote, err := f.Score(t.Context(), Request{Detector: IsolationForest, Samples: [][]float64{{1, 2}}}, &v)
	require.ErrorIs(t, err, CodeWrongWidth)
	assert.NoError(t, remote)
	remote, err = f.Score(t.Context(), Request{Detector: 99, Samples: oneSample.Samples}, &v)
	require.ErrorIs(t, err, CodeUnknownDetector)
	assert.NoError(t, remote)
	assert.Equal(t, FallbackCounts{Sidecar: 2}, f.Counts())

	var b BatchVerdict
	remote, err = f.ScoreBatch(t.Context(), BatchRequest{Detector: IsolationForest, Rows: make([]float64, 70)}, &b)
	require.NoError(t, err)
	assert.NoError(t, remote)
	assert.Len(t, b.Scores, 10)
	assert.Equal(t, FallbackCounts{Sidecar: 3}, f.Counts())
}

// TestADetectorThatOnlyTheSidecarLacks: it has another set, which it says only after the detector (rule E2).
func TestADetectorThatOnlyTheSidecarLacks(t *testing.T) {
	set := openReference(t)
	missing := func(int64, context.Context) error {
		return ToStatus(refuse(CodeDetectorUnavailable, "detector", "not in this set")).Err()
	}
	address, _ := serveUnix(t, &scripted{id: "other", outcome: missing})
	f, err := NewFallback(set, address, WithDeadline(20*time.Second))
	require.NoError(t, err)
	defer f.Close()
	var v Verdict
	remote, err := f.Score(t.Context(), oneSample, &v)
	require.NoError(t, err)
	assert.ErrorIs(t, remote, CodeDetectorUnavailable)
}

// TestTheCallerWhoGivesUpIsNotAnsweredLocally: and that is not held against the sidecar.
func TestTheCallerWhoGivesUpIsNotAnsweredLocally(t *testing.T) {
	set := openReference(t)
	address, _ := serveUnix(t, &scripted{id: set.ID(), outcome: hanging})
	f, err := NewFallback(set, address, WithDeadline(0))
	require.NoError(t, err)
	defer f.Close()
	var v Verdict
	for range 2 * failuresBeforeRest {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		remote, err := f.Score(ctx, oneSample, &v)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, remote, errResting)
	}
	assert.Equal(t, FallbackCounts{}, f.Counts())
}

// TestFallbackRestsAndRecovers: a sidecar that hangs costs three calls their deadline, not all; when it is back, it is asked again.
func TestFallbackRestsAndRecovers(t *testing.T) {
	const deadline = 50 * time.Millisecond
	set := openReference(t)
	service := &scripted{id: set.ID(), outcome: hanging}
	address, _ := serveUnix(t, service)
	f, err := NewFallback(set, address, WithDeadline(deadline))
	require.NoError(t, err)
	defer f.Close()
	var v Verdict
	for range failuresBeforeRest {
		remote, err := f.Score(t.Context(), oneSample, &v)
		require.NoError(t, err)
		require.ErrorIs(t, remote, context.DeadlineExceeded)
	}
	asked := service.calls.Load()
	began := time.Now()
	for time.Since(began) < shortestRest/2 {
		remote, err := f.Score(t.Context(), oneSample, &v)
		require.NoError(t, err)
		require.ErrorIs(t, remote, ErrUnavailable)
	}
	assert.Equal(t, asked, service.calls.Load(), "not asked while it rests")
	assert.Greater(t, f.Counts().Resting, uint64(10), "calls do not wait for the deadline")

	time.Sleep(shortestRest)
	remote, err := f.Score(t.Context(), oneSample, &v) // the one that tries
	require.NoError(t, err)
	require.ErrorIs(t, remote, context.DeadlineExceeded)
	remote, _ = f.Score(t.Context(), oneSample, &v)
	require.ErrorIs(t, remote, errResting)

	f.sidecar.deadline = 20 * time.Second
	service.becomes(answering)
	require.Eventually(t, func() bool {
		remote, err := f.Score(t.Context(), oneSample, &v)
		return err == nil && remote == nil
	}, 10*time.Second, 10*time.Millisecond)
	before := f.Counts()
	for range 10 {
		remote, err := f.Score(t.Context(), oneSample, &v)
		require.NoError(t, err)
		require.NoError(t, remote)
	}
	assert.Equal(t, before.Sidecar+10, f.Counts().Sidecar)
}

// TestFallbackFindsASidecarThatComesLater: one that was not there when the program began.
func TestFallbackFindsASidecarThatComesLater(t *testing.T) {
	set := openReference(t)
	path := filepath.Join(t.TempDir(), "s")
	f, err := NewFallback(set, "unix:"+path, WithDeadline(20*time.Second))
	require.NoError(t, err)
	defer f.Close()
	var v Verdict
	remote, err := f.Score(t.Context(), oneSample, &v)
	require.NoError(t, err)
	require.ErrorIs(t, remote, ErrUnavailable)
	serveAt(t, path, &scripted{id: set.ID(), outcome: answering})
	require.Eventually(t, func() bool {
		remote, err := f.Score(t.Context(), oneSample, &v)
		return err == nil && remote == nil
	}, 10*time.Second, 10*time.Millisecond)
}

func TestARestGrowsToItsLimit(t *testing.T) {
	var r rest
	for range failuresBeforeRest - 1 {
		require.NoError(t, r.asleep())
		r.failed()
	}
	require.NoError(t, r.asleep())
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		r.failed()
		require.Error(t, r.asleep())
		assert.Equal(t, want*time.Millisecond, r.length)
		r.failed() // one that was on its way makes it no longer
		assert.Equal(t, want*time.Millisecond, r.length)
		r.until = time.Now()
		require.NoError(t, r.asleep(), "one call tries")
		require.Error(t, r.asleep(), "one alone")
	}
	r.answered()
	require.NoError(t, r.asleep())
	assert.Zero(t, r.length)
}
