"""Thresholds from an alarm budget, such as one false alarm in ten weeks (rule C5)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwcp_sidecar.alarm_budget import SECONDS
from dwcp_training.calibrate import midpoint_below, midpoint_threshold
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.detectors.base import Fitted, Floats
from dwcp_training.tail import TailError, TailThreshold, tail_threshold

BOUNDED = frozenset({"isolation_forest", "lstm_classifier", "ensemble"})
"""Detectors whose scores end: the tail of their normal scores must end there too, or no fault could ever alarm."""

OVERRIDDEN = ("contamination", "threshold_percentile")
"""Settings that say where the threshold is, which a budget does instead."""

_PATTERNS = 256
_FAR = 1e6  # standard deviations


@dataclass(frozen=True)
class AlarmBudget:
    """False alarms that are accepted in a time, for one series of samples.

    Attributes:
        alarms: how many, more than 0; may be less than one.
        per: `hour`, `day` or `week`.
    """

    alarms: float
    per: str

    @classmethod
    def parse(cls, text: str) -> AlarmBudget:
        """A budget as people write it: `0.1/week`.

        Raises:
            ValueError: it is none; the message says what to write.
        """
        number, _, per = (part.strip() for part in text.partition("/"))
        try:
            alarms = float(number)
        except ValueError:
            alarms = math.nan
        if not (math.isfinite(alarms) and alarms > 0) or per not in SECONDS:
            raise ValueError(f"{text!r} is no alarm budget: write a number above 0 per hour, day or week, as 0.1/week")
        return cls(alarms, per)

    def __str__(self) -> str:
        return f"{self.alarms:g}/{self.per}"

    def share(self, cadence_seconds: float | None) -> float:
        """Share of normal samples that may alarm when one comes every `cadence_seconds`.

        Raises:
            DataError: the cadence is not known, or there are not so many samples.
        """
        if not cadence_seconds:
            raise DataError(
                "alarm_budget",
                f"{self} says how many alarms in a time, and these rows have no times: the cadence is not known.",
                "Use data with times, or give the share of samples that may alarm: --contamination or "
                "--threshold-percentile.",
                code=DataErrorCode.WRONG_CADENCE,
            )
        share = self.alarms * cadence_seconds / SECONDS[self.per]
        if not share < 0.5:
            raise DataError(
                "alarm_budget",
                f"{self} is {share:.3g} alarms a sample at one sample every {cadence_seconds:g} s.",
                "Give a smaller budget.",
            )
        return share


def keep_budget(fitted: Fitted, budget: AlarmBudget, cadence_seconds: float | None) -> None:
    """Moves the threshold of a fitted detector to where held-out normal data keeps the budget (C5), and records how.

    Raises:
        DataError: the cadence is unknown, or the held-out scores give no such threshold.
    """
    metadata = fitted.metadata
    share = budget.share(cadence_seconds)
    scores = fitted.budget_scores
    if scores is None:
        scores = fitted.reference.evaluate(fitted.held_out_items).scores
    bounded = metadata.model_type in BOUNDED
    try:
        found = tail_threshold(scores, share, _reached(fitted) if bounded else None)
        threshold = midpoint_threshold(found.value, scores)
    except ValueError as error:  # TailError is one
        reason = str(error) if isinstance(error, TailError) else f"the threshold would be {found.value:g}"
        raise DataError(
            "alarm_budget",
            f"{budget} cannot be kept by this {metadata.model_type}: {reason}.",
            "Train on more data, or accept more alarms.",
        ) from None
    _record(fitted, budget, share, found, threshold)
    fitted.move_threshold(threshold)


def _record(fitted: Fitted, budget: AlarmBudget, share: float, found: TailThreshold, threshold: float) -> None:
    """Writes down where the threshold comes from, in place of what said so before."""
    metadata = fitted.metadata
    said = f"alarm budget {budget}, a share of {share:.3g} of normal samples: {found.method}"
    metadata.training.hyperparameters["alarm_budget"] = str(budget)
    metadata.training.hyperparameters["threshold"] = said
    fitted.facts["threshold"] = f"{threshold:.6g}: {said}"
    if found.extrapolated:
        count = len(fitted.held_out_items)
        warning = (
            f"alarm budget {budget}: {count:,} held-out normal scores are too few to count off one alarm in "
            f"{1 / share:,.0f} samples; the threshold {threshold:.6g} is extrapolated"
        )
        if (blind := _unalarming(fitted, threshold)) is not None:
            warning += f"; {blind}"
        metadata.training.warnings.append(warning)
        fitted.facts["warning"] = warning
    if metadata.HasField("lstm"):
        metadata.lstm.threshold_percentile = 100 * (1 - share)
    elif metadata.HasField("dense"):
        metadata.dense.threshold_percentile = 100 * (1 - share)
    elif metadata.HasField("classifier"):
        # Counted at the threshold of before; the held-out anomalies are not at hand here.
        for name in ("held_out_false_alarms", "held_out_missed"):
            metadata.training.history.pop(name, None)
        fitted.facts.pop("held-out windows", None)
    elif metadata.HasField("ensemble"):
        _raise_critical(metadata, threshold)
        fitted.facts.pop("thresholds", None)
        fitted.facts.pop("held-out normal rows", None)
    else:
        metadata.contamination = share


def _raise_critical(metadata: Any, threshold: float) -> None:
    """EN5: critical begins at the threshold or above; a threshold above it moves it half of the way to 1."""
    if metadata.ensemble.critical_threshold <= threshold:
        metadata.ensemble.critical_threshold = max(threshold, midpoint_below((1 + threshold) / 2))


def _reached(fitted: Fitted) -> float:
    """A score that something reaches: the highest of the fitted items and of metrics that are all far from normal."""
    shape = fitted.held_out_items.shape
    features = shape[2]
    if features <= 8:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=features)))
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (_PATTERNS, features))
    items = [_moved(fitted, signs), fitted.fitted_items[:10_000]]
    return max(float(fitted.reference.evaluate(part).scores.astype(np.float32).max()) for part in items if len(part))


def _unalarming(fitted: Fitted, threshold: float) -> str | None:
    """What to say when no metric can alarm alone, the others at their medians; None when one can."""
    features = fitted.held_out_items.shape[2]
    alone = np.concatenate([np.eye(features), -np.eye(features)])
    largest = float(fitted.reference.evaluate(_moved(fitted, alone)).scores.max())
    if largest > threshold:
        return None
    return f"one metric far from normal and the others at their medians never reach it (at most {largest:.6g})"


def _moved(fitted: Fitted, directions: Floats) -> Floats:
    """Items of a normal sample moved far into directions ``[n, features]``, in all steps of the window."""
    held_out = fitted.held_out_items
    usual, spread = np.median(held_out[:, -1], axis=0), held_out[:, -1].std(axis=0)
    rows = usual + directions * _FAR * np.where(spread > 0, spread, 1.0)
    return np.repeat(rows[:, np.newaxis], held_out.shape[1], axis=1)
