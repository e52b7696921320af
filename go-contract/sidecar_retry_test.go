package anomaly

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCallsThatScoredNothingAreSentAgain(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.Canceled} {
		t.Run(code.String(), func(t *testing.T) {
			f := &scripted{id: "a", outcome: failing(3, code)}
			address, _ := serveUnix(t, f)
			s := dialFake(t, address)
			var v Verdict
			require.NoError(t, s.Score(t.Context(), oneSample, &v))
			assert.Equal(t, float32(42), v.Score)
			assert.EqualValues(t, 4, f.calls.Load())
			assert.Equal(t, SidecarCounts{Attempts: 5, Retries: 3}, s.Counts()) // one attempt is GetModelSet
			at := f.times()
			for i, least := range []time.Duration{5, 10, 20} { // the pauses double
				assert.GreaterOrEqual(t, at[i+1].Sub(at[i]), least*time.Millisecond)
			}
		})
	}
}

func TestOtherFailuresAreNotSentAgain(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Internal, codes.DeadlineExceeded,
		codes.Unknown, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated} {
		t.Run(code.String(), func(t *testing.T) {
			f := &scripted{id: "a", outcome: failing(1, code)}
			address, _ := serveUnix(t, f)
			var v Verdict
			require.Error(t, dialFake(t, address).Score(t.Context(), oneSample, &v))
			assert.EqualValues(t, 1, f.calls.Load())
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	for _, retries := range []int{0, 2} {
		f := &scripted{id: "a", outcome: failing(100, codes.Unavailable)}
		address, _ := serveUnix(t, f)
		var v Verdict
		err := dialFake(t, address, WithRetries(retries)).Score(t.Context(), oneSample, &v)
		require.ErrorIs(t, err, ErrUnavailable)
		var failed *CallError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, retries+1, failed.Attempts)
		assert.EqualValues(t, retries+1, f.calls.Load())
	}
}

func TestTheDeadlineHoldsOverAllAttempts(t *testing.T) {
	const deadline = 300 * time.Millisecond
	f := &scripted{id: "a", outcome: failing(1000, codes.Unavailable)}
	address, _ := serveUnix(t, f)
	s := dialFake(t, address, WithRetries(1000))
	for name, ask := range map[string]func(v *Verdict) error{
		"own": func(v *Verdict) error {
			s.deadline = deadline
			return s.Score(t.Context(), oneSample, v)
		},
		"the caller's": func(v *Verdict) error {
			s.deadline = 0
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			return s.Score(ctx, oneSample, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.budget = newBudget()
			f.calls.Store(0)
			var v Verdict
			started := time.Now()
			err := ask(&v)
			require.ErrorIs(t, err, ErrUnavailable, "the last outcome is told, not a pause that was not begun")
			assert.Less(t, time.Since(started), deadline+200*time.Millisecond)
			assert.Greater(t, f.calls.Load(), int64(3))
			assert.LessOrEqual(t, f.calls.Load(), int64(7), "10 + 20 + 40 + ... ms of pauses, halved at most")
		})
	}
}

func TestAPassedDeadlineIsNotSentAgain(t *testing.T) {
	f := &scripted{id: "a", outcome: hanging}
	address, _ := serveUnix(t, f)
	s := dialFake(t, address)
	s.deadline = 100 * time.Millisecond
	var v Verdict
	err := s.Score(t.Context(), oneSample, &v)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotErrorIs(t, err, ErrUnavailable)
	assert.EqualValues(t, 1, f.calls.Load())

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	s.deadline = 0
	err = s.Score(ctx, oneSample, &v)
	require.ErrorIs(t, err, context.Canceled)
	assert.NotErrorIs(t, err, ErrUnavailable)
	assert.EqualValues(t, 2, f.calls.Load())
}

// TestAnOverloadedSidecarIsNotHammered: once the budget is gone every call is sent once.
func TestAnOverloadedSidecarIsNotHammered(t *testing.T) {
	f := &scripted{id: "a", outcome: failing(1<<40, codes.ResourceExhausted)}
	address, _ := serveUnix(t, f)
	s := dialFake(t, address, WithRetries(2))
	var v Verdict
	const calls = 50
	for range calls {
		require.ErrorIs(t, s.Score(t.Context(), oneSample, &v), ErrOverloaded)
	}
	assert.EqualValues(t, calls+10, f.calls.Load(), "ten retries are at hand, and none comes after")

	f.becomes(answering)
	for range 20 {
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	f.becomes(failing(1<<40, codes.ResourceExhausted))
	f.calls.Store(0)
	for range calls {
		require.Error(t, s.Score(t.Context(), oneSample, &v))
	}
	assert.EqualValues(t, calls+2, f.calls.Load(), "twenty answers earned two")
}

func TestCallErrors(t *testing.T) {
	for code, want := range map[codes.Code]struct {
		is   error
		text string
	}{
		codes.Unavailable:       {ErrUnavailable, "UNAVAILABLE: scripted"},
		codes.Canceled:          {ErrUnavailable, "CANCELLED: scripted"},
		codes.ResourceExhausted: {ErrOverloaded, "RESOURCE_EXHAUSTED: scripted"},
		codes.DeadlineExceeded:  {context.DeadlineExceeded, "DEADLINE_EXCEEDED: scripted"},
		codes.Unauthenticated:   {nil, "UNAUTHENTICATED: scripted"},
		codes.PermissionDenied:  {nil, "PERMISSION_DENIED: scripted"},
	} {
		err := callFailed(t.Context(), status.Error(code, "scripted"), 1)
		assert.EqualError(t, err, want.text)
		for _, other := range []error{ErrUnavailable, ErrOverloaded, context.DeadlineExceeded, context.Canceled, CodeInternal} {
			assert.Equal(t, other == want.is, errors.Is(err, other), "%v is %v", err, other)
		}
		assert.Equal(t, code, status.Code(err), "the status can be had")
		typed := AsError(err) // what knows *Error alone keeps working
		assert.Equal(t, CodeInternal, typed.Code)
		assert.Contains(t, typed.Message, want.text)
		if want.is != nil {
			assert.ErrorIs(t, typed, want.is)
		}
	}
	assert.EqualError(t, callFailed(t.Context(), status.Error(codes.Unavailable, "gone"), 4), "UNAVAILABLE: gone (4 attempts)")
	refusal := callFailed(t.Context(), ToStatus(refuse(CodeNotFinite, "samples[0].jitter", "NaN")).Err(), 1)
	assert.ErrorIs(t, refusal, CodeNotFinite)
	assert.ErrorIs(t, callFailed(t.Context(), status.Error(codes.Internal, "bug"), 1), CodeInternal)
}
