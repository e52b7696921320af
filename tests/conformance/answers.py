"""Reads answer lines strictly: every member that the contract wants, and no other (rule E5)."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_SCORED = {"id", "score", "score_bits", "is_anomaly", "contributions", "expected"}


@dataclass
class Answers:
    """Answers for `n` cases of one detector with `f` features; rows of refused cases are NaN.

    Attributes:
        errors: code and field of each refusal, or None.
        scores: published scores as float64 `[n]`.
        bits: their float32 bits, int64 `[n]`.
        is_anomaly: bool `[n]`.
        contributions, expected: float64 `[n, f]`.
        depth_sums: float64 `[n]`; NaN where there is none.
        faults: what is wrong with the answers as such: missing, out of order, malformed. None may be.
    """

    errors: list[tuple[str, str] | None]
    scores: np.ndarray
    bits: np.ndarray
    is_anomaly: np.ndarray
    contributions: np.ndarray
    expected: np.ndarray
    depth_sums: np.ndarray
    faults: list[str] = field(default_factory=list)


def read_answers(path: Path, ids: list[str | None], width: int, depth: bool) -> Answers:
    """Reads one answer for each id, in order.

    Args:
        path: file of answer lines.
        ids: the ids wanted.
        width: number of features.
        depth: whether answers carry `depth_sum`.
    """
    n = len(ids)
    answers = Answers(
        errors=[None] * n,
        scores=np.full(n, np.nan),
        bits=np.full(n, -1),
        is_anomaly=np.zeros(n, bool),
        contributions=np.full((n, width), np.nan),
        expected=np.full((n, width), np.nan),
        depth_sums=np.full(n, np.nan),
    )
    members = _SCORED | {"depth_sum"} if depth else _SCORED
    read = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            if read < n:
                try:
                    _read_one(answers, read, json.loads(line, parse_constant=_not_json), ids[read], width, members)
                except (ValueError, TypeError, KeyError) as error:
                    answers.errors[read] = ("MALFORMED", str(error))
                    answers.faults.append(f"answer {read} to {ids[read]}: {error}: {line.strip()[:200]}")
            read += 1
    if read != n:
        answers.faults.append(f"{read} answers to {n} requests")
        for i in range(read, n):
            answers.errors[i] = ("MISSING", "")
    return answers


def _read_one(answers: Answers, i: int, data: Any, id: str | None, width: int, members: set[str]) -> None:
    if data["id"] != id:
        raise ValueError(f"its id is {data['id']!r}: out of order")
    if "error" in data:
        error = data["error"]
        if set(data) != {"id", "error"} or set(error) != {"code", "field", "message"} or not error["message"]:
            raise ValueError("not the members of a refusal")
        answers.errors[i] = (error["code"], error["field"])
        return
    if set(data) != members:
        raise ValueError(f"members are {sorted(data)}, wanted {sorted(members)}")
    if type(data["is_anomaly"]) is not bool or type(data["score_bits"]) is not int:
        raise ValueError("is_anomaly or score_bits has another type")
    if len(data["contributions"]) != width or len(data["expected"]) != width:
        raise ValueError(f"not {width} contributions and expected values")
    answers.scores[i], answers.bits[i] = data["score"], data["score_bits"]
    answers.is_anomaly[i] = data["is_anomaly"]
    answers.contributions[i] = [_number(x) for x in data["contributions"]]
    answers.expected[i] = [_number(x) for x in data["expected"]]
    if "depth_sum" in members:
        answers.depth_sums[i] = data["depth_sum"]


_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


def _number(value: Any) -> float:
    """A number, or an infinity as E5 writes it (P1)."""
    if isinstance(value, str):
        return _INFINITIES[value]
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} stands in the place of a number")
    return float(value)


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
