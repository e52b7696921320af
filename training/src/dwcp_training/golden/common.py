"""Cases that make sense for every detector."""

import math
from collections.abc import Iterator

import numpy as np

from dwcp.anomaly.v1 import features_pb2
from dwcp_sidecar.features import MAX_SAMPLES
from dwcp_training.detectors.base import Floats
from dwcp_training.golden.case import Draft
from dwcp_training.golden.probes import probed

_EXTREMES = {
    "huge": (1e300, "1e300, far outside the clamp"),
    "largest": (np.finfo(np.float64).max, "the largest float64: the subtraction of the mean may overflow"),
    "negative_largest": (-np.finfo(np.float64).max, "the smallest float64"),
    "beyond_clamp": (1e20, "finite in float32 but outside the clamp"),
    "float32_overflow": (3.5e38, "finite in float64, infinite in float32"),
    "tiny": (1e-300, "smaller than any float32"),
    "denormal": (5e-324, "the smallest positive float64"),
    "zero": (0.0, "zero"),
    "negative_zero": (-0.0, "negative zero, which is zero (F5)"),
}


def common_drafts(schema: features_pb2.FeatureSchema, normal: Floats, timesteps: int) -> Iterator[Draft]:
    """Cases built around one normal item.

    Args:
        schema: the metrics.
        normal: a normal item, float64 `[timesteps, features]`.
        timesteps: window length; 1 for a detector that scores single samples.
    """
    names = [feature.name for feature in schema.features]
    for j in probed(len(names), timesteps):
        feature = schema.features[j]
        for limit in ("warning", "critical"):
            samples = normal.copy()
            samples[-1, j] = getattr(feature, limit)
            yield Draft(
                f"limit/{feature.name}/{limit}",
                f"{feature.name} alone at its {limit} value of {getattr(feature, limit):g} {feature.unit}.",
                ("limit",),
                samples,
            )
    for name, (number, words) in _EXTREMES.items():
        everywhere = np.full_like(normal, number)
        yield Draft(f"extreme/{name}/everywhere", f"Every value is {words}.", ("extreme",), everywhere, nudge=False)
        for j in dict.fromkeys((0, len(names) - 1)):
            samples = normal.copy()
            samples[-1, j] = number
            yield Draft(
                f"extreme/{name}/{names[j]}", f"{names[j]} of the last sample is {words}.", ("extreme",), samples
            )

    more = min(12, MAX_SAMPLES - timesteps)
    if more:
        yield Draft(
            "history/longer",
            f"{'Twelve' if more == 12 else more} more samples than needed: only the last ones are scored (W1, W2).",
            ("history",),
            np.vstack([normal[:1] * 3 + np.arange(more)[:, np.newaxis], normal]),
        )
    yield Draft(
        "history/longest",
        f"As many samples as a request may carry ({MAX_SAMPLES}, W3).",
        ("history",),
        np.vstack([np.repeat(np.round(normal[:1]), MAX_SAMPLES - timesteps, axis=0), normal]),
    )
    yield from _errors(names, normal, timesteps)


def _errors(names: list[str], normal: Floats, timesteps: int) -> Iterator[Draft]:
    def error(id: str, comment: str, samples: list[list[float]], code: str, field: str) -> Draft:
        return Draft(f"error/{id}", comment, ("error",), samples, (code, field))

    plain = normal.tolist()
    last = timesteps - 1
    for name, number in (("nan", math.nan), ("infinity", math.inf), ("negative_infinity", -math.inf)):
        for j in probed(len(names), timesteps):
            feature = names[j]
            samples = normal.copy()
            samples[-1, j] = number
            yield error(
                f"{name}/{feature}",
                f"{feature} is {number}.",
                samples.tolist(),
                "NOT_FINITE",
                f"samples[{last}].{feature}",
            )
    if timesteps < MAX_SAMPLES:
        early = np.vstack([normal[:1], normal])
        early[0, 0] = math.nan
        yield error(
            "nan/not_scored", "NaN in a sample that is not scored is refused all the same (W3).", early.tolist(),
            "NOT_FINITE", f"samples[0].{names[0]}",
        )  # fmt: skip
    yield error(
        "width/narrow", "The last value is missing.", [*plain[:-1], plain[-1][:-1]], "WRONG_WIDTH", f"samples[{last}]"
    )
    yield error(
        "width/wide", "One value too many.", [*plain[:-1], [*plain[-1], 0.0]], "WRONG_WIDTH", f"samples[{last}]"
    )
    yield error("width/empty", "A sample without values.", [*plain[:-1], []], "WRONG_WIDTH", f"samples[{last}]")
    # A single value can only be the right width or none.
    if len(names) > 1 and timesteps + 2 <= MAX_SAMPLES:
        yield error(
            "order/width_before_nan", "Sample by sample: a narrow sample comes before a later NaN (E2).",
            [[1.0], [math.nan] * len(names), *plain], "WRONG_WIDTH", "samples[0]",
        )  # fmt: skip
        yield error(
            "order/nan_before_width", "Sample by sample: a NaN comes before a later narrow sample (E2).",
            [[1.0, math.nan, *plain[0][2:]], [1.0], *plain], "NOT_FINITE", f"samples[0].{names[1]}",
        )  # fmt: skip
    yield error("count/none", "No sample at all.", [], "NO_SAMPLES", "samples")
    yield error(
        "count/too_many", f"One sample more than the limit of {MAX_SAMPLES} (W3).",
        [[round(value) for value in plain[0]]] * (MAX_SAMPLES + 1), "TOO_MANY_SAMPLES", "samples",
    )  # fmt: skip
    if timesteps > 1:
        yield error("window/short", "One sample less than the window.", plain[1:], "WINDOW_TOO_SHORT", "samples")
        yield error("window/single", "A single sample.", plain[-1:], "WINDOW_TOO_SHORT", "samples")
        yield error(
            "order/nan_before_window", "A NaN is found before the short window (E2).",
            [[math.nan] * len(names)], "NOT_FINITE", f"samples[0].{names[0]}",
        )  # fmt: skip
