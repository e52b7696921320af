"""ProtoJSON files, read strictly and written readably (rule A3)."""

import json
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from dwcp_sidecar import protojson_plain
from dwcp_sidecar.errors import ContractError

M = TypeVar("M", bound=Message)

SCHEMA_VERSION = 1
"""Newest `schema_version` that this code reads (A4)."""


def parse(text: bytes, message: M, name: str) -> M:
    """Fills `message`, which is empty, from ProtoJSON bytes.

    Raises:
        ContractError: SCHEMA_FROM_FUTURE or METADATA_INVALID naming the file: it was written by a newer version of the
            contract (A4), or it is not JSON, has unknown fields or wrong types (A3).
    """
    if protojson_plain.fill(text, message):
        return message
    try:
        json_format.Parse(text, message, ignore_unknown_fields=False)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        require_known_version(_stated_version(text), name)  # what a newer version added is no mistake
        what = str(error).partition("\n")[0]  # further lines list all fields there are
        raise ContractError(
            "METADATA_INVALID", name, f"{name} does not fit {message.DESCRIPTOR.name}: {what}. Publish the set again."
        ) from None
    return message


def require_known_version(version: int, name: str) -> None:
    """Raises SCHEMA_FROM_FUTURE naming the file when its `schema_version` is newer than this code (A4)."""
    if version > SCHEMA_VERSION:
        raise ContractError(
            "SCHEMA_FROM_FUTURE",
            name,
            f"{name} has schema_version {version}; this program reads up to {SCHEMA_VERSION}. Upgrade the program.",
        )


def _stated_version(text: bytes) -> int:
    """The `schema_version` of a file that may be anything; 0 when it states none."""
    try:
        version = json.loads(text)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return version if type(version) is int else 0


def dumps(message: Message) -> str:
    """ProtoJSON with snake_case names, every field present, lists of numbers on one line each; ends with a newline."""
    data = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _layout(_ordered(data, message.DESCRIPTOR), "") + "\n"


def _ordered(data: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """Fields in the order of the schema and maps by key.

    Protobuf promises neither, and files must not change from run to run.
    """
    ordered = {}
    for field in descriptor.fields:
        if field.name not in data:
            continue
        value = data[field.name]
        if field.message_type is not None and isinstance(value, (dict, list)):
            if field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"].message_type
                value = {key: _ordered(value[key], inner) if inner else value[key] for key in sorted(value)}
            elif isinstance(value, list):
                value = [_ordered(item, field.message_type) for item in value]
            else:
                value = _ordered(value, field.message_type)
        ordered[field.name] = value
    return ordered


def _layout(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_layout(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + _layout(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
