package anomaly

import (
	"errors"
	"fmt"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Code says why an input or a model set was refused. The values are those of errors.proto (rule E1).
//
// A Code is itself an error, so that a caller can ask for the kind of a refusal without unpacking it:
//
//	if errors.Is(err, anomaly.CodeNotFinite) { ... }
type Code int32

// The codes of errors.proto. Their meaning is stated there, once.
const (
	CodeInvalidRequest      = Code(anomalyv1.ErrorCode_ERROR_CODE_INVALID_REQUEST)
	CodeUnknownDetector     = Code(anomalyv1.ErrorCode_ERROR_CODE_UNKNOWN_DETECTOR)
	CodeDetectorUnavailable = Code(anomalyv1.ErrorCode_ERROR_CODE_DETECTOR_UNAVAILABLE)
	CodeNoSamples           = Code(anomalyv1.ErrorCode_ERROR_CODE_NO_SAMPLES)
	CodeTooManySamples      = Code(anomalyv1.ErrorCode_ERROR_CODE_TOO_MANY_SAMPLES)
	CodeWrongWidth          = Code(anomalyv1.ErrorCode_ERROR_CODE_WRONG_WIDTH)
	CodeNotFinite           = Code(anomalyv1.ErrorCode_ERROR_CODE_NOT_FINITE)
	CodeWindowTooShort      = Code(anomalyv1.ErrorCode_ERROR_CODE_WINDOW_TOO_SHORT)
	CodeBatchTooLarge       = Code(anomalyv1.ErrorCode_ERROR_CODE_BATCH_TOO_LARGE)
	CodeModelSetMismatch    = Code(anomalyv1.ErrorCode_ERROR_CODE_MODEL_SET_MISMATCH)
	CodeUnknownSeries       = Code(anomalyv1.ErrorCode_ERROR_CODE_UNKNOWN_SERIES)

	CodeManifestMissing  = Code(anomalyv1.ErrorCode_ERROR_CODE_MANIFEST_MISSING)
	CodeMetadataInvalid  = Code(anomalyv1.ErrorCode_ERROR_CODE_METADATA_INVALID)
	CodeSchemaFromFuture = Code(anomalyv1.ErrorCode_ERROR_CODE_SCHEMA_FROM_FUTURE)
	CodeFileMissing      = Code(anomalyv1.ErrorCode_ERROR_CODE_FILE_MISSING)
	CodeDigestMismatch   = Code(anomalyv1.ErrorCode_ERROR_CODE_DIGEST_MISMATCH)
	CodeGraphInvalid     = Code(anomalyv1.ErrorCode_ERROR_CODE_GRAPH_INVALID)
	CodeGoldenMismatch   = Code(anomalyv1.ErrorCode_ERROR_CODE_GOLDEN_MISMATCH)
	CodeSignatureMissing = Code(anomalyv1.ErrorCode_ERROR_CODE_SIGNATURE_MISSING)
	CodeSignatureInvalid = Code(anomalyv1.ErrorCode_ERROR_CODE_SIGNATURE_INVALID)

	CodeInternal = Code(anomalyv1.ErrorCode_ERROR_CODE_INTERNAL)
)

const codePrefix = "ERROR_CODE_"

// String is the name that people and JSON see, for example NOT_FINITE.
func (c Code) String() string {
	return strings.TrimPrefix(anomalyv1.ErrorCode(c).String(), codePrefix)
}

// Error makes a Code usable with errors.Is.
func (c Code) Error() string { return c.String() }

// Remedy is one sentence for the person who has to act on a refusal.
func (c Code) Remedy() string {
	switch c {
	case CodeManifestMissing:
		return "Give the folder that training wrote; it has a manifest.json."
	case CodeMetadataInvalid:
		return "Export the model set again; its JSON files are not edited by hand."
	case CodeSchemaFromFuture:
		return "Update this program, or use a model set written for version 1 of the contract."
	case CodeFileMissing, CodeDigestMismatch:
		return "Copy the whole model set again; it is incomplete or was changed after it was published."
	case CodeGraphInvalid:
		return "Export the model set again with the exporter of this contract version."
	case CodeGoldenMismatch:
		return "Do not use this model set here: report the case, the set's id and the platform."
	case CodeSignatureMissing:
		return "Sign the set where the private key is: dwcp sign --models DIR --key KEY.pem."
	case CodeSignatureInvalid:
		return "Do not use the set before you know who changed it, or which key signed it."
	case CodeModelSetMismatch:
		return "Point the client and the server at the same model set."
	case CodeUnknownSeries:
		return "Name a series of the fleet, or train the fleet with a set for all others."
	case CodeDetectorUnavailable:
		return "Use a model set that holds this detector with a graph."
	case CodeInternal:
		return "See the message; for a sidecar, check that it runs and can be reached."
	default:
		return "Correct the request; the message says what is wrong with it."
	}
}

// codeFromName is the inverse of Code.String, false for a name that is not in the contract.
func codeFromName(name string) (Code, bool) {
	value, ok := anomalyv1.ErrorCode_value[codePrefix+name]
	return Code(value), ok && value != 0
}

// Error is every refusal of this package (rule E1).
type Error struct {
	// Code is compared between implementations.
	Code Code
	// Field is what is at fault: `samples[3].packet_loss`, `rows`, `detector`, or a file name. Compared between
	// implementations.
	Field string
	// Message is a sentence for people. Not compared.
	Message string

	cause error
}

// Error is "CODE field: message".
func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s %s: %s", e.Code, e.Field, e.Message)
}

// Is matches a Code, so that errors.Is(err, CodeNotFinite) works.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap gives what caused the refusal, nil when nothing did.
func (e *Error) Unwrap() error { return e.cause }

// refuse makes an *Error. An error among the arguments of a %w verb becomes its cause.
func refuse(code Code, field, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Code: code, Field: field, Message: wrapped.Error(), cause: errors.Unwrap(wrapped)}
}

// AsError gives err as *Error; what is none of ours is INTERNAL.
func AsError(err error) *Error {
	var typed *Error
	if errors.As(err, &typed) {
		return typed
	}
	return &Error{Code: CodeInternal, Message: err.Error(), cause: err}
}
