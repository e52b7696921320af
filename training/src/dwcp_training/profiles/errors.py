"""The one error of this package, and the translation of pydantic's errors into it."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


class ProfileError(ValueError):
    """A profile cannot be used.

    Attributes:
        field: path of the key at fault, for example ``detectors.isolation_forest.contamination``.
        message: what is wrong, for people.
        remedy: what to do about it.
    """

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{field}: {message}" + (f" {remedy}" if remedy else ""))
        self.field = field
        self.message = message
        self.remedy = remedy


_RELATIONS = {
    "greater_than": "greater than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def nearest(word: object, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` for the known name nearest to `word`, or the list of known names when none is near."""
    names = list(known)
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = (repr(name) if set(name) & set(",;|\t ") else name for name in names)
    return f"Known: {', '.join(shown)}." if names else ""


def from_validation(error: ValidationError, root: type[BaseModel], where: str) -> ProfileError:
    """One `ProfileError` for all faults that pydantic found in the profile `where`.

    The field is that of the first fault; the message has a line for each further one.
    """
    by_field: dict[str, tuple[str, str, str]] = {}
    # A union reports each of its branches. The first says enough, but for a number that is not the one about names.
    for item in sorted(
        error.errors(), key=lambda item: item["type"] == "literal_error" and not isinstance(item["input"], str)
    ):
        fault = _fault(dict(item), root)
        by_field.setdefault(fault[0], fault)
    faults = list(by_field.values())
    field, message, remedy = faults[0]
    others = [f"\n  also {other}: {text} {advice}".rstrip() for other, text, advice in faults[1:]]
    return ProfileError(field, f"{message} (profile {where})", remedy + "".join(others))


def _fault(item: dict[str, Any], root: type[BaseModel]) -> tuple[str, str, str]:
    """Field, message and remedy of one of pydantic's errors."""
    location = _keys_only(item["loc"], root)
    field = _path(location) or "profile"
    given = item.get("input")
    context: Mapping[str, Any] = item.get("ctx") or {}
    match item["type"]:
        case "extra_forbidden":
            return field, "unknown key.", nearest(location[-1], _keys(root, location[:-1]))
        case "missing":
            return field, "missing key.", "Add it."
        case "literal_error":
            return field, f"{given!r} is not a known value.", nearest(given, _literals(root, location))
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            bound = next(iter(context.values()))
            return field, f"{given!r} is not {_RELATIONS[item['type']]} {bound}.", f"The nearest limit is {bound}."
        case "model_type" | "dict_type":
            return field, f"must hold keys and values; got {given!r}.", nearest("", _keys(root, location))
        case "value_error":
            return field, f"{context['error']}.", ""
        case _:
            return field, f"{item['msg']}; got {given!r}.", ""


def _keys_only(location: Sequence[str | int], root: type[BaseModel]) -> Sequence[str | int]:
    """`location` up to the value itself: pydantic appends the name of the branch of a union."""
    known: list[str | int] = []
    for part in location:
        found = _annotation(root, known)
        if not (isinstance(part, int) or _is_model(found) or typing.get_origin(found) is dict):
            break
        known.append(part)
    return known


def _path(location: Sequence[str | int]) -> str:
    """``('features', 2, 'name')`` as ``features[2].name``."""
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return parts.removeprefix(".")


def _keys(root: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The valid keys of the mapping at `location`."""
    found = _annotation(root, location)
    return list(found.model_fields) if _is_model(found) else []


def _literals(root: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The valid texts of the value at `location`."""
    return _texts(_annotation(root, location))


def _texts(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(value) for value in typing.get_args(annotation)]
    return [text for part in typing.get_args(annotation) for text in _texts(part)]


def _annotation(root: type[BaseModel], location: Sequence[str | int]) -> Any:
    """The type at `location`, following the fields of models and the items of tuples."""
    current: Any = root
    for part in location:
        if isinstance(part, int):
            current = typing.get_args(current)[0]
        elif _is_model(current):
            current = _without_none(current.model_fields[part].annotation) if part in current.model_fields else None
        else:  # a key of a mapping: its value holds no further keys
            current = None
    return current


def _without_none(annotation: Any) -> Any:
    """``X`` for ``X | None`` with one X, so that the keys of an optional section are known."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(annotation) and len(parts) == 1 else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
