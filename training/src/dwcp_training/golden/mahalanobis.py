"""Cases for the Mahalanobis distance: windows or rows of training, far ones, and where limits begin and take over."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.detectors.mahalanobis import MahalanobisReference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import bisected, spike_drafts
from dwcp_training.golden.lstm import lstm_drafts
from dwcp_training.golden.probes import probed
from dwcp_training.golden.rows import row_drafts

_FAR = (1e3, 1e6, 1e12)
"""How far the far windows lie from the mean, in scales."""

_ROWS = 2_000
"""Training windows that cases are chosen from."""


def mahalanobis_drafts(
    reference: MahalanobisReference, items: Floats, normal: Floats, names: list[str], mean: Floats, scale: Floats,
    seed: int,
) -> Iterator[Draft]:  # fmt: skip
    """Cases made for one distance.

    Args:
        reference: the detector in float64.
        items: training windows, float64 `[n, timesteps, features]`.
        normal: one of them, whose score is typical.
        names: feature names.
        mean, scale: of the scaler.
        seed: of the choice of windows and directions.
    """
    rng = np.random.default_rng(seed)
    items = items[:_ROWS]
    if len(normal) > 1:
        yield from lstm_drafts(reference, items, normal, names, scale, seed)
        for distance in _FAR:
            yield Draft(
                f"far/window/{distance:g}",
                f"Every value lies up to {distance:g} scales away from the mean, in a direction drawn at random.",
                ("far",),
                mean + distance * rng.uniform(-1, 1, normal.shape) * scale,
            )
    else:
        yield from row_drafts(items[:, -1], names, scale, rng)
        yield from spike_drafts(reference, normal, names, scale)
    yield from _limit_drafts(reference, normal, names, mean, scale)


def _limit_drafts(
    reference: MahalanobisReference, normal: Floats, names: list[str], mean: Floats, scale: Floats
) -> Iterator[Draft]:
    """For each metric with a limit (MD3): where it begins, and on either side of where it decides the score."""
    start, slope = reference.limits
    for j in probed(len(names), len(normal)):
        if not slope[j]:
            continue
        sign = np.sign(slope[j])

        def at(beyond: float, j: int = j, sign: float = sign) -> Floats:
            window = normal.copy()
            window[-1, j] = mean[j] + (start[j] + sign * beyond) * scale[j]
            return window

        def decides(beyond: float, at=at) -> bool:
            window = at(beyond)[np.newaxis]
            return bool(reference.evaluate(window).scores[0] > reference.distances(window)[0])

        yield Draft(
            f"turn/{names[j]}/start", f"{names[j]} is where its limit begins: the term is 0.", ("turn",), at(0.0)
        )
        high = 1.0
        while not decides(high) and high < 1e9:
            high *= 2
        if not decides(high):  # the distance grows faster than the limit
            continue
        low, high = bisected(decides, 0.0, high)
        for side, beyond in (("before", low * 0.999), ("behind", high * 1.001)):
            yield Draft(
                f"turn/{names[j]}/{side}",
                f"{names[j]} is just {side} the value from which on its limit decides the score, not the distance.",
                ("turn",),
                at(beyond),
            )
