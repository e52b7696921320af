"""ProtoJSON files, read strictly and written readably (rule A3)."""

import json
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from dwcp_sidecar.errors import ContractError

M = TypeVar("M", bound=Message)


def parse(text: bytes, message: M, name: str) -> M:
    """Fills `message` from ProtoJSON bytes.

    Raises:
        ContractError: METADATA_INVALID naming the file, when it is not JSON, has unknown fields or wrong types.
    """
    try:
        json_format.Parse(text, message, ignore_unknown_fields=False)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        what = str(error).partition("\n")[0]  # further lines list all fields there are
        raise ContractError(
            "METADATA_INVALID", name, f"{name} does not fit {message.DESCRIPTOR.name}: {what}. Publish the set again."
        ) from None
    return message


def dumps(message: Message) -> str:
    """ProtoJSON with snake_case names, every field present, lists of numbers on one line each; ends with a newline."""
    data = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return _layout(_ordered(data, message.DESCRIPTOR), "") + "\n"


def write(message: Message, path: Path) -> None:
    """Writes `dumps(message)` as UTF-8."""
    path.write_text(dumps(message), encoding="utf-8")


def _ordered(data: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """Fields in the order of the schema and maps by key: protobuf promises neither, and files must not change from run to run."""
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
