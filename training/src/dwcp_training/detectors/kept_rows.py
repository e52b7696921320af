"""Which training rows a detector keeps that compares samples with them."""

from dataclasses import dataclass

import numpy as np

from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.base import Floats


@dataclass(frozen=True)
class KeptRows:
    """The rows that are fitted, in the order of time.

    Attributes:
        values: raw, float64 `[rows, features]`.
        warning: what was left out, in words, or an empty text.
    """

    values: Floats
    warning: str


def kept_rows(fit_part: Telemetry, max_rows: int, seed: int) -> KeptRows:
    """All rows, or `max_rows` of them drawn at random where there are more."""
    rows = len(fit_part)
    if rows <= max_rows:
        return KeptRows(fit_part.values, "")
    chosen = np.sort(np.random.default_rng(seed).choice(rows, max_rows, replace=False))
    return KeptRows(
        fit_part.values[chosen],
        f"{rows - max_rows:,} of {rows:,} rows were left out of the fit, drawn at random with seed {seed}: "
        f"the model keeps at most max_rows = {max_rows:,}.",
    )
