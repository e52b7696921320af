"""The figures of one scorer, a detector or a baseline, on rows with known faults, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_training.evaluation.bootstrap import Estimate, block_length, in_batches, mean_over
from dwcp_training.evaluation.events import Event, masks
from dwcp_training.evaluation.ranking import Ranking, buffer_lengths, buffered

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNKNOWN = Estimate(None)

OVERALL = (
    "false_positive_rate",
    "false_alarms_per_day",
    "row_recall",
    "average_precision",
    "prevalence",
    "vus_pr",
    "roc_auc",
)
"""Figures that are resampled together."""


@dataclass(frozen=True)
class KindFigures:
    """Figures of the faults of one kind.

    Attributes:
        events, found: faults with a scored row, and those with an alarm before the end of their grace.
        recall: their share.
        rows, alarmed_rows, row_recall: likewise of the scored rows inside the faults.
        delay_seconds: median time from the start of a found fault to its first alarm.
        average_precision, prevalence: on the normal rows and those of this kind.
        by: what distinguishes faults of the kind, name to value to the recall of those: `strength`, `metrics`.
    """

    events: int
    found: int
    recall: Estimate
    rows: int
    alarmed_rows: int
    row_recall: Estimate
    delay_seconds: Estimate
    average_precision: Estimate
    prevalence: Estimate
    by: dict[str, dict[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Figures of one scorer.

    Attributes:
        rows: scored rows that count: normal ones, and those inside faults. The grace does not.
        false_positive_rate, false_alarms_per_day: of normal rows, each alarm counted; per day None without times.
        row_recall: share of the rows inside faults that alarm.
        average_precision, prevalence: the average precision of guessing is the prevalence.
        vus_pr, roc_auc: see `Ranking`.
        kinds: fault kind to its figures.
        block_rows, resamples: how the intervals were made.
    """

    rows: int
    false_positive_rate: Estimate
    false_alarms_per_day: Estimate
    row_recall: Estimate = UNKNOWN
    average_precision: Estimate = UNKNOWN
    prevalence: Estimate = UNKNOWN
    vus_pr: Estimate = UNKNOWN
    roc_auc: Estimate = UNKNOWN
    kinds: dict[str, KindFigures] = field(default_factory=dict)
    block_rows: int = 1
    resamples: int = 0


@dataclass(frozen=True)
class Rows:
    """What a scorer said of ``n`` rows in the order of time, and what they were.

    Attributes:
        scored: bool ``[n]``.
        scores: float64 ``[n]``; those of rows that are not scored are not looked at.
        alarmed: bool ``[n]``.
        events: the faults in them.
        times: of the rows; None without.
        cadence_seconds: between rows; None when unknown.
        timesteps: rows that a verdict depends on.
    """

    scored: Bools
    scores: Floats
    alarmed: Bools
    events: Sequence[Event]
    times: NDArray[np.datetime64] | None
    cadence_seconds: float | None
    timesteps: int


def measure(rows: Rows, count: int, seed: int) -> Figures:
    """All figures, with intervals from `count` resamples."""
    samples, kinds, block = _sampled(rows, count, seed)
    return _figures(samples, kinds, int(_counts(rows)[0].sum()), block, count)


def measure_apart(by_kind: Mapping[str, Rows], count: int, seed: int) -> Figures:
    """Figures of faults of each kind put into the same rows, apart from each other; those of all are their means."""
    every, kinds, blocks, most = [], {}, [], 0
    for rows in by_kind.values():
        samples, of_kind, block = _sampled(rows, count, seed)
        every.append(samples)
        kinds |= of_kind
        blocks.append(block)
        most = max(most, int(_counts(rows)[0].sum()))
    means = {name: mean_over([samples[name] for samples in every]) for name in OVERALL}
    return _figures(means, kinds, most, max(blocks, default=1), count)


def _figures(
    samples: Mapping[str, Floats], kinds: dict[str, KindFigures], rows: int, block: int, count: int
) -> Figures:
    estimates = {name: Estimate.of(samples[name]) for name in OVERALL}
    return Figures(rows=rows, kinds=kinds, block_rows=block, resamples=count, **estimates)


def _counts(rows: Rows) -> tuple[Bools, Bools]:
    """Rows that count, and those of them that are faulty."""
    faulty, touched = masks(rows.events, len(rows.scored))
    return rows.scored & (faulty | ~touched), faulty


def _sampled(rows: Rows, count: int, seed: int) -> tuple[dict[str, Floats], dict[str, KindFigures], int]:
    """Every figure in the data and in each resample, float64 ``[1 + count]``; the kinds' figures; rows in a block."""
    counts, faulty = _counts(rows)
    lengths = [event.until - event.first for event in rows.events]
    total = int(counts.sum())
    block = block_length(total, rows.timesteps, lengths)
    whole = _Part(rows, counts, faulty, whole=True)
    names = sorted({event.kind for event in rows.events})
    parts = {name: _of_kind(rows, counts, faulty, name) for name in names}
    alone = len(names) == 1
    overall: list[dict[str, Floats]] = []
    kinds: dict[str, list[dict[str, Floats]]] = {name: [] for name in names}
    for weights in in_batches(total, block, count, seed) if total else ():
        overall.append(whole.figures(weights))
        for name, part in parts.items():
            kinds[name].append(overall[-1] if alone else part.figures(weights[:, part.among]))
    of_kinds = {name: _kind(rows, name, _joined(batches), seed) for name, batches in kinds.items()}
    return _joined(overall), of_kinds, block


