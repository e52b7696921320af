from dwcp.anomaly.v1 import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FleetOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLEET_ORIGIN_UNSPECIFIED: _ClassVar[FleetOrigin]
    FLEET_ORIGIN_OWN: _ClassVar[FleetOrigin]
    FLEET_ORIGIN_CLUSTER: _ClassVar[FleetOrigin]
    FLEET_ORIGIN_GLOBAL: _ClassVar[FleetOrigin]
FLEET_ORIGIN_UNSPECIFIED: FleetOrigin
FLEET_ORIGIN_OWN: FleetOrigin
FLEET_ORIGIN_CLUSTER: FleetOrigin
FLEET_ORIGIN_GLOBAL: FleetOrigin

class FleetSeries(_message.Message):
    __slots__ = ("name", "model_set_id", "origin", "cluster", "rows", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    model_set_id: str
    origin: FleetOrigin
    cluster: str
    rows: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., model_set_id: _Optional[str] = ..., origin: _Optional[_Union[FleetOrigin, str]] = ..., cluster: _Optional[str] = ..., rows: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class FleetIndex(_message.Message):
    __slots__ = ("schema_version", "feature_schema", "series", "global_set_id")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_SET_ID_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    feature_schema: _features_pb2.FeatureSchema
    series: _containers.RepeatedCompositeFieldContainer[FleetSeries]
    global_set_id: str
    def __init__(self, schema_version: _Optional[int] = ..., feature_schema: _Optional[_Union[_features_pb2.FeatureSchema, _Mapping]] = ..., series: _Optional[_Iterable[_Union[FleetSeries, _Mapping]]] = ..., global_set_id: _Optional[str] = ...) -> None: ...
