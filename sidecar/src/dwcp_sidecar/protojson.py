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
        raise ContractError(
            "METADATA_INVALID", name, f"{name} does not fit {message.DESCRIPTOR.name}: {error}. Publish the set again."
        ) from None
    return message


def dumps(message: Message) -> str:
    """ProtoJSON with snake_case names, every field present, lists of numbers on one line each; ends with a newline."""
    data = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    _sort_maps(data, message.DESCRIPTOR)
    return _layout(data, "") + "\n"


def write(message: Message, path: Path) -> None:
    """Writes `dumps(message)` as UTF-8."""
    path.write_text(dumps(message), encoding="utf-8")


def _sort_maps(data: dict[str, Any], descriptor: Descriptor) -> None:
    """Protobuf maps have no order; files that must not change from run to run need one."""
    for field in descriptor.fields:
        value = data.get(field.name)
        if field.message_type is None or value is None:
            continue
        if field.message_type.GetOptions().map_entry:
            data[field.name] = dict(sorted(value.items()))
        else:
            for item in value if field.is_repeated else [value]:
                _sort_maps(item, field.message_type)


def _layout(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_layout(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + _layout(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