def _joined(batches: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """The figures of all batches of resamples; unknown without any."""
    if not batches:
        return dict.fromkeys(OVERALL, np.full(1, np.nan))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in OVERALL}


class _Part:
    """Rows that count, ready to be weighed: all of them (`whole`), or the normal ones and those of a kind.

    Attributes:
        among: bool, which of the rows that count in all are in this part.
    """

    def __init__(self, rows: Rows, counts: Bools, faulty: Bools, *, whole: bool, among: Bools | None = None) -> None:
        self.faulty, self._alarmed = faulty[counts], rows.alarmed[counts]
        self.among = among if among is not None else np.ones(int(counts.sum()), bool)
        self._per_day = 86_400 / rows.cadence_seconds if rows.cadence_seconds else float("nan")
        self._whole = whole
        self._ranking = None
        if self.faulty.any():
            lengths = [event.stop - event.first for event in rows.events if event.stop > event.first]
            longest = buffer_lengths(int(np.median(lengths))) if whole else []
            surfaces = [buffered(faulty, length) for length in longest]
            buffers = [(labels[counts], numbers[counts]) for labels, numbers in surfaces]
            self._ranking = Ranking(rows.scores[counts], self.faulty, buffers)

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """The figures when rows weigh that much, float64 ``[b, n]``; each float64 ``[b]``."""
        normal, wrong = (weights[:, kind].sum(axis=1) for kind in (~self.faulty, self.faulty))
        false, found = (weights[:, kind & self._alarmed].sum(axis=1) for kind in (~self.faulty, self.faulty))
        nothing = np.full(len(weights), np.nan)
        rate = np.divide(false, normal, out=nothing.copy(), where=normal > 0)
        known = {
            "false_positive_rate": rate,
            "false_alarms_per_day": rate * self._per_day,
            "row_recall": np.divide(found, wrong, out=nothing.copy(), where=wrong > 0),
            "average_precision": nothing,
            "prevalence": nothing,
            "vus_pr": nothing,
            "roc_auc": nothing,
        }
        if self._ranking is not None:
            known["prevalence"] = wrong / (normal + wrong)
            weighed = self._ranking.weighed(weights)
            known["average_precision"] = weighed.average_precision()
            if self._whole:
                known["roc_auc"], known["vus_pr"] = weighed.roc_auc(), weighed.vus_pr()
        return known


def _of_kind(rows: Rows, counts: Bools, faulty: Bools, kind: str) -> _Part:
    """The normal rows and those of the faults of one kind."""
    own = masks([event for event in rows.events if event.kind == kind], len(faulty))[0]
    kept = counts & (own | ~faulty)
    return _Part(rows, kept, own, whole=False, among=kept[counts])


def _kind(rows: Rows, kind: str, samples: Mapping[str, Floats], seed: int) -> KindFigures:
    events = [event for event in rows.events if event.kind == kind]
    known = [event for event in events if rows.scored[event.first : event.until].any()]
    found = [event for event in known if _first_alarm(rows, event) is not None]
    inside = masks(events, len(rows.scored))[0] & rows.scored

    by: dict[str, dict[str, Estimate]] = {}
    for note in dict.fromkeys(name for event in known for name in event.notes):
        values = dict.fromkeys(event.notes[note] for event in known)
        by[note] = {
            value: Estimate.share(
                sum(event.notes[note] == value for event in found), sum(event.notes[note] == value for event in known)
            )
            for value in sorted(values, key=_number)
        }
    return KindFigures(
        events=len(known),
        found=len(found),
        recall=Estimate.share(len(found), len(known)),
        rows=int(inside.sum()),
        alarmed_rows=int((inside & rows.alarmed).sum()),
        row_recall=Estimate.of(samples["row_recall"]),
        delay_seconds=_delay(list(_delays(rows, found)), seed),
        average_precision=Estimate.of(samples["average_precision"]),
        prevalence=Estimate.of(samples["prevalence"]),
        by=by,
    )


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _first_alarm(rows: Rows, event: Event) -> int | None:
    hits = np.flatnonzero((rows.scored & rows.alarmed)[event.first : event.until])
    return event.first + int(hits[0]) if len(hits) else None


def _delays(rows: Rows, found: Sequence[Event]) -> Iterator[float]:
    for event in found:
        alarm = _first_alarm(rows, event)
        if rows.times is not None and event.start is not None and alarm is not None:
            yield float((rows.times[alarm] - event.start) / np.timedelta64(1, "s"))


def _delay(delays: Sequence[float], seed: int) -> Estimate:
    """The median, with the interval of the medians of resampled faults, which have nothing to do with each other."""
    if not delays:
        return UNKNOWN
    drawn = np.random.default_rng(seed).choice(np.array(delays), (1_000, len(delays)))
    medians = np.concatenate([[np.median(delays)], np.median(drawn, axis=1)])
    return Estimate.of(medians) if len(delays) > 2 else Estimate(float(medians[0]))
