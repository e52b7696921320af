"""Everything that is measured about one detector of a set, and about the baselines beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data import INJECTION_KINDS, Intervals, Telemetry
from dwcp_training.evaluation.baselines import BASELINES, Scaling, ThresholdRule, alarming_share
from dwcp_training.evaluation.bootstrap import RESAMPLES
from dwcp_training.evaluation.counts import Evaluated, check_data, counted, evaluate_injected
from dwcp_training.evaluation.coverage import Coverage, coverage
from dwcp_training.evaluation.deletion import Deletion, deletion_test
from dwcp_training.evaluation.events import Event, events_of, labelled_events, masks
from dwcp_training.evaluation.faults import Injected, Plan, put_faults, score_injected
from dwcp_training.evaluation.figures import Figures, Rows, measure, measure_apart
from dwcp_training.evaluation.scored import ScoredRows, score_rows

MOST_EXPLAINED = 100
"""Rows of a kind of fault whose contributions are averaged."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        telemetry: the rows.
        faults: when something was wrong; None for rows that are normal or have labels of their own.
        grace_seconds: rows this long after a fault count neither as normal nor as faulty.
        inject: put faults of every kind into the rows, which are normal.
        deletion: put faults into single metrics and run the deletion test.
        plan: what is put into them.
        normal: normal rows whose held-out end sets the baselines' thresholds; None for the evaluated rows themselves.
        resamples: for each interval.
        explain: also average the contributions of each kind of fault.
    """

    telemetry: Telemetry
    faults: Intervals | None = None
    grace_seconds: float = 0.0
    inject: bool = False
    deletion: bool = False
    plan: Plan = field(default_factory=Plan)
    normal: Telemetry | None = None
    resamples: int = RESAMPLES
    explain: bool = False

    def events(self) -> list[Event] | None:
        """The faults that are in the rows; None where all are normal."""
        if self.faults is not None and self.telemetry.timestamps is not None:
            return events_of(self.faults, self.telemetry.timestamps, self.grace_seconds)
        if self.telemetry.labels is not None:
            return labelled_events(self.telemetry)
        return None

    def steps(self) -> int:
        """How often `assess` says that it is further."""
        injected = len(INJECTION_KINDS) * (len(self.telemetry.schema.names) + 1) if self.inject else 0
        return 2 + len(BASELINES) + injected + (len(INJECTION_KINDS) if self.deletion else 0)


@dataclass(frozen=True)
class Copy:
    """A copy of the rows with faults of one kind, scored by the detector."""

    injected: Injected
    scored: ScoredRows


@dataclass(frozen=True)
class Assessed:
    """What was found about one detector.

    Attributes:
        threshold: of the detector.
        held_out_share: share of its held-out normal scores that alarm: the baselines' rule.
        evaluated: plain counts.
        figures: with intervals.
        baselines: name to figures of the same rows.
        coverage: of its p-values, on normal rows.
        deletion: kind to the outcome of the deletion test, then `single_metric` for all kinds but broken correlations,
            which are faults of a relation and not of the metric that was changed, and `all`.
        without_trace: kind to injected faults that changed nothing, and are left out.
        contributions: kind to the mean contribution of each metric in the rows of its faults, those that alarm where
            there are any.
        rows: the verdicts on the rows as they are.
        events: the faults in them.
        copies: kind to the copy with faults of it.
    """

    threshold: float
    held_out_share: float
    evaluated: Evaluated
    figures: Figures
    baselines: dict[str, Figures]
    coverage: list[Coverage]
    deletion: dict[str, Deletion]
    without_trace: dict[str, int]
    contributions: dict[str, NDArray[np.float64]]
    rows: ScoredRows
    events: list[Event]
    copies: dict[str, Copy]


def assess(model: Scorer, question: Question, advance: Callable[[], None] = lambda: None) -> Assessed:
    """Measures one detector.

    Raises:
        DataError: the metrics are not those of the model; faults are given for rows without times; there is no room for
            injected faults.
    """
    telemetry, seed = question.telemetry, question.plan.seed
    check_data(model, telemetry, question.faults)
    events = question.events()
    scored = score_rows(model, telemetry.values, telemetry.segments)
    evaluated = counted(telemetry, scored.scored, scored.alarmed, events)
    advance()
    normal_rows = scored.scored & ~masks(events or [], len(telemetry))[1]
    scaling = Scaling.of(model, telemetry)
    rule = ThresholdRule(alarming_share(model), question.normal, model.timesteps)

    def rows_of(values: NDArray[np.float64], own: ScoredRows, put: Sequence[Event], name: str | None) -> Rows:
        scores, alarmed = own.scores, own.alarmed
        if name is not None:
            scores = scaling.scores(name, values)
            normal = own.scored & ~masks(put, len(values))[1]
            alarmed = rule.alarms(name, scaling, scores, normal) & own.scored
        return Rows(own.scored, scores, alarmed, put, telemetry.timestamps, telemetry.cadence_seconds, model.timesteps)

    copies: dict[str, Copy] = {}
    if question.inject:
        for kind in INJECTION_KINDS:
            for metric in telemetry.schema.names:
                evaluated.injected.setdefault(kind, {})[metric] = evaluate_injected(model, telemetry, kind, metric)
                advance()
            put = put_faults(telemetry, kind, scaling.scale, question.plan, model.timesteps)
            copies[kind] = Copy(put, score_injected(model, telemetry, put, scored))
            advance()

    def figures(name: str | None) -> Figures:
        if not copies:
            return measure(rows_of(telemetry.values, scored, events or [], name), question.resamples, seed)
        by_kind = {
            kind: rows_of(copy.injected.values, copy.scored, copy.injected.events, name)
            for kind, copy in copies.items()
            if copy.injected.events
        }
        if not by_kind:  # nothing that was put into the rows left a trace
            return measure(rows_of(telemetry.values, scored, [], name), question.resamples, seed)
        return measure_apart(by_kind, question.resamples, seed)

    own = figures(None)
    advance()
    baselines = {}
    for name in BASELINES:
        baselines[name] = figures(name)
        advance()
    return Assessed(
        threshold=model.threshold,
        held_out_share=rule.share,
        evaluated=evaluated,
        figures=own,
        baselines=baselines,
        coverage=coverage(model, scored.scores[normal_rows], question.resamples, seed),
        deletion=_deletions(model, telemetry, scaling, question.plan, advance) if question.deletion else {},
        without_trace={kind: copy.injected.without_trace for kind, copy in copies.items()},
        contributions=_contributions(model, telemetry, scored, events or [], copies) if question.explain else {},
        rows=scored,
        events=events or [],
        copies=copies,
    )


def _deletions(
    model: Scorer, telemetry: Telemetry, scaling: Scaling, plan: Plan, advance: Callable[[], None]
) -> dict[str, Deletion]:
    """The deletion test on faults of one metric each, by kind and for all."""
    one_metric = Plan(plan.strengths, (1,), plan.seed)
    found = {}
    for kind in INJECTION_KINDS:
        put = put_faults(telemetry, kind, scaling.scale, one_metric, model.timesteps)
        found[kind] = deletion_test(model, telemetry, put)
        advance()
    alone = [outcome for kind, outcome in found.items() if kind != "correlation_break"]
    return {**found, "single_metric": Deletion.joined(alone), "all": Deletion.joined(list(found.values()))}


def _contributions(
    model: Scorer, telemetry: Telemetry, scored: ScoredRows, events: Sequence[Event], copies: dict[str, Copy]
) -> dict[str, NDArray[np.float64]]:
    parts = {kind: (copy.injected.values, copy.scored, copy.injected.events) for kind, copy in copies.items()}
    for kind in dict.fromkeys(event.kind for event in events):
        parts[kind] = (telemetry.values, scored, [event for event in events if event.kind == kind])
    means = {}
    for kind, (values, verdicts, put) in parts.items():
        inside = masks(put, len(values))[0] & verdicts.scored
        rows = np.flatnonzero(inside & verdicts.alarmed)
        rows = (rows if len(rows) else np.flatnonzero(inside))[:MOST_EXPLAINED]
        if len(rows):
            windows = values[rows[:, np.newaxis] - np.arange(model.timesteps)[::-1]]
            explained = model.score_batch(windows if model.windowed else windows[:, 0], Explain.ALWAYS)
            means[kind] = explained.contributions.mean(axis=0, dtype=np.float64)
    return means
