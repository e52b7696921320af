package anomaly

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// errorDomain is the domain of google.rpc.ErrorInfo (rule E4).
const errorDomain = "dwcp.anomaly"

// statusCodes is the one table from the contract's codes to gRPC (rule E4). The way back needs none: ErrorInfo has the name.
var statusCodes = map[Code]codes.Code{
	CodeInvalidRequest:      codes.InvalidArgument,
	CodeUnknownDetector:     codes.InvalidArgument,
	CodeDetectorUnavailable: codes.NotFound,
	CodeUnknownSeries:       codes.NotFound,
	CodeNoSamples:           codes.InvalidArgument,
	CodeTooManySamples:      codes.InvalidArgument,
	CodeWrongWidth:          codes.InvalidArgument,
	CodeNotFinite:           codes.InvalidArgument,
	CodeWindowTooShort:      codes.InvalidArgument,
	CodeBatchTooLarge:       codes.InvalidArgument,
	CodeModelSetMismatch:    codes.FailedPrecondition,
	CodeManifestMissing:     codes.FailedPrecondition,
	CodeMetadataInvalid:     codes.FailedPrecondition,
	CodeSchemaFromFuture:    codes.FailedPrecondition,
	CodeFileMissing:         codes.FailedPrecondition,
	CodeDigestMismatch:      codes.FailedPrecondition,
	CodeGraphInvalid:        codes.FailedPrecondition,
	CodeGoldenMismatch:      codes.FailedPrecondition,
	CodeSignatureMissing:    codes.FailedPrecondition,
	CodeSignatureInvalid:    codes.FailedPrecondition,
	CodeInternal:            codes.Internal,
}

// ToStatus is the status with which a server refuses a call: ErrorInfo always, BadRequest when a field is at fault (rule E4). The
// message is made fit for strangers.
func ToStatus(e *Error) *status.Status {
	code, ok := statusCodes[e.Code]
	if !ok {
		code = codes.Internal
	}
	message := publicMessage(e.Message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Code.String(), Domain: errorDomain}}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: message}},
		})
	}
	plain := status.New(code, message)
	st, err := plain.WithDetails(details...)
	if err != nil { // a field that is not UTF-8: metadata is, so no field is
		return plain
	}
	return st
}

// somePath is a path of at least two elements, absolute or in a home folder, that does not follow a word: `Mbps/ms` is none.
var somePath = regexp.MustCompile(`(^|[^\pL\pN_.])~?(?:/+[\pL\pN_.+@-]+){2,}/*`)

// maxMessage is in bytes: the text travels three times in the trailers, once with three bytes for one, and clients limit them to 8 KiB.
const maxMessage = 1000

// publicMessage is the first line of a message, without paths: a reason from metadata may quote either.
func publicMessage(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message = somePath.ReplaceAllString(message, "${1}(path)")
	return strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
}

// fromStatus maps the status of a failed call back to the *Error that the sidecar raised (rule E4). What is not an error of the
// contract, such as a deadline or a lost connection, is INTERNAL with the status as its cause: never a score, never "normal" (E3).
func fromStatus(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: CodeInternal, Message: st.Message(), cause: err}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if code, ok := codeFromName(d.GetReason()); ok && d.GetDomain() == errorDomain {
				e.Code = code
			}
		case *errdetails.BadRequest:
			if v := d.GetFieldViolations(); len(v) > 0 {
				e.Field = v[0].GetField()
			}
		}
	}
	if st.Code() == codes.DeadlineExceeded {
		e.cause = errors.Join(context.DeadlineExceeded, err)
	}
	return e
}
