"""Cases for the LSTM autoencoder: plain shapes, spikes, and scores beside the threshold, found by bisection."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats, Reference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.probes import probed


def lstm_drafts(
    reference: Reference, items: Floats, normal: Floats, names: list[str], scale: Floats, seed: int
) -> Iterator[Draft]:
    """Cases made for one network.

    Args:
        reference: the network in float64.
        items: training windows, float64 `[n, timesteps, features]`.
        normal: one of them, see `typical_window`.
        names: feature names.
        scale: of the scaler, raw units.
        seed: of the choice of windows.
    """
    rng = np.random.default_rng(seed)
    for k, item in enumerate(items[rng.choice(len(items), 12, replace=len(items) < 12)]):
        yield Draft(f"typical/{k}", "A window of the training data.", ("typical",), item)
    median = np.median(items, axis=(0, 1))
    steps = items.shape[1]
    yield Draft("shape/constant/median", "Every sample is the median.", ("shape",), np.tile(median, (steps, 1)))
    yield Draft(
        "shape/constant/three",
        "Every sample is three scales above the median.",
        ("shape",),
        np.tile(median + 3 * scale, (steps, 1)),
    )
    slope = np.linspace(-3, 3, steps)[:, np.newaxis]
    yield Draft(
        "shape/ramp/up",
        "All metrics rise from three scales below the median to three above.",
        ("shape",),
        median + slope * scale,
    )
    yield Draft("shape/ramp/down", "All metrics fall likewise.", ("shape",), median - slope * scale)
    for j in probed(len(names), steps):
        name = names[j]
        for place, step in (("first", 0), ("last", steps - 1)):
            spike = normal.copy()
            spike[step, j] += 6 * scale[j]
            yield Draft(
                f"shape/spike/{name}/{place}", f"{name} jumps by six scales in the {place} sample.", ("shape",), spike
            )
        swapped = normal.copy()
        swapped[:, [j, (j + 1) % len(names)]] = swapped[:, [(j + 1) % len(names), j]]
        yield Draft(f"shape/swapped/{name}", f"{name} and its neighbour are swapped.", ("shape",), swapped)
    yield from _threshold_drafts(reference, normal, names, scale)


def typical_window(reference: Reference, items: Floats) -> Floats:
    """The training window with the median score among the first 500."""
    scores = reference.evaluate(items[:500]).scores
    return items[np.argsort(scores)[len(scores) // 2]].copy()


def _threshold_drafts(reference: Reference, normal: Floats, names: list[str], scale: Floats) -> Iterator[Draft]:
    """For each metric, two windows whose scores are the nearest below and above the threshold that a spike can give."""
    for j in probed(len(names), len(normal)):
        name = names[j]

        def spiked(height: float, j: int = j) -> Floats:
            window = normal.copy()
            window[-1, j] += height * scale[j]
            return window

        low, high = 0.0, 1.0
        while not reference.evaluate(spiked(high)[np.newaxis]).is_anomaly[0] and high < 1e6:
            low, high = high, high * 2
        for _ in range(60):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            if reference.evaluate(spiked(middle)[np.newaxis]).is_anomaly[0]:
                high = middle
            else:
                low = middle
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
