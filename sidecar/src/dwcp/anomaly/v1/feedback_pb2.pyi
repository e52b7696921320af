from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class FeedbackSummary(_message.Message):
    __slots__ = ("schema_version", "days", "true_alarms", "false_alarms", "missed_faults", "updated")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    TRUE_ALARMS_FIELD_NUMBER: _ClassVar[int]
    FALSE_ALARMS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FAULTS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    days: int
    true_alarms: int
    false_alarms: int
    missed_faults: int
    updated: str
    def __init__(self, schema_version: _Optional[int] = ..., days: _Optional[int] = ..., true_alarms: _Optional[int] = ..., false_alarms: _Optional[int] = ..., missed_faults: _Optional[int] = ..., updated: _Optional[str] = ...) -> None: ...
