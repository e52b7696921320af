"""Cases for the one-class SVM: on support vectors, and where every kernel value is about to vanish."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats, clamp_scaled
from dwcp_training.detectors.one_class_svm import SvmReference
from dwcp_training.export.svm import INSIDE_FLOOR
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import bisected, spike_drafts
from dwcp_training.golden.probes import probed
from dwcp_training.golden.rows import nearest_drafts, row_drafts, typical_row

_ROWS = 2_000
"""Training rows that cases are chosen from."""


def svm_drafts(
    reference: SvmReference, rows: Floats, names: list[str], mean: Floats, scale: Floats, seed: int
) -> Iterator[Draft]:
    """Cases made for one SVM.

    Args:
        reference: the detector in float64, with its support vectors.
        rows: training rows, float64 `[n, features]`.
        names: feature names.
        mean, scale: of the scaler.
        seed: of the choice of rows.
    """
    rng = np.random.default_rng(seed)
    rows = rows[:_ROWS]
    evaluated = reference.evaluate(rows[:, np.newaxis])
    yield from row_drafts(rows, names, scale, rng)
    vectors = reference.vectors
    for k, vector in enumerate(vectors[rng.choice(len(vectors), min(4, len(vectors)), replace=False)]):
        for name, words, sample in (
            ("on", "A support vector: one kernel value is 1.", vector),
            (
                "beside",
                "A millionth of a scale beside it: 1 - K is far below the last bit of K (SV3).",
                vector + scale / 1e6,
            ),
        ):
            yield Draft(f"vector/{k}/{name}", words, ("vector",), sample[np.newaxis])
    yield from _floor_drafts(reference, np.median(rows, axis=0), names, mean, scale)
    yield from nearest_drafts(evaluated, rows)
    yield from spike_drafts(reference, typical_row(evaluated, rows), names, scale)


def _floor_drafts(
    reference: SvmReference, median: Floats, names: list[str], mean: Floats, scale: Floats
) -> Iterator[Draft]:
    """For some metrics, samples on either side of the place where `inside` falls below its floor."""
    for j in probed(len(names))[:: max(1, len(names) // 2)]:

        def spiked(height: float, j: int = j) -> Floats:
            sample = median.copy()
            sample[j] += height * scale[j]
            return sample

        def inside(height: float) -> float:
            return float(reference.sums(clamp_scaled(spiked(height)[np.newaxis], mean, scale))[0][0])

        high = 1.0
        while inside(high) >= INSIDE_FLOOR and high < 1e9:
            high *= 2
        low, high = bisected(lambda height: inside(height) < INSIDE_FLOOR, 0.0, high)
        for name, height in (("above", low * 0.999), ("below", high * 1.001)):
            yield Draft(
                f"floor/{names[j]}/{name}",
                f"{names[j]} is so far away that the sum of the kernel values is just {name} its floor (SV2).",
                ("floor",),
                spiked(height)[np.newaxis],
            )
