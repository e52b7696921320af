package anomaly

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

func TestEveryCodeHasAStatus(t *testing.T) {
	for number := range anomalyv1.ErrorCode_name {
		_, ok := statusCodes[Code(number)]
		assert.Equal(t, number > 0, ok, Code(number))
	}
}

// TestStatusThereAndBack: what a server refuses, a client refuses (rule E4).
func TestStatusThereAndBack(t *testing.T) {
	for code, want := range statusCodes {
		for _, field := range []string{"", "samples[3].packet_loss"} {
			sent := &Error{Code: code, Field: field, Message: "a sentence"}
			st := ToStatus(sent)
			assert.Equal(t, want, st.Code())
			got := fromStatus(st.Err())
			assert.Equal(t, []any{code, field, "a sentence"}, []any{got.Code, got.Field, got.Message})
		}
	}
	assert.Equal(t, codes.FailedPrecondition, ToStatus(refuse(CodeGraphInvalid, "", "x")).Code())
	assert.Equal(t, codes.Internal, ToStatus(refuse(99, "", "x")).Code())
}

func TestMessagesForStrangers(t *testing.T) {
	for message, public := range map[string]string{
		"open /etc/passwd failed":                       "open (path) failed",
		"first line\nTraceback (most recent call last)": "first line",
		"at '~/models/x/y.onnx'":                        "at '(path)'",
		"at /a/b/c//d/e":                                "at (path)",
		"12 Mbps/ms and/or 1/2/3":                       "12 Mbps/ms and/or 1/2/3",
	} {
		assert.Equal(t, public, ToStatus(&Error{Code: CodeInternal, Message: message}).Message())
	}
}

func TestALongMessageFitsIntoTheTrailers(t *testing.T) {
	for _, text := range []string{"x", "ü", "😀"} {
		st := ToStatus(&Error{Code: CodeModelSetMismatch, Field: "model_set_id", Message: strings.Repeat(text, 100_000)})
		assert.Less(t, 3*len(st.Message())+proto.Size(st.Proto())*4/3, 8<<10)
	}
}
