from dwcp.anomaly.v1 import errors_pb2 as _errors_pb2
from dwcp.anomaly.v1 import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GoldenScore(_message.Message):
    __slots__ = ("score", "score_bits", "is_anomaly", "contributions", "expected", "depth_sum")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORE_BITS_FIELD_NUMBER: _ClassVar[int]
    IS_ANOMALY_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    DEPTH_SUM_FIELD_NUMBER: _ClassVar[int]
    score: float
    score_bits: int
    is_anomaly: bool
    contributions: _containers.RepeatedScalarFieldContainer[float]
    expected: _containers.RepeatedScalarFieldContainer[float]
    depth_sum: float
    def __init__(self, score: _Optional[float] = ..., score_bits: _Optional[int] = ..., is_anomaly: _Optional[bool] = ..., contributions: _Optional[_Iterable[float]] = ..., expected: _Optional[_Iterable[float]] = ..., depth_sum: _Optional[float] = ...) -> None: ...

class GoldenCase(_message.Message):
    __slots__ = ("id", "comment", "flags", "samples", "score", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    comment: str
    flags: _containers.RepeatedScalarFieldContainer[str]
    samples: _containers.RepeatedCompositeFieldContainer[_features_pb2.Sample]
    score: GoldenScore
    error: _errors_pb2.ErrorInfo
    def __init__(self, id: _Optional[str] = ..., comment: _Optional[str] = ..., flags: _Optional[_Iterable[str]] = ..., samples: _Optional[_Iterable[_Union[_features_pb2.Sample, _Mapping]]] = ..., score: _Optional[_Union[GoldenScore, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.ErrorInfo, _Mapping]] = ...) -> None: ...

class GoldenFile(_message.Message):
    __slots__ = ("schema_version", "model_type", "flags", "cases")
    class FlagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    model_type: str
    flags: _containers.ScalarMap[str, str]
    cases: _containers.RepeatedCompositeFieldContainer[GoldenCase]
    def __init__(self, schema_version: _Optional[int] = ..., model_type: _Optional[str] = ..., flags: _Optional[_Mapping[str, str]] = ..., cases: _Optional[_Iterable[_Union[GoldenCase, _Mapping]]] = ...) -> None: ...
