"""Cases for the dense autoencoder: rows of training, constant and far rows, kinks, and scores beside the threshold."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.detectors.dense_autoencoder import DenseReference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import bisected, spike_drafts
from dwcp_training.golden.probes import probed

_DISTANCES = (10.0, 1e3, 1e6, 1e12)
"""How far the far rows lie from the median, in scales."""

_DIRECTIONS = 3


def dense_drafts(
    reference: DenseReference, items: Floats, normal: Floats, names: list[str], scale: Floats, seed: int
) -> Iterator[Draft]:
    """Cases made for one network.

    Args:
        reference: the network in float64.
        items: training rows, float64 `[n, 1, features]`.
        normal: one of them, float64 `[1, features]`, whose score is typical.
        names: feature names.
        scale: of the scaler, raw units.
        seed: of the choice of rows and directions.
    """
    rng = np.random.default_rng(seed)
    for k, item in enumerate(items[rng.choice(len(items), 12, replace=len(items) < 12)]):
        yield Draft(f"typical/{k}", "A row of the training data.", ("typical",), item)
    median = np.median(items, axis=0)
    yield Draft("constant/median", "Every metric is at its median.", ("constant",), median)
    for name, steps in (("above", 3.0), ("below", -3.0)):
        yield Draft(
            f"constant/three_{name}",
            f"Every metric is three scales {name} its median.",
            ("constant",),
            median + steps * scale,
        )
    for distance in _DISTANCES:
        # Several: far away relu only magnifies, so that nudging a row does not move its shares off a boundary (V4).
        for k in range(_DIRECTIONS):
            direction = rng.standard_normal(len(names))
            direction /= np.abs(direction).max()
            yield Draft(
                f"far/any/{distance:g}/{k}",
                f"A row {distance:g} scales away from the median, in a direction drawn at random.",
                ("far",),
                median + distance * direction * scale,
            )
    for j in probed(len(names)):
        for name, steps in (("up", 50.0), ("down", -50.0)):
            spike = normal.copy()
            spike[-1, j] += steps * scale[j]
            yield Draft(f"far/{names[j]}/{name}", f"{names[j]} alone is fifty scales away.", ("far",), spike)
    yield from _kink_drafts(reference, items, median, rng)
    yield from spike_drafts(reference, normal, names, scale)


def _kink_drafts(reference: DenseReference, items: Floats, median: Floats, rng: np.random.Generator) -> Iterator[Draft]:
    """For each hidden layer, two rows between which a unit's sum changes its sign: where relu has its kink.

    The rows lie on a line from the median through a training row, as near to each other as the line comes.
    """
    ends = median + 4 * (items[rng.choice(len(items), 64)] - median)
    at_median = reference.sums(median)
    at_ends = reference.sums(ends[:, 0])
    for i, (start, stop) in enumerate(zip(at_median, at_ends, strict=True), start=1):
        changes = np.argwhere((stop > 0) != (start > 0))
        if not len(changes):  # the layer's units never change sides on these lines
            continue
        row, unit = changes[rng.integers(len(changes))]
        step = ends[row] - median

        def open_at(factor: float, step: Floats = step, layer: int = i - 1, unit: int = int(unit)) -> bool:
            return bool(reference.sums(median + factor * step)[layer][0, unit] > 0)

        opens = open_at(1.0)
        low, high = bisected(lambda factor, open_at=open_at, opens=opens: open_at(factor) == opens)
        for side, factor in (("before", low), ("behind", high)):
            yield Draft(
                f"kink/layer_{i}/{side}",
                f"The sum of unit {unit} of hidden layer {i} is next to 0, where relu has its kink.",
                ("kink",),
                median + factor * step,
            )
