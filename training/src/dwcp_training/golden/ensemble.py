"""Cases for an ensemble: members that disagree, members that agree, and scores beside both thresholds."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats
from dwcp_training.detectors.ensemble import EnsembleReference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import alarms, bisected, way_drafts

_HEIGHTS = (1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 1e3)
"""Sizes of the shifts that are tried, in deviations of the normal items."""

_DIRECTIONS = 40
"""Directions in which items are shifted, besides those of single metrics."""

_WAYS = 6


def ensemble_drafts(
    reference: EnsembleReference, items: Floats, ascending: Floats, critical: float, seed: int
) -> Iterator[Draft]:
    """Cases made for one ensemble.

    Args:
        reference: the ensemble in float64.
        items: normal items, float64 `[n, timesteps, features]`.
        ascending: the same, those with the lowest scores first.
        critical: threshold of the level CRITICAL.
        seed: of the choice of items and directions.
    """
    rng = np.random.default_rng(seed)
    for k, item in enumerate(items[rng.choice(len(items), min(10, len(items)), replace=False)]):
        yield Draft(f"typical/{k}", "A sample or window of the training data.", ("typical",), item)
    shifted = _shifted(items, rng)
    normalized = reference.normalized(shifted)
    for k, member in enumerate(reference.members):
        others = np.delete(normalized, k, axis=0).max(axis=0, initial=0.0)  # it may be the only member
        for name, words, chosen in (
            ("alone", "stands out most from the others", int(np.argmax(normalized[k] - others))),
            ("silent", "says least beside the others", int(np.argmax(others - normalized[k]))),
        ):
            yield Draft(
                f"member/{member.name}/{name}",
                f"Of the shifted items, the one where {member.name} {words}.",
                ("member",),
                shifted[chosen],
            )
    agreed = normalized.min(axis=0)
    yield Draft("members/all", "All members are high.", ("member",), shifted[int(np.argmax(agreed))])
    quiet = normalized.max(axis=0)
    yield Draft("members/none", "All members are low.", ("member",), shifted[int(np.argmin(quiet))])

    scores = reference.scores(shifted)
    for level, threshold in (("warning", reference.threshold), ("critical", critical)):
        above = np.flatnonzero(scores.astype(np.float32) > threshold)
        if not len(above):  # the weights may leave no item that high
            continue
        decides = _Above(reference, threshold)
        for k, chosen in enumerate(rng.choice(above, min(_WAYS, len(above)), replace=False)):
            start = ascending[k % max(1, len(ascending) // 2)]  # one of the lower half
            if not alarms(decides, start):
                yield from way_drafts(decides, start, shifted[chosen], f"threshold/{level}/way_{k}")
    yield from _kinks(reference, ascending, shifted, normalized)


class _Above:
    """An ensemble that decides at another threshold."""

    def __init__(self, reference: EnsembleReference, threshold: float) -> None:
        self._reference, self._threshold = reference, threshold

    def evaluate(self, items: Floats) -> Evaluation:
        evaluated = self._reference.evaluate(items)
        above = evaluated.scores.astype(np.float32).astype(np.float64) > self._threshold
        return replace(evaluated, is_anomaly=above)


def _shifted(items: Floats, rng: np.random.Generator) -> Floats:
    """Normal items of which the last sample, or every one, is shifted in one metric or in several."""
    width = items.shape[2]
    deviation = items.std(axis=(0, 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    single = np.concatenate([np.eye(width), -np.eye(width)])
    if len(single) > _DIRECTIONS:
        single = single[rng.choice(len(single), _DIRECTIONS, replace=False)]
    mixed = rng.uniform(-1, 1, (_DIRECTIONS, width))
    found = []
    for direction in np.concatenate([single, mixed]):
        for height in _HEIGHTS:
            item = items[rng.integers(len(items))].copy()
            first = 0 if rng.random() < 0.5 else len(item) - 1
            item[first:] += height * direction * deviation
            found.append(item)
    return np.array(found)


def _kinks(reference: EnsembleReference, normal: Floats, shifted: Floats, normalized: Floats) -> Iterator[Draft]:
    """For each member, items on either side of the place where its score on the common scale leaves 0, and the one
    where it is highest (EN8)."""
    of_normal = reference.normalized(normal)
    for k, member in enumerate(reference.members):
        far = int(np.argmax(normalized[k]))
        yield Draft(
            f"clamp/{member.name}/highest",
            f"Of the shifted items, the one where {member.name} is nearest to 1, which no score reaches.",
            ("clamp",),
            shifted[far],
        )
        silent, raised = np.flatnonzero(of_normal[k] == 0), np.flatnonzero(normalized[k] > 0)
        if not len(silent) or not len(raised):
            continue
        start, end = normal[silent[0]], shifted[raised[0]]
        low, high = bisected(
            lambda share, k=k, start=start, end=end: bool(
                reference.normalized((start + share * (end - start))[np.newaxis])[k, 0] > 0
            )
        )
        for side, share in (("at", low), ("above", high)):
            yield Draft(
                f"clamp/{member.name}/{side}",
                f"{member.name} is {side} the lower end of the common scale.",
                ("clamp",),
                start + share * (end - start),
            )
