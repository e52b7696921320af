from dwcp.anomaly.v1 import errors_pb2 as _errors_pb2
from dwcp.anomaly.v1 import features_pb2 as _features_pb2
from dwcp.anomaly.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_NORMAL: _ClassVar[Level]
    LEVEL_WARNING: _ClassVar[Level]
    LEVEL_CRITICAL: _ClassVar[Level]

class Explain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_UNSPECIFIED: _ClassVar[Explain]
    EXPLAIN_ALARMS: _ClassVar[Explain]
    EXPLAIN_ALWAYS: _ClassVar[Explain]
    EXPLAIN_NEVER: _ClassVar[Explain]

class BatchLayout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCH_LAYOUT_UNSPECIFIED: _ClassVar[BatchLayout]
    BATCH_LAYOUT_WINDOWS: _ClassVar[BatchLayout]
    BATCH_LAYOUT_SERIES: _ClassVar[BatchLayout]
LEVEL_UNSPECIFIED: Level
LEVEL_NORMAL: Level
LEVEL_WARNING: Level
LEVEL_CRITICAL: Level
EXPLAIN_UNSPECIFIED: Explain
EXPLAIN_ALARMS: Explain
EXPLAIN_ALWAYS: Explain
EXPLAIN_NEVER: Explain
BATCH_LAYOUT_UNSPECIFIED: BatchLayout
BATCH_LAYOUT_WINDOWS: BatchLayout
BATCH_LAYOUT_SERIES: BatchLayout

class ScoreRequest(_message.Message):
    __slots__ = ("detector", "samples", "explain", "model_set_id", "series")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    detector: _model_pb2.Detector
    samples: _containers.RepeatedCompositeFieldContainer[_features_pb2.Sample]
    explain: Explain
    model_set_id: str
    series: str
    def __init__(self, detector: _Optional[_Union[_model_pb2.Detector, str]] = ..., samples: _Optional[_Iterable[_Union[_features_pb2.Sample, _Mapping]]] = ..., explain: _Optional[_Union[Explain, str]] = ..., model_set_id: _Optional[str] = ..., series: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("score", "is_anomaly", "threshold", "p_value", "level", "contributions", "expected", "top_feature", "depth_sum", "members")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    IS_ANOMALY_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    TOP_FEATURE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_SUM_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    score: float
    is_anomaly: bool
    threshold: float
    p_value: float
    level: Level
    contributions: _containers.RepeatedScalarFieldContainer[float]
    expected: _containers.RepeatedScalarFieldContainer[float]
    top_feature: str
    depth_sum: float
    members: _containers.RepeatedCompositeFieldContainer[MemberVerdict]
    def __init__(self, score: _Optional[float] = ..., is_anomaly: _Optional[bool] = ..., threshold: _Optional[float] = ..., p_value: _Optional[float] = ..., level: _Optional[_Union[Level, str]] = ..., contributions: _Optional[_Iterable[float]] = ..., expected: _Optional[_Iterable[float]] = ..., top_feature: _Optional[str] = ..., depth_sum: _Optional[float] = ..., members: _Optional[_Iterable[_Union[MemberVerdict, _Mapping]]] = ...) -> None: ...

class MemberVerdict(_message.Message):
    __slots__ = ("detector", "weight", "score", "normalized", "missing")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    detector: _model_pb2.Detector
    weight: float
    score: float
    normalized: float
    missing: str
    def __init__(self, detector: _Optional[_Union[_model_pb2.Detector, str]] = ..., weight: _Optional[float] = ..., score: _Optional[float] = ..., normalized: _Optional[float] = ..., missing: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("verdict", "model_set_id")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    model_set_id: str
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., model_set_id: _Optional[str] = ...) -> None: ...

class ScoreBatchRequest(_message.Message):
    __slots__ = ("detector", "rows", "layout", "explain", "model_set_id", "series")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    detector: _model_pb2.Detector
    rows: bytes
    layout: BatchLayout
    explain: Explain
    model_set_id: str
    series: str
    def __init__(self, detector: _Optional[_Union[_model_pb2.Detector, str]] = ..., rows: _Optional[bytes] = ..., layout: _Optional[_Union[BatchLayout, str]] = ..., explain: _Optional[_Union[Explain, str]] = ..., model_set_id: _Optional[str] = ..., series: _Optional[str] = ...) -> None: ...

class ScoreBatchResponse(_message.Message):
    __slots__ = ("scores", "is_anomaly", "p_values", "levels", "contributions", "expected", "depth_sums", "threshold", "model_set_id")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    IS_ANOMALY_FIELD_NUMBER: _ClassVar[int]
    P_VALUES_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    DEPTH_SUMS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    is_anomaly: _containers.RepeatedScalarFieldContainer[bool]
    p_values: _containers.RepeatedScalarFieldContainer[float]
    levels: _containers.RepeatedScalarFieldContainer[Level]
    contributions: _containers.RepeatedScalarFieldContainer[float]
    expected: _containers.RepeatedScalarFieldContainer[float]
    depth_sums: _containers.RepeatedScalarFieldContainer[float]
    threshold: float
    model_set_id: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., is_anomaly: _Optional[_Iterable[bool]] = ..., p_values: _Optional[_Iterable[float]] = ..., levels: _Optional[_Iterable[_Union[Level, str]]] = ..., contributions: _Optional[_Iterable[float]] = ..., expected: _Optional[_Iterable[float]] = ..., depth_sums: _Optional[_Iterable[float]] = ..., threshold: _Optional[float] = ..., model_set_id: _Optional[str] = ...) -> None: ...

