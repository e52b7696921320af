"""What operators have marked, in the rows at hand: kept out of training or kept in it, and compared in the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_training.data import Telemetry
from dwcp_training.feedback.marks import Mark, joined
from dwcp_training.retrain.collect import ranges_of
from dwcp_training.telemetry_scores import SeriesScores, series_scores

Bools = NDArray[np.bool_]
Events = tuple[NDArray[np.intp], ...]
"""The rows of each event, ascending."""


@dataclass(frozen=True)
class Marked:
    """Marks in the ``n`` rows of a telemetry.

    Attributes:
        telemetry: the rows.
        incident: bool ``[n]``, rows of true alarms and missed incidents.
        normal: bool ``[n]``, rows of false alarms, where nothing else is marked.
        incidents, false_alarms: what happened once, each with its rows: marks of one series that overlap or are
            neighbours are one event.
        outside: number of marks without a row here.
    """

    telemetry: Telemetry
    incident: Bools
    normal: Bools
    incidents: Events
    false_alarms: Events
    outside: int

    def without_incidents(self) -> Telemetry:
        """The rows outside of incidents."""
        return self.telemetry.take(ranges_of(~self.incident)) if self.incident.any() else self.telemetry


def marked_rows(telemetry: Telemetry, marks: Sequence[Mark]) -> Marked:
    """Finds the rows of marks.

    A mark without a series is of all series. One with a name is of the series of that name, and of all rows where the
    data is one series without a name.
    """
    count = len(telemetry)
    incident, normal, outside = np.zeros(count, bool), np.zeros(count, bool), 0
    rows: dict[Mark, NDArray[np.intp]] = {}
    times = None if telemetry.timestamps is None else telemetry.timestamps.astype("datetime64[ns]").astype(np.int64)
    for mark in marks:
        found = _rows_of(telemetry, times, mark)
        if not len(found):
            outside += 1
            continue
        rows[mark] = found
        (incident if mark.incident else normal)[found] = True
    normal &= ~incident  # two series may have become one that has no name
    gap = round((telemetry.cadence_seconds or 0) * 1e9)
    events: dict[bool, Events] = {}
    for kind, kept in ((True, incident), (False, normal)):
        groups = joined((mark for mark in rows if mark.incident == kind), gap)
        together = (np.unique(np.concatenate([rows[mark] for mark in group])) for group in groups)
        events[kind] = tuple(event[kept[event]] for event in together if kept[event].any())
    return Marked(telemetry, incident, normal, events[True], events[False], outside)


def _rows_of(telemetry: Telemetry, times: NDArray[np.int64] | None, mark: Mark) -> NDArray[np.intp]:
    """The rows of a mark, by their times in nanoseconds; none where rows have no times."""
    if times is None:
        return np.zeros(0, np.intp)
    series, names = telemetry.series or ((0, len(telemetry)),), telemetry.series_names
    nameless = not any(names)
    found = [np.zeros(0, np.intp)]
    for k, (start, stop) in enumerate(series):
        if mark.series and not nameless and names[k] != mark.series:
            continue
        first = start + np.searchsorted(times[start:stop], mark.start, side="left")
        last = start + np.searchsorted(times[start:stop], mark.end, side="right")
        found.append(np.arange(first, last))
    return np.concatenate(found)


@dataclass(frozen=True)
class Comparison:
    """Which events of one kind two models alarm in.

    Attributes:
        events: those in which both score a row.
        before, after: in how many each alarms.
        only_before, only_after: in how many one alarms and the other does not.
    """

    events: int
    before: int
    after: int
    only_before: int
    only_after: int

    def chance_of_fewer(self) -> float:
        """Probability of so many events, or more, that only the one before alarms in, were both equally good."""
        return _sign_test(self.only_before, self.only_after)

    def chance_of_more(self) -> float:
        """The same of events that only the one after alarms in."""
        return _sign_test(self.only_after, self.only_before)


def _sign_test(against: int, in_favour: int) -> float:
    """Exact, one-sided, on the discordant pairs (McNemar: Note on the sampling error of the difference between
    correlated proportions or percentages, 1947)."""
    if not against + in_favour:
        return 1.0
    from scipy.stats import binomtest  # here: see `evaluation.bootstrap`

    return float(binomtest(against, against + in_favour, 0.5, alternative="greater").pvalue)


def compare(before: Scorer, after: Scorer, marked: Marked) -> tuple[Comparison, Comparison]:
    """What two models do in the incidents, and in the false alarms, that are marked.

    An event counts as alarmed in when the verdict on one of its rows is an alarm. Only the marked rows are scored, with
    as many before them as a window has.
    """
    length = max(before.timesteps, after.timesteps)
    wanted = marked.incident | marked.normal
    kept = np.zeros(len(wanted), bool)
    for start, stop in marked.telemetry.segments:
        for first, last in ranges_of(wanted[start:stop]):
            kept[start + max(0, first - length + 1) : start + last] = True
    if not kept.any():
        return Comparison(0, 0, 0, 0, 0), Comparison(0, 0, 0, 0, 0)
    rows = marked.telemetry.take(ranges_of(kept))
    place = np.cumsum(kept) - 1
    scores = series_scores(before, rows), series_scores(after, rows)
    return _count(scores, marked.incidents, place), _count(scores, marked.false_alarms, place)


def _count(scores: tuple[SeriesScores, SeriesScores], events: Events, place: NDArray[np.intp]) -> Comparison:
    old, new = scores
    pairs = []
    for event in events:
        at = place[event]
        at = at[old.scored[at] & new.scored[at]]
        if len(at):
            pairs.append((bool(old.alarmed[at].any()), bool(new.alarmed[at].any())))
    return Comparison(
        len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs),
        pairs.count((True, False)), pairs.count((False, True)),
    )  # fmt: skip
