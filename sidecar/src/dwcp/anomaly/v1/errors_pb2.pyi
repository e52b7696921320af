from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_REQUEST: _ClassVar[ErrorCode]
    ERROR_CODE_UNKNOWN_DETECTOR: _ClassVar[ErrorCode]
    ERROR_CODE_DETECTOR_UNAVAILABLE: _ClassVar[ErrorCode]
    ERROR_CODE_NO_SAMPLES: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_MANY_SAMPLES: _ClassVar[ErrorCode]
    ERROR_CODE_WRONG_WIDTH: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_FINITE: _ClassVar[ErrorCode]
    ERROR_CODE_WINDOW_TOO_SHORT: _ClassVar[ErrorCode]
    ERROR_CODE_BATCH_TOO_LARGE: _ClassVar[ErrorCode]
    ERROR_CODE_MODEL_SET_MISMATCH: _ClassVar[ErrorCode]
    ERROR_CODE_UNKNOWN_SERIES: _ClassVar[ErrorCode]
    ERROR_CODE_MANIFEST_MISSING: _ClassVar[ErrorCode]
    ERROR_CODE_METADATA_INVALID: _ClassVar[ErrorCode]
    ERROR_CODE_SCHEMA_FROM_FUTURE: _ClassVar[ErrorCode]
    ERROR_CODE_FILE_MISSING: _ClassVar[ErrorCode]
    ERROR_CODE_DIGEST_MISMATCH: _ClassVar[ErrorCode]
    ERROR_CODE_GRAPH_INVALID: _ClassVar[ErrorCode]
    ERROR_CODE_GOLDEN_MISMATCH: _ClassVar[ErrorCode]
    ERROR_CODE_SIGNATURE_MISSING: _ClassVar[ErrorCode]
    ERROR_CODE_SIGNATURE_INVALID: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_INVALID_REQUEST: ErrorCode
ERROR_CODE_UNKNOWN_DETECTOR: ErrorCode
ERROR_CODE_DETECTOR_UNAVAILABLE: ErrorCode
ERROR_CODE_NO_SAMPLES: ErrorCode
ERROR_CODE_TOO_MANY_SAMPLES: ErrorCode
ERROR_CODE_WRONG_WIDTH: ErrorCode
ERROR_CODE_NOT_FINITE: ErrorCode
ERROR_CODE_WINDOW_TOO_SHORT: ErrorCode
ERROR_CODE_BATCH_TOO_LARGE: ErrorCode
ERROR_CODE_MODEL_SET_MISMATCH: ErrorCode
ERROR_CODE_UNKNOWN_SERIES: ErrorCode
ERROR_CODE_MANIFEST_MISSING: ErrorCode
ERROR_CODE_METADATA_INVALID: ErrorCode
ERROR_CODE_SCHEMA_FROM_FUTURE: ErrorCode
ERROR_CODE_FILE_MISSING: ErrorCode
ERROR_CODE_DIGEST_MISMATCH: ErrorCode
ERROR_CODE_GRAPH_INVALID: ErrorCode
ERROR_CODE_GOLDEN_MISMATCH: ErrorCode
ERROR_CODE_SIGNATURE_MISSING: ErrorCode
ERROR_CODE_SIGNATURE_INVALID: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode

class ErrorInfo(_message.Message):
    __slots__ = ("code", "field", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    field: str
    message: str
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
