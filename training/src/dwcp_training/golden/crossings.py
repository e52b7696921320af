"""Scores beside the decision threshold, found by bisection."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dwcp_training.detectors.base import Floats, Reference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.probes import probed


def spike_drafts(reference: Reference, normal: Floats, names: list[str], scale: Floats) -> Iterator[Draft]:
    """For each metric, two items whose scores are the nearest below and above the threshold that a spike can give.

    Args:
        reference: the detector in float64.
        normal: a normal item, float64 `[timesteps, features]`; the spike is in its last sample.
        names: feature names.
        scale: of the scaler, raw units.
    """
    for j in probed(len(names), len(normal)):
        name = names[j]

        def spiked(height: float, j: int = j) -> Floats:
            window = normal.copy()
            window[-1, j] += height * scale[j]
            return window

        low, high = 0.0, 1.0
        while not reference.evaluate(spiked(high)[np.newaxis]).is_anomaly[0] and high < 1e6:
            low, high = high, high * 2
        low, high = bisected(lambda height, spiked=spiked: alarms(reference, spiked(height)), low, high)
        # Half a float32 step away from the threshold: the published scores are neighbours, and neither is in P2's gap.
        for side, edge, direction in (("normal", low, -1.0), ("anomaly", high, 1.0)):
            away = _move_off(reference, spiked, edge, direction)
            yield Draft(
                f"threshold/{name}/{side}",
                f"A spike of {name} whose published score is next to the threshold, on the side of {side}.",
                ("threshold",),
                spiked(away),
                nudge=False,
            )


def way_drafts(reference: Reference, normal: Floats, anomaly: Floats, id: str) -> Iterator[Draft]:
    """Two items on the way from one without alarm to one with, whose scores are next to the threshold.

    Args:
        reference: the detector in float64.
        normal, anomaly: float64 `[timesteps, features]`.
        id: of the two cases, but for the side.
    """

    def at(share: float) -> Floats:
        return normal + share * (anomaly - normal)

    low, high = bisected(lambda share: alarms(reference, at(share)), 0.0, 1.0)
    for side, edge, direction in (("normal", low, -1.0), ("anomaly", high, 1.0)):
        away = _move_off(reference, at, edge, direction)
        if alarms(reference, at(away)) != (side == "anomaly"):  # a score in steps, as a forest's, may change back
            away = edge
        yield Draft(
            f"{id}/{side}",
            f"On the way from an item without alarm to one with, beside the change of decision, on the side of {side}.",
            ("threshold",),
            at(away),
            nudge=False,
        )


def alarms(reference: Reference, item: Floats) -> bool:
    """Whether an item, float64 `[timesteps, features]`, is an anomaly."""
    return bool(reference.evaluate(item[np.newaxis]).is_anomaly[0])


def bisected(reached: Callable[[float], bool], low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """Neighbouring numbers from `low`, where something is not reached, to `high`, where it is."""
    for _ in range(60):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if reached(middle):
            high = middle
        else:
            low = middle
    return low, high


def bisected_together(reached: Callable[[Floats], NDArray[np.bool_]], count: int) -> list[tuple[float, float]]:
    """`bisected` from 0 to 1 of `count` things, a step of all in one call: the same numbers, for a reference whose
    calls cost more than their rows.

    Args:
        reached: what is reached at `[count]` numbers, each of its own thing.
    """
    low, high = np.zeros(count), np.ones(count)
    for _ in range(60):
        middle = (low + high) / 2
        at = reached(middle)
        open_ = (middle != low) & (middle != high)
        high, low = np.where(at & open_, middle, high), np.where(~at & open_, middle, low)
        if not open_.any():
            break
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _move_off(reference: Reference, spiked, edge: float, direction: float) -> float:
    """The spike nearest to the edge whose unrounded score is a fifth of a float32 step away from it."""
    at_edge = reference.evaluate(spiked(edge)[np.newaxis]).scores[0]
    wanted = float(np.spacing(np.float32(at_edge))) * 0.2
    step = abs(edge) * 1e-12
    for _ in range(60):
        candidate = edge + direction * step
        if abs(reference.evaluate(spiked(candidate)[np.newaxis]).scores[0] - at_edge) >= wanted:
            return candidate
        step *= 1.6
    return edge + direction * step
