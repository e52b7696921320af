"""A golden case before it has an answer, and the flags that cases carry."""

from dataclasses import dataclass

from dwcp_training.detectors.base import Floats

FLAGS = {
    "typical": "A sample or window of the training data.",
    "limit": "One metric at the value at which an operator wants to be warned or woken, all others normal.",
    "split": "A value on the threshold of a split, or one float32 step beside it. "
    "Finds wrong scaling, casting and comparison.",
    "threshold": "A score next to the decision threshold. Finds wrong thresholds and rounding.",
    "extreme": "Huge, tiny, denormal, zero or negative zero. Finds overflow, missing clamps and lost signs.",
    "shape": "A window with one plain shape: constant, ramp, spike.",
    "history": "More samples than the detector scores. Finds scoring of the wrong ones.",
    "error": "Must be refused with this code and field, and never scored.",
}
"""Flag to what it means (V3)."""


@dataclass(frozen=True)
class Draft:
    """Samples of a case. `error` is its code and field, for inputs that must be refused.

    `nudge` says that the samples may be changed by a few parts in a million when their score lies too near to the
    midpoint of two float32 numbers (V4); drafts made by a search bring their own alternatives instead.
    """

    id: str
    comment: str
    flags: tuple[str, ...]
    samples: Floats | list[list[float]]
    error: tuple[str, str] | None = None
    nudge: bool = True
