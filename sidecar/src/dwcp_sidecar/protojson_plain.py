"""ProtoJSON in the form that writers give it, read many times as fast as by `json_format`.

`json_format` treats every number on its own, through several calls. A model set has thousands of them, and a fleet
opens sets while callers wait. What is here reads files in which nothing is unusual, and for all else says so: then
`json_format` reads the file, or refuses it with its own words. So nothing is accepted here that it would refuse.
"""

import json
import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LARGEST_FLOAT32 = 3.4028234663852886e38
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
}


class _UnusualError(Exception):
    """Something that this reader leaves to `json_format`."""


def fill(text: bytes, message: Message) -> bool:
    """Fills an empty message from ProtoJSON, if nothing in it is unusual.

    Usual are: snake_case names, each once; strings, booleans and finite numbers as themselves, others
    as ProtoJSON names them; enums by name; integers of 32 bits; maps with string keys; no null.

    Returns:
        Whether it did. If not the message is empty, and the text may be good or bad.
    """
    try:
        data = json.loads(text.decode(), object_pairs_hook=_distinct)
        _fill(data, message, message.DESCRIPTOR)
    except (_UnusualError, ValueError, TypeError, OverflowError, RecursionError):
        message.Clear()
        return False
    return True


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _UnusualError
    return found


def _fill(data: Any, message: Any, descriptor: Descriptor) -> None:
    if type(data) is not dict or descriptor.file.package != "dwcp.anomaly.v1":
        raise _UnusualError  # messages of Google's have a JSON of their own
    fields = descriptor.fields_by_name
    taken: set[str] = set()
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            raise _UnusualError
        if field.containing_oneof is not None:
            if field.containing_oneof.name in taken:
                raise _UnusualError
            taken.add(field.containing_oneof.name)
        if field.message_type is not None:
            _fill_message(field, value, message)
        elif field.is_repeated:
            if type(value) is not list:
                raise _UnusualError
            getattr(message, name).extend(_scalars(field, value))
        else:
            setattr(message, name, _scalars(field, (value,))[0])


def _fill_message(field: FieldDescriptor, value: Any, message: Any) -> None:
    inner = field.message_type
    if inner.GetOptions().map_entry:
        if type(value) is not dict or inner.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
            raise _UnusualError
        to, kind = getattr(message, field.name), inner.fields_by_name["value"]
        if kind.message_type is not None:
            for key, item in value.items():
                _fill(item, to[key], kind.message_type)
        else:
            for key, item in zip(value, _scalars(kind, tuple(value.values())), strict=True):
                to[key] = item
    elif field.is_repeated:
        if type(value) is not list:
            raise _UnusualError
        to = getattr(message, field.name)
        for item in value:
            _fill(item, to.add(), inner)
    else:
        to = getattr(message, field.name)
        to.SetInParent()
        _fill(value, to, inner)


def _scalars(field: FieldDescriptor, values: Any) -> Any:
    """The values of a field, all of its type."""
    kind = field.type
    if kind == FieldDescriptor.TYPE_DOUBLE or kind == FieldDescriptor.TYPE_FLOAT:
        if not {float, int}.issuperset(map(type, values)):
            values = [_SPECIAL[value] if type(value) is str and value in _SPECIAL else value for value in values]
            if not {float, int}.issuperset(map(type, values)):
                raise _UnusualError
        elif not all(map(math.isfinite, values)):  # a literal that is no JSON, or beyond float64
            raise _UnusualError
        if kind == FieldDescriptor.TYPE_FLOAT and not all(abs(value) <= _LARGEST_FLOAT32 for value in values):
            raise _UnusualError
        return values
    if kind == FieldDescriptor.TYPE_ENUM:
        numbers = field.enum_type.values_by_name
        if not all(type(value) is str and value in numbers for value in values):
            raise _UnusualError
        return [numbers[value].number for value in values]
    wanted = {FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BOOL: bool}.get(kind)
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if not all(type(value) is int and low <= value <= high for value in values):
            raise _UnusualError
    elif wanted is None or not all(type(value) is wanted for value in values):
        raise _UnusualError
    return values
