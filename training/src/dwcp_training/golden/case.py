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
    "constant": "A row in which every metric is equally far from its median.",
    "far": "A row far from all training rows. Finds overflow and wrong scaling.",
    "between": "A sample between rows of the training data. Finds wrong distances.",
    "tie": "Training rows that are equally far from the sample, or at the same place. Finds another choice among them.",
    "vector": "A sample on a support vector, or beside one. Finds cancellation in 1 - K.",
    "floor": "Kernel values that all but vanish. Finds a wrong floor, and underflow.",
    "member": "Members of an ensemble that disagree, or agree. Finds wrong weights, and members that were mixed up.",
    "clamp": "A member's score at the end of the common scale. Finds a wrong clamp.",
    "sigmoid": "A very low or high probability. Finds a sigmoid that cancels.",
    "turn": "A score where a metric's own limit takes over from the distance. Finds a wrong limit, and wrong shares.",
    "kink": "The sum of a hidden unit next to 0. Finds wrong or missing activations.",
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
