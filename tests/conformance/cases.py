"""Cases of the judge and their JSON lines (rule E5)."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Samples = Floats | list[list[float]]

DETECTORS = (
    "isolation_forest", "lstm_autoencoder", "dense_autoencoder", "local_outlier_factor", "one_class_svm",
    "lstm_classifier", "ensemble", "mahalanobis",
)  # fmt: skip
"""Detectors of the contract in the order of its enum, written out here: the judge does not ask the judged."""

ENSEMBLE = "ensemble"
"""The detector that has no graph (EN7)."""


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        id: unique, path-like: `isolation_forest/split/000123`.
        detector: its name.
        kind: what the case is for, a key of `inputs.KINDS` or a fault of `invalid.FAULTS`.
        samples: an array `[n, features]` of finite values, or lists that may be at fault; None for a raw line.
        raw: the line as it is, for inputs that are no request or that only text can say.
    """

    id: str
    detector: str
    kind: str
    samples: Samples | None
    raw: str | None = None

    @property
    def line(self) -> str:
        """The request as one line without newline."""
        if self.raw is not None:
            return self.raw
        if isinstance(self.samples, np.ndarray):
            samples = self.samples.tolist()
        else:
            samples = [[json_number(x) for x in sample] for sample in self.samples or []]
        return json.dumps({"id": self.id, "detector": self.detector, "samples": samples})

    @property
    def answer_id(self) -> str | None:
        """The id that the answer must carry: null where the line is not a JSON object (E5)."""
        return None if self.raw is not None and not self.raw.startswith("{") else self.id


def json_number(x: float) -> Any:
    """A number as E5 writes it: NaN and infinities are strings."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    return x


def write_lines(cases: Iterable[Case], path: Path) -> None:
    """Writes one request a line."""
    with path.open("w", encoding="utf-8") as file:
        for case in cases:
            file.write(case.line)
            file.write("\n")


def is_plain(case: Case, width: int, timesteps: int) -> bool:
    """Whether a case is a finite table of enough samples: nothing about it can be refused."""
    samples = case.samples
    return (
        case.raw is None
        and isinstance(samples, np.ndarray)
        and samples.ndim == 2
        and samples.shape[1] == width
        and timesteps <= len(samples) <= 256
        and bool(np.isfinite(samples).all())
    )


def last_window(samples: Sequence[Sequence[float]] | Floats, timesteps: int) -> Floats:
    """The part that is scored (W1, W2), float64 `[timesteps, features]`."""
    return np.asarray(samples[-timesteps:], np.float64)
