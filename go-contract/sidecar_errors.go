package anomaly

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Why a call brought no answer. A server says both without a code of the contract (rule E4): nothing was scored, and the call may
// be sent again. Ask with errors.Is; a deadline is context.DeadlineExceeded.
var (
	// ErrUnavailable: the sidecar cannot be reached, is stopping, or dropped the call.
	ErrUnavailable = errors.New("the sidecar is unavailable")
	// ErrOverloaded: the sidecar is over one of its limits (rules L1 to L4).
	ErrOverloaded = errors.New("the sidecar is overloaded")
)

// CallError is a call to a sidecar that brought neither an answer nor a refusal of the contract. It is ErrUnavailable,
// ErrOverloaded, context.DeadlineExceeded or context.Canceled to errors.Is, or none of them, for example where a certificate is
// missing. To errors.As and AsError it is an *Error with CodeInternal, so that code that knows *Error alone keeps working.
type CallError struct {
	// Status is the status of gRPC.
	Status codes.Code
	// Message is what the sidecar, or gRPC in this process, says.
	Message string
	// Attempts is how often the call was sent.
	Attempts int

	reason error
	cause  error
}

// Error is "STATUS: message", with the number of attempts where there were several.
func (e *CallError) Error() string {
	text := fmt.Sprintf("%s: %s", code.Code(e.Status), e.Message)
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return text
}

// Is matches the reason.
func (e *CallError) Is(target error) bool { return e.reason != nil && target == e.reason }

// As gives the *Error that stands for e.
func (e *CallError) As(target any) bool {
	typed, ok := target.(**Error)
	if ok {
		*typed = &Error{Code: CodeInternal, Message: e.Error(), cause: e}
	}
	return ok
}

// Unwrap gives the error of gRPC.
func (e *CallError) Unwrap() error { return e.cause }

// callFailed is the error of a call that failed with the status err after so many attempts: the *Error that the sidecar raised, or a
// *CallError. ctx tells a call that the caller gave up from one that the sidecar dropped.
func callFailed(ctx context.Context, err error, attempts int) error {
	if refusal := fromStatus(err); refusal.Code != CodeInternal || status.Code(err) == codes.Internal {
		return refusal
	}
	if ctx.Err() != nil {
		err = status.FromContextError(ctx.Err()).Err()
	}
	st := status.Convert(err)
	e := &CallError{Status: st.Code(), Message: st.Message(), Attempts: attempts, cause: err}
	switch {
	case ctx.Err() != nil:
		e.reason = ctx.Err()
	case st.Code() == codes.DeadlineExceeded:
		e.reason = context.DeadlineExceeded
	case st.Code() == codes.ResourceExhausted:
		e.reason = ErrOverloaded
	case st.Code() == codes.Unavailable, st.Code() == codes.Canceled:
		e.reason = ErrUnavailable
	}
	return e
}
