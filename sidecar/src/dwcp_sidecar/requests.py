"""Requests and answers as JSON lines (rule E5)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.verdicts import Verdicts

_SAFE_DIGITS = 308  # 10^308 and less fits in float64
_MAX_ID_DEPTH = 64  # far from the recursion limit of the encoder, which would otherwise fail on the answer
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Request:
    """One line: its id (any JSON value), detector and samples."""

    id: Any
    detector: str
    samples: list[list[float]]


class RequestError(Exception):
    """A line that is no request: its id as far as it could be read, and the error of the contract."""

    def __init__(self, id: Any, error: ContractError) -> None:
        super().__init__(str(error))
        self.id = id
        self.error = error


def parse_request(line: str | bytes) -> Request:
    """Parses one line.

    Raises:
        RequestError: with INVALID_REQUEST (E5).
    """
    try:
        text = line if isinstance(line, str) else line.decode()  # json alone would guess at UTF-16
        data = json.loads(text, parse_int=_integer, parse_constant=_refuse)
        # Ids come back as they were sent: only numbers inside samples are wanted as float64.
        id = _echo(data.get("id")) if isinstance(data, dict) else None
    except (ValueError, RecursionError) as error:
        raise RequestError(None, _invalid("", f"the line is not JSON: {error}")) from None
    if not isinstance(data, dict):
        raise RequestError(None, _invalid("", "the line is not a JSON object with id, detector and samples"))
    detector = data.get("detector")
    if not isinstance(detector, str):
        raise RequestError(id, _invalid("detector", "detector is not a string"))
    samples = data.get("samples")
    if not isinstance(samples, list) or not all(isinstance(sample, list) for sample in samples):
        raise RequestError(id, _invalid("samples", "samples is not a list of lists of numbers"))
    try:
        values = [[x if type(x) is float else _number(x) for x in sample] for sample in samples]
    except ContractError as error:
        raise RequestError(id, error) from None
    return Request(id, detector, values)


def _integer(literal: str) -> int | float:
    """An integer literal, exact for ids; one that may be too large for float64 is left to float (E5)."""
    return int(literal) if len(literal) <= _SAFE_DIGITS else float(literal)


def _number(value: Any) -> float:
    if type(value) is int or type(value) is float:
        return float(value)
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    what = json.dumps(value)[:40] if value is None or isinstance(value, (str, bool)) else f"a {type(value).__name__}"
    raise _invalid("samples", f"{what} stands in the place of a number")


def _echo(id: Any, depth: int = 0) -> Any:
    """An id that can be written as JSON again: an infinity (a literal too large for float64) as E5 writes it."""
    if isinstance(id, float) and math.isinf(id):
        return "Infinity" if id > 0 else "-Infinity"
    if not isinstance(id, (list, dict)):
        return id
    if depth == _MAX_ID_DEPTH:
        raise RecursionError(f"the id nests deeper than {_MAX_ID_DEPTH} levels")
    if isinstance(id, list):
        return [_echo(item, depth + 1) for item in id]
    return {key: _echo(item, depth + 1) for key, item in id.items()}


def _refuse(constant: str) -> Any:
    raise ValueError(f'{constant} is not JSON; write it as a string: "{constant}"')


def _invalid(field: str, message: str) -> ContractError:
    return ContractError("INVALID_REQUEST", field, message)


def answer(id: Any, verdicts: Verdicts, index: int = 0) -> str:
    """The line for one scored item."""
    data: dict[str, Any] = {
        "id": id,
        "score": float(verdicts.scores[index]),
        "score_bits": int(verdicts.scores[index : index + 1].view(np.uint32)[0]),
        "is_anomaly": bool(verdicts.is_anomaly[index]),
        "contributions": verdicts.contributions[index].tolist(),
        "expected": _finite_or_named(verdicts.expected[index].tolist()),
    }
    if verdicts.depth_sums is not None:
        data["depth_sum"] = float(verdicts.depth_sums[index])
    return json.dumps(data)


def _finite_or_named(values: list[float]) -> Sequence[float | str]:
    """Numbers, with an infinity (an expected value beyond float32, P1) as E5 writes it."""
    return values if all(map(math.isfinite, values)) else [_echo(value) for value in values]


def answer_error(id: Any, error: ContractError) -> str:
    """The line for one refused request."""
    return json.dumps({"id": id, "error": {"code": error.code, "field": error.field, "message": error.message}})
