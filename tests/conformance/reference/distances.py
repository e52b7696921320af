"""Distances by LF1 and inputs around stored rows, for the detectors that compare a sample with rows."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from dwcp_training.detectors.base import Floats
from tests.conformance.inputs import Special

_NUMBERS = 2_000_000
"""Distances in memory at once."""


def squared_distances(samples: Floats, rows: Floats) -> Floats:
    """LF1 for scaled samples `[n, features]` and rows `[r, features]`: the features' squares added one by one."""
    total = (samples[:, :1] - rows[:, 0]) ** 2
    for j in range(1, samples.shape[1]):
        total = total + (samples[:, j : j + 1] - rows[:, j]) ** 2
    return total


def pieces(samples: Floats, rows: Floats) -> Iterator[Floats]:
    """The samples in pieces whose distances fit in memory."""
    size = max(1, _NUMBERS // len(rows))
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def published_rows(graph: Path) -> Floats:
    """The raw rows `[r, features]` that a graph stores. The caller checks that they scale to the pickle's."""
    tensors = {tensor.name: tensor for tensor in onnx.load(graph).graph.initializer}
    return numpy_helper.to_array(tensors["rows"])


def around_rows(rows: Floats) -> dict[str, Special]:
    """Makers of the inputs that a detector with stored rows needs."""
    return {"row": partial(on_rows, rows=rows), "between": partial(between_rows, rows=rows)}


def on_rows(items: Floats, rng: np.random.Generator, rows: Floats) -> Floats:
    """Stored rows as they are; every fourth with one value a float64 step beside it."""
    chosen = rows[rng.integers(len(rows), size=len(items))].copy()
    for row in chosen[::4]:
        j = rng.integers(len(row))
        row[j] = np.nextafter(row[j], rng.choice([-np.inf, np.inf]))
    items[:, -1] = chosen
    return items


def between_rows(items: Floats, rng: np.random.Generator, rows: Floats) -> Floats:
    """Midpoints of two stored rows: as far from one as from the other, but for rounding."""
    first, second = rng.integers(len(rows), size=(2, len(items)))
    items[:, -1] = (rows[first] + rows[second]) / 2
    return items