class GetModelSetRequest(_message.Message):
    __slots__ = ("series",)
    SERIES_FIELD_NUMBER: _ClassVar[int]
    series: str
    def __init__(self, series: _Optional[str] = ...) -> None: ...

class GetModelSetResponse(_message.Message):
    __slots__ = ("model_set_id", "models", "fleet_id")
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FLEET_ID_FIELD_NUMBER: _ClassVar[int]
    model_set_id: str
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelMetadata]
    fleet_id: str
    def __init__(self, model_set_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_model_pb2.ModelMetadata, _Mapping]]] = ..., fleet_id: _Optional[str] = ...) -> None: ...

class StreamSettings(_message.Message):
    __slots__ = ("detectors", "explain", "model_set_id")
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    detectors: _containers.RepeatedScalarFieldContainer[_model_pb2.Detector]
    explain: Explain
    model_set_id: str
    def __init__(self, detectors: _Optional[_Iterable[_Union[_model_pb2.Detector, str]]] = ..., explain: _Optional[_Union[Explain, str]] = ..., model_set_id: _Optional[str] = ...) -> None: ...

class StreamSample(_message.Message):
    __slots__ = ("series", "values", "restart")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    series: str
    values: _containers.RepeatedScalarFieldContainer[float]
    restart: bool
    def __init__(self, series: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., restart: _Optional[bool] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("settings", "samples")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    settings: StreamSettings
    samples: _containers.RepeatedCompositeFieldContainer[StreamSample]
    def __init__(self, settings: _Optional[_Union[StreamSettings, _Mapping]] = ..., samples: _Optional[_Iterable[_Union[StreamSample, _Mapping]]] = ...) -> None: ...

class StreamVerdict(_message.Message):
    __slots__ = ("verdict", "error")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    error: _errors_pb2.ErrorInfo
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.ErrorInfo, _Mapping]] = ...) -> None: ...

class StreamResult(_message.Message):
    __slots__ = ("verdicts", "model_set_id")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[StreamVerdict]
    model_set_id: str
    def __init__(self, verdicts: _Optional[_Iterable[_Union[StreamVerdict, _Mapping]]] = ..., model_set_id: _Optional[str] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("results", "model_set_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StreamResult]
    model_set_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[StreamResult, _Mapping]]] = ..., model_set_id: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("model_set_id", "changed")
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    model_set_id: str
    changed: bool
    def __init__(self, model_set_id: _Optional[str] = ..., changed: _Optional[bool] = ...) -> None: ...
