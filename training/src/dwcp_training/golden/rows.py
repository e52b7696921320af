"""Cases for the detectors that compare a sample with stored rows: typical, shifted and far ones."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats
from dwcp_training.golden.case import Draft
from dwcp_training.golden.probes import probed

_FAR = (3.0, 10.0, 30.0, 1e3, 1e6, 1e12)
"""How far the far samples lie from the median, in scales."""


def row_drafts(rows: Floats, names: list[str], scale: Floats, rng: np.random.Generator) -> Iterator[Draft]:
    """Cases that both such detectors have.

    Args:
        rows: training rows, float64 `[n, features]`.
        names: feature names.
        scale: of the scaler, raw units.
        rng: chooses rows and directions.
    """
    median = np.median(rows, axis=0)
    for k, row in enumerate(rows[rng.choice(len(rows), 8, replace=len(rows) < 8)]):
        yield Draft(f"typical/{k}", "A row of the training data.", ("typical",), row[np.newaxis])
    for k, (row, other) in enumerate(rows[rng.choice(len(rows), (4, 2))]):
        yield Draft(
            f"between/{k}", "A third of the way between two rows.", ("between",), (row + (other - row) / 3)[np.newaxis]
        )
    for distance in _FAR:
        direction = rng.uniform(-1, 1, len(names))
        yield Draft(
            f"far/any/{distance:g}",
            f"Up to {distance:g} scales away from the median, in a direction drawn at random.",
            ("far",),
            (median + distance * direction * scale)[np.newaxis],
        )
    for j in probed(len(names)):
        for name, steps in (("up", 12.0), ("down", -12.0)):
            spike = median.copy()
            spike[j] += steps * scale[j]
            yield Draft(
                f"far/{names[j]}/{name}", f"{names[j]} alone is twelve scales away.", ("far",), spike[np.newaxis]
            )


def typical_row(evaluated: Evaluation, rows: Floats) -> Floats:
    """The row with the median score, float64 `[1, features]`."""
    return rows[np.argsort(evaluated.scores)[len(rows) // 2]][np.newaxis].copy()


def nearest_drafts(evaluated: Evaluation, rows: Floats) -> Iterator[Draft]:
    """The rows whose scores are next to the threshold, on either side of it where there are any.

    Args:
        evaluated: the answers for the rows.
        rows: training rows, float64 `[n, features]`.
    """
    order = np.argsort(evaluated.scores)
    below = int((~evaluated.is_anomaly).sum())
    for side, place in (("normal", below - 1), ("anomaly", below)):
        if 0 <= place < len(rows):
            yield Draft(
                f"threshold/nearest/{side}",
                f"The training row whose score is next to the threshold on the side of {side}.",
                ("threshold",),
                rows[order[place]][np.newaxis],
                nudge=False,
            )
