"""Cases for the LSTM classifier: windows of both classes, saturated scores, and scores beside the threshold."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, Reference
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import way_drafts
from dwcp_training.golden.probes import probed

_WINDOWS = 4_000
"""Training windows that cases are chosen from."""


def some_windows(items: Floats) -> Floats:
    """The training windows that cases are chosen from, spread evenly over all."""
    return items[:: max(1, len(items) // _WINDOWS)][:_WINDOWS]


def classifier_drafts(
    reference: Reference, evaluated: Evaluation, items: Floats, names: list[str], scale: Floats, seed: int
) -> Iterator[Draft]:
    """Cases made for one network.

    Args:
        reference: the network in float64.
        evaluated: its answers for the windows.
        items: training windows of both classes, float64 `[n, timesteps, features]`.
        names: feature names.
        scale: of the scaler, raw units.
        seed: of the choice of windows.
    """
    rng = np.random.default_rng(seed)
    quiet, alarming = items[~evaluated.is_anomaly], items[evaluated.is_anomaly]
    for kind, found in (("normal", quiet), ("anomaly", alarming)):
        for k, item in enumerate(found[rng.choice(len(found), min(8, len(found)), replace=False)]):
            words = "no alarm" if kind == "normal" else "an alarm"
            yield Draft(f"typical/{kind}/{k}", f"A window of the training data with {words}.", ("typical",), item)
    order = np.argsort(evaluated.scores, kind="stable")
    for name, place in (("lowest", 0), ("median", len(order) // 2), ("highest", -1)):
        yield Draft(
            f"sigmoid/{name}",
            f"The training window with the {name} score: near 0 and near 1 only a careful sigmoid keeps its digits.",
            ("sigmoid",),
            items[order[place]],
        )
    normal = normal_window(evaluated, items)
    steps = items.shape[1]
    for j in probed(len(names), steps):
        for end, step in (("first", 0), ("last", steps - 1)):
            spike = normal.copy()
            spike[step, j] += 6 * scale[j]
            yield Draft(
                f"shape/spike/{names[j]}/{end}",
                f"{names[j]} jumps by six scales in the {end} sample.",
                ("shape",),
                spike,
            )
    yield Draft("shape/reversed", "A normal window, newest sample first.", ("shape",), normal[::-1].copy())
    for k in range(min(6, len(quiet), len(alarming))):
        start, stop = quiet[rng.integers(len(quiet))], alarming[rng.integers(len(alarming))]
        yield from way_drafts(reference, start, stop, f"threshold/way_{k}")


def normal_window(evaluated: Evaluation, items: Floats) -> Floats:
    """The training window with the median score among those without alarm, or with the lowest where all alarm."""
    order = np.argsort(evaluated.scores, kind="stable")
    return items[order[int((~evaluated.is_anomaly).sum()) // 2]].copy()
