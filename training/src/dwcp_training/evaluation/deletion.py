"""Deletion test: is the metric that contributes most the one whose replacement lowers the score most?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data import Telemetry
from dwcp_training.evaluation.bootstrap import Estimate
from dwcp_training.evaluation.events import Event
from dwcp_training.evaluation.faults import Injected
from dwcp_training.evaluation.scored import explain_rows


@dataclass(frozen=True)
class Deletion:
    """How many single-metric faults pass.

    Attributes:
        faults: that alarmed.
        passed: those of them in which replacing the top contributor by its expected value lowers the score more than
            any other single replacement.
        share: of those that passed.
        named: those in which the top contributor is the metric that was changed.
        all_faults, all_passed: likewise of all faults, also those that nobody was told of.
    """

    faults: int
    passed: int
    share: Estimate
    named: int
    all_faults: int
    all_passed: int

    @classmethod
    def joined(cls, parts: Sequence[Deletion]) -> Deletion:
        """Of all faults together."""
        faults, passed = sum(part.faults for part in parts), sum(part.passed for part in parts)
        return cls(
            faults=faults,
            passed=passed,
            share=Estimate.share(passed, faults),
            named=sum(part.named for part in parts),
            all_faults=sum(part.all_faults for part in parts),
            all_passed=sum(part.all_passed for part in parts),
        )


@dataclass(frozen=True)
class _Outcome:
    alarmed: bool
    passed: bool
    named: bool


def deletion_test(model: Scorer, telemetry: Telemetry, injected: Injected) -> Deletion:
    """Runs the test on faults that change one metric each.

    Of each fault the row with the highest score is taken: what an operator would look at. Each metric in turn is
    replaced by its expected value, in a window in every step by the value that the verdict on that step expects.

    Args:
        telemetry: the normal rows that the faults were put into.
        injected: a copy of them with faults in one metric each.
    """
    outcomes = [
        outcome
        for event in injected.events
        if (outcome := _outcome(model, telemetry, injected.values, event)) is not None
    ]
    told = [outcome for outcome in outcomes if outcome.alarmed]
    passed = sum(outcome.passed for outcome in told)
    return Deletion(
        faults=len(told),
        passed=passed,
        share=Estimate.share(passed, len(told)),
        named=sum(outcome.named for outcome in told),
        all_faults=len(outcomes),
        all_passed=sum(outcome.passed for outcome in outcomes),
    )


def _outcome(model: Scorer, telemetry: Telemetry, values: NDArray[np.float64], event: Event) -> _Outcome | None:
    segment = next(first for first, stop in telemetry.segments if first <= event.first < stop)
    steps = model.timesteps
    begin = max(segment, event.first - 2 * (steps - 1))
    rows = values[begin : event.stop]
    explained = explain_rows(model, rows, [(0, len(rows))])
    inside = np.arange(len(rows)) >= event.first - begin
    candidates = np.flatnonzero(inside & explained.scored)
    if not len(candidates):
        return None
    worst = int(candidates[np.argmax(explained.scores[candidates])])
    window = rows[worst - steps + 1 : worst + 1]
    expected = np.where(
        explained.scored[worst - steps + 1 : worst + 1, np.newaxis],
        explained.expected[worst - steps + 1 : worst + 1],
        window,
    )
    drops = drops_of(model, window, expected)
    top = int(np.argmax(explained.contributions[worst]))
    changed = np.flatnonzero(
        (values[event.first : event.stop] != telemetry.values[event.first : event.stop]).any(axis=0)
    )
    others = np.delete(drops, top)
    passed = bool(drops[top] > 0 and (len(others) == 0 or drops[top] > others.max()))
    return _Outcome(bool(explained.alarmed[worst]), passed, top in changed.tolist())


def drops_of(model: Scorer, window: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the score falls when one metric after the other is replaced, float64 ``[F]``.

    Args:
        window: raw values, ``[timesteps, F]``.
        expected: what they are replaced by, likewise; infinities (P1) stand for no replacement.
    """
    width = window.shape[1]
    items = np.repeat(window[np.newaxis], width + 1, axis=0)
    usable = np.where(np.isfinite(expected), expected, window)
    for j in range(width):
        items[j, :, j] = usable[:, j]
    scores = model.score_batch(items if model.windowed else items[:, 0], Explain.NEVER).scores.astype(np.float64)
    return scores[-1] - scores[:-1]
