"""Rules E2 and E5 once more, written from the contract alone: what a line must be answered with when it is at fault."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.conformance.cases import DETECTORS

MAX_SAMPLES = 256
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Fault:
    """Code and field of a refusal (E1)."""

    code: str
    field: str


def read_request(line: str) -> tuple[str, list[list[float]]] | Fault:
    """Detector and samples of a line, or the fault that makes it no request (E5)."""
    try:
        data = json.loads(line, parse_int=float, parse_constant=_not_json)
    except ValueError:
        return Fault("INVALID_REQUEST", "")
    if not isinstance(data, dict):
        return Fault("INVALID_REQUEST", "")
    if not isinstance(data.get("detector"), str):
        return Fault("INVALID_REQUEST", "detector")
    samples = data.get("samples")
    if not isinstance(samples, list) or not all(isinstance(sample, list) for sample in samples):
        return Fault("INVALID_REQUEST", "samples")
    values = [[_number(x) for x in sample] for sample in samples]
    if any(x is None for sample in values for x in sample):
        return Fault("INVALID_REQUEST", "samples")
    return data["detector"], values


def fault_of(
    detector: str, samples: Sequence[Sequence[float]], names: Sequence[str], timesteps: int, served: Sequence[str]
) -> Fault | None:
    """The first fault of a request in the order of E2, or None.

    Args:
        detector: as written in the request.
        samples: raw values, oldest first.
        names: feature names in schema order.
        timesteps: window length; 1 for a detector that scores single samples.
        served: detectors that the model set can score.
    """
    if detector not in DETECTORS:
        return Fault("UNKNOWN_DETECTOR", "detector")
    if detector not in served:
        return Fault("DETECTOR_UNAVAILABLE", "detector")
    if len(samples) == 0:
        return Fault("NO_SAMPLES", "samples")
    if len(samples) > MAX_SAMPLES:
        return Fault("TOO_MANY_SAMPLES", "samples")
    for i, sample in enumerate(samples):
        if len(sample) != len(names):
            return Fault("WRONG_WIDTH", f"samples[{i}]")
        for name, value in zip(names, sample, strict=True):
            if math.isnan(value) or math.isinf(value):
                return Fault("NOT_FINITE", f"samples[{i}].{name}")
    if len(samples) < timesteps:
        return Fault("WINDOW_TOO_SHORT", "samples")
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, float):
        return value
    return _SPECIAL.get(value) if isinstance(value, str) else None


def _not_json(constant: str) -> Any:
    raise ValueError(constant)
