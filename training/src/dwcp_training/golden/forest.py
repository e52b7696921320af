"""Cases for the isolation forest: values on split thresholds and scores at the decision threshold, found by search."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.detectors.isolation_forest import ForestReference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import bisected_together
from dwcp_training.golden.probes import probed

_SPLITS_PER_FEATURE = 4


def forest_drafts(
    reference: ForestReference,
    items: Floats,
    names: list[str],
    mean: Floats,
    scale: Floats,
    splits: dict[int, Floats],
    seed: int,
) -> Iterator[Draft]:
    """Cases made for one forest.

    Args:
        reference: the forest in float64.
        items: training rows, float64 `[n, 1, features]`.
        names: feature names.
        mean, scale: of the scaler.
        splits: feature index to the thresholds of all its splits, scaled.
        seed: of the choice of rows and splits.
    """
    rng = np.random.default_rng(seed)
    rows = items[:, -1]
    for k, row in enumerate(rows[rng.choice(len(rows), 12, replace=len(rows) < 12)]):
        yield Draft(f"typical/{k}", "A row of the training data.", ("typical",), row[np.newaxis])
    median = np.median(rows, axis=0)
    for j in probed(len(names)):
        name = names[j]
        yield from _split_drafts(reference, rows, median, j, name, mean[j], scale[j], splits.get(j, np.array([])), rng)
    yield from _threshold_drafts(reference, rows, median, rng)


def _split_drafts(
    reference: ForestReference,
    rows: Floats,
    median: Floats,
    j: int,
    name: str,
    mean: float,
    scale: float,
    splits: Floats,
    rng,
) -> Iterator[Draft]:
    found = 0
    for split in rng.permutation(splits):
        on = np.float32(split)
        if float(on) > float(split):
            on = np.nextafter(on, np.float32(-np.inf))  # the largest float32 that goes left
        values = {
            "below": np.nextafter(on, np.float32(-np.inf)),
            "on": on,
            "above": np.nextafter(on, np.float32(np.inf)),
        }
        raw = {side: _raw_value(float(step), mean, scale) for side, step in values.items()}
        if None in raw.values():
            continue
        base = rows[rng.integers(len(rows))] if found % 2 else median
        items = np.repeat(base[np.newaxis], 3, axis=0)
        items[:, j] = [raw["below"], raw["on"], raw["above"]]
        depth = reference.depths(items)
        if depth[1] == depth[2]:  # this row does not reach the split
            continue
        for side, item in zip(("below", "on", "above"), items, strict=True):
            where = {"below": "one float32 step below", "on": "on", "above": "one float32 step above"}[side]
            yield Draft(
                f"split/{name}/{found}/{side}",
                f"Scaled {name} is {where} the split {float(split)!r}: the path changes between on and above.",
                ("split",),
                item[np.newaxis],
                nudge=False,
            )
        found += 1
        if found == _SPLITS_PER_FEATURE:
            return


def _raw_value(scaled: float, mean: float, scale: float) -> float | None:
    """A raw float64 whose scaled float32 is exactly `scaled`, or None."""
    guess = scaled * scale + mean
    for steps in range(64):
        for direction in (-np.inf, np.inf):
            raw = guess
            for _ in range(steps):
                raw = np.nextafter(raw, direction)
            if np.float32((raw - mean) / scale) == np.float32(scaled):
                return float(raw)
    return None


def _threshold_drafts(reference: ForestReference, rows: Floats, median: Floats, rng) -> Iterator[Draft]:
    """Pairs of rows on either side of the decision threshold, as near as a straight line between rows comes."""
    scores, is_anomaly = reference.verdicts(rows)
    anomalies = rows[is_anomaly]
    if not len(anomalies):
        return
    chosen = anomalies[rng.choice(len(anomalies), min(6, len(anomalies)), replace=False)]
    ways = bisected_together(
        lambda shares: reference.are_anomalies(median + shares[:, np.newaxis] * (chosen - median)), len(chosen)
    )
    for k, (anomaly, (low, high)) in enumerate(zip(chosen, ways, strict=True)):
        for side, factor in (("normal", low), ("anomaly", high)):
            yield Draft(
                f"threshold/crossing/{k}/{side}",
                "The last point on the way to an anomaly that is normal, or the first that is an anomaly.",
                ("threshold",),
                (median + factor * (anomaly - median))[np.newaxis],
                nudge=False,
            )
    order = np.argsort(scores)
    first = int(np.argmax(is_anomaly[order]))
    for side, index in (("normal", first - 1), ("anomaly", first)):
        yield Draft(
            f"threshold/nearest/{side}",
            "The training row whose score is next to the threshold.",
            ("threshold",),
            rows[order[index]][np.newaxis],
            nudge=False,
        )
