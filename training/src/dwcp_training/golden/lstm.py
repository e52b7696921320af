"""Cases for the LSTM autoencoder: plain shapes, spikes, and scores beside the threshold, found by bisection."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats, Reference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import spike_drafts
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
    yield from spike_drafts(reference, normal, names, scale)


def typical_window(reference: Reference, items: Floats) -> Floats:
    """The training window with the median score among the first 500."""
    scores = reference.evaluate(items[:500]).scores
    return items[np.argsort(scores)[len(scores) // 2]].copy()
