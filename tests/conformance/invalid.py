"""Inputs that must be refused, one maker per fault (rules E2, E5). All faults are in every run."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.conformance.cases import Case, Floats, json_number

Samples = list[list[float]]
Random = np.random.Generator


def invalid_cases(detector: str, items: Floats, first: int, rng: Random, absent: Sequence[str] = ()) -> list[Case]:
    """One case for each item, cycling through all faults.

    Args:
        detector: its name.
        items: finite items to spoil, float64 `[n, timesteps, features]`.
        first: number in the id of the first case.
        rng: source of places and values.
        absent: detectors of the contract that the set does not have: asking for one is a fault too.
    """
    lines = LINE_FAULTS | {f"absent_{name}": _object(detector=name) for name in absent}
    faults = {**SAMPLE_FAULTS, **lines}
    if items.shape[1] > 1:
        faults |= WINDOW_FAULTS
    names = list(faults)
    cases = []
    for k, item in enumerate(items):
        fault = names[k % len(names)]
        id = f"{detector}/invalid/{fault}/{first + k:06d}"
        spoiled = faults[fault](item, rng) if fault not in lines else None
        raw = lines[fault](id, detector, item) if fault in lines else None
        cases.append(Case(id, detector, f"invalid/{fault}", spoiled, raw))
    return cases


def fault_count(timesteps: int, absent: Sequence[str] = ()) -> int:
    """Number of different faults for a window length and a set: no run may have fewer invalid inputs."""
    return len(SAMPLE_FAULTS) + len(LINE_FAULTS) + len(absent) + (len(WINDOW_FAULTS) if timesteps > 1 else 0)


def _with(value: float) -> Callable[[Floats, Random], Samples]:
    def spoil(item: Floats, rng: Random) -> Samples:
        samples = item.copy()
        samples[rng.integers(len(item)), rng.integers(item.shape[1])] = value
        return samples.tolist()

    return spoil


def _several(item: Floats, rng: Random) -> Samples:
    samples = item.copy()
    places = rng.integers(samples.size, size=3)
    samples.ravel()[places] = rng.choice([math.nan, math.inf, -math.inf], 3)
    return samples.tolist()


def _early_nan(item: Floats, rng: Random) -> Samples:
    """NaN in a sample that is not scored."""
    early = item[:1].copy()
    early[0, rng.integers(item.shape[1])] = math.nan
    return np.vstack([early, item]).tolist()


def _narrow(item: Floats, rng: Random) -> Samples:
    samples = item.tolist()
    row = samples[rng.integers(len(samples))]
    del row[rng.integers(len(row)) :]
    return samples


def _wide(item: Floats, rng: Random) -> Samples:
    samples = item.tolist()
    samples[rng.integers(len(samples))].extend([0.0] * int(rng.integers(1, 4)))
    return samples


def _width_then_nan(item: Floats, rng: Random) -> Samples:
    return [[1.0] * (item.shape[1] - 1), [math.nan] * item.shape[1], *item.tolist()]


def _nan_then_width(item: Floats, rng: Random) -> Samples:
    row = item[0].tolist()
    row[rng.integers(len(row))] = math.nan
    return [row, [], *item.tolist()]


def _too_many(item: Floats, rng: Random) -> Samples:
    return [np.round(item[-1]).tolist()] * int(257 + rng.integers(0, 8))


def _too_many_at_fault(item: Floats, rng: Random) -> Samples:
    """The number of samples is checked before their width and values."""
    return [[], [math.nan], *_too_many(item, rng)]


SAMPLE_FAULTS: dict[str, Callable[[Floats, Random], Samples]] = {
    "nan": _with(math.nan),
    "infinity": _with(math.inf),
    "negative_infinity": _with(-math.inf),
    "several_not_finite": _several,
    "nan_not_scored": _early_nan,
    "narrow": _narrow,
    "wide": _wide,
    "empty_sample": lambda item, rng: [*item.tolist()[:-1], []],
    "width_then_nan": _width_then_nan,
    "nan_then_width": _nan_then_width,
    "no_samples": lambda item, rng: [],
    "too_many": _too_many,
    "too_many_at_fault": _too_many_at_fault,
}
"""Fault to what spoils an item, for every detector."""

WINDOW_FAULTS: dict[str, Callable[[Floats, Random], Samples]] = {
    "short": lambda item, rng: item[: rng.integers(1, len(item))].tolist(),
    "one_short": lambda item, rng: item[1:].tolist(),
    "short_and_nan": lambda item, rng: _with(math.nan)(item[1:], rng),
    "short_and_narrow": lambda item, rng: _narrow(item[1:], rng),
}
"""Likewise, where a window has more than one sample."""


def _object(**changes: Any) -> Callable[[str, str, Floats], str]:
    """A request with other members; None leaves one out."""

    def build(id: str, detector: str, item: Floats) -> str:
        members = {"id": id, "detector": detector, "samples": item.tolist(), **changes}
        return json.dumps({key: value for key, value in members.items() if value is not ...})

    return build


def _instead_of_a_number(text: str) -> Callable[[str, str, Floats], str]:
    """A request whose last value is another text."""

    def build(id: str, detector: str, item: Floats) -> str:
        samples = [[json.dumps(json_number(x)) for x in sample] for sample in item.tolist()]
        samples[-1][-1] = text
        rows = ", ".join(f"[{', '.join(sample)}]" for sample in samples)
        return f'{{"id": {json.dumps(id)}, "detector": "{detector}", "samples": [{rows}]}}'

    return build


LINE_FAULTS: dict[str, Callable[[str, str, Floats], str]] = {
    "overflow": _instead_of_a_number("1e400"),
    "negative_overflow": _instead_of_a_number("-1" + "0" * 400),
    "text": _instead_of_a_number('"12"'),
    "null": _instead_of_a_number("null"),
    "boolean": _instead_of_a_number("true"),
    "list": _instead_of_a_number("[1.0]"),
    "inf_short": _instead_of_a_number('"inf"'),
    "nan_lower_case": _instead_of_a_number('"nan"'),
    "unknown_detector": _object(detector="random_forest"),
    "empty_detector": _object(detector=""),
    "upper_case_detector": _object(detector="ISOLATION_FOREST"),
    "unknown_and_empty": _object(detector="random_forest", samples=[]),
    "detector_number": _object(detector=1),
    "detector_null": _object(detector=None),
    "detector_missing": _object(detector=...),
    "samples_missing": _object(samples=...),
    "samples_text": _object(samples="1,2,3"),
    "samples_flat": _object(samples=[1.0, 2.0]),
    "samples_null": _object(samples=None),
    "samples_object": _object(samples={}),
    "nothing": _object(detector=..., samples=...),
    "not_json": lambda id, detector, item: "not json",
    "cut_off": lambda id, detector, item: '["id", ',
    "number": lambda id, detector, item: "17",
    "null_line": lambda id, detector, item: "null",
    "list_line": lambda id, detector, item: "[]",
    "blank": lambda id, detector, item: "",
}
"""Fault to a whole line, for what is no list of lists of float64 numbers."""
