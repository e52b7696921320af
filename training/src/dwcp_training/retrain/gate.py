"""The decision: may the challenger become the current release? Row by row, so that people see why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.alarm_budget import SECONDS, trained_share
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.data import Telemetry
from dwcp_training.profiles import Gate
from dwcp_training.retrain.bootstrap import block_share, paired_difference, rate_at_least
from dwcp_training.retrain.marked import Marked, compare
from dwcp_training.retrain.measures import Faults, Measured, episodes, measure, serving_bytes

UNSTATED_SHARE = 0.01
"""Share of normal rows that a threshold is taken to be made for where the model does not say it."""


@dataclass(frozen=True)
class Row:
    """One condition.

    Attributes:
        detector: of which it is one; `all` for the whole set.
        measure: what was measured.
        champion, challenger: the figures; None where there is none.
        limit: what the challenger had to keep, in words.
        passed: whether it did.
        unit: `share`, `count`, `ms`, `MB`, or a rate such as `/week`.
        interval: of the difference, or of the challenger's figure, as `limit` says; None where there is none.
    """

    detector: str
    measure: str
    champion: float | None
    challenger: float | None
    limit: str
    passed: bool
    unit: str = "share"
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Decision:
    """What came out.

    Attributes:
        promote: whether every row passed.
        rows: all conditions.
        champion, challenger: ids of the sets; no champion is empty.
        notes: what people should know besides.
    """

    promote: bool
    rows: tuple[Row, ...]
    champion: str
    challenger: str
    notes: tuple[str, ...] = field(default=())

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    def as_json(self) -> dict[str, Any]:
        """For programs; a number that is none is null."""

        def number(value: float | None) -> float | None:
            return value if value is not None and math.isfinite(value) else None

        rows = []
        for row in self.rows:
            figures = {"champion": number(row.champion), "challenger": number(row.challenger)}
            interval = None if row.interval is None else [number(end) for end in row.interval]
            rows.append({**asdict(row), **figures, "interval": interval})
        return {
            "promote": self.promote,
            "champion": self.champion,
            "challenger": self.challenger,
            "rows": rows,
            "notes": list(self.notes),
        }


def judge(
    challenger: ModelSet,
    champion: ModelSet | None,
    held_out: Telemetry,
    faults: Mapping[str, Faults],
    gate: Gate,
    say: Callable[[int, int, str], None],
    marked: Marked | None = None,
) -> Decision:
    """Measures both sets on the same rows and faults and decides.

    Args:
        challenger: opened, so its golden vectors have passed.
        champion: the set in use; None where there is none, or it does not open.
        held_out: rows that the challenger was not trained on.
        faults: kind to injected faults.
        gate: the conditions.
        say: shows the progress.
        marked: what operators said of the collected rows; None where nothing is marked in them.
    """
    before = dict(champion.models) if champion else {}
    names = list(dict.fromkeys([*before, *challenger.models]))
    steps, done = len(faults) * (len(before) + len(challenger.models)), 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        say(done, steps, text)

    rows: list[Row] = []
    feedback_tests = 2 * max(1, sum(name in challenger.models for name in before))
    recall_tests = max(1, len(faults) * sum(name in challenger.models for name in before))
    for name in names:
        measured = {}
        for who, models in (("champion", before), ("challenger", challenger.models)):
            if name in models:
                text = f"measuring {who}: {name}"
                measured[who] = measure(models[name], held_out, faults, partial(advance, text))
        if "challenger" not in measured:
            rows.append(Row(name, "can be scored", 1.0, 0.0, "as the champion can", False, "count"))
            continue
        old, new = measured.get("champion"), measured["challenger"]
        loud = False
        if old is not None and champion is not None:
            shares = nominal_share(champion, name), nominal_share(challenger, name)
            loud = _bought(old, new, *(gate.false_alarm_factor * share for share in shares))
        rows += _recalls(name, old, new, gate, recall_tests, loud=loud)
        rows += _false_alarms(name, old, new, challenger, held_out, gate)
        if marked is not None and name in before:
            rows += _feedback(name, before[name], challenger.models[name], marked, gate, feedback_tests, loud=loud)
        rows.append(_golden(name, champion, challenger))
        passed = new.latency_ms <= gate.latency_ms
        limit = f"at most {gate.latency_ms:g} ms"
        rows.append(Row(name, "latency", old.latency_ms if old else None, new.latency_ms, limit, passed, "ms"))
    size = serving_bytes(challenger) / 1e6
    was = serving_bytes(champion) / 1e6 if champion else None
    rows.append(Row("all", "size", was, size, f"at most {gate.size_mb:g} MB", size <= gate.size_mb, "MB"))
    return Decision(all(row.passed for row in rows), tuple(rows), champion.id if champion else "", challenger.id)


def _bought(old: Measured, new: Measured, old_limit: float, new_limit: float) -> bool:
    """Whether the champion has its recall from alarming on normal rows too, and the challenger has not.

    Each is held against the limit of its own threshold: one that is made for fewer alarms makes no other one loud.
    """
    if not len(old.false_alarms) or not len(new.false_alarms):
        return False
    return bool(new.false_alarms.mean() <= new_limit and old.false_alarms.mean() > 2 * old_limit)


def _recalls(name: str, old: Measured | None, new: Measured, gate: Gate, tests: int, *, loud: bool) -> list[Row]:
    """A row for each kind of fault: no loss beyond the interval of the paired difference (Bonferroni over `tests`).

    Nothing is compared with a champion that is `loud`: one that alarms all the time also alarms in every fault.
    """
    rows = []
    for kind, found in new.found.items():
        both = new.possible[kind] & (old.possible[kind] if old else True)
        if not both.any():
            continue
        recall = float(found[both].mean())
        if old is None:
            rows.append(Row(name, f"recall of {kind}", None, recall, "none: there is no champion", True))
            continue
        was = old.found[kind][both]
        confidence = 1 - (1 - gate.confidence) / tests
        interval = paired_difference(was, found[both], confidence, gate.resamples)
        passed = loud or interval[1] >= 0 or recall - float(was.mean()) >= -gate.recall_margin
        limit = f"no loss beyond chance, of {int(both.sum())} faults"
        if loud:
            limit = "none: the champion alarms on normal rows too"
        rows.append(Row(name, f"recall of {kind}", float(was.mean()), recall, limit, passed, "share", interval))
    return rows


def _false_alarms(
    name: str, old: Measured | None, new: Measured, models: ModelSet, telemetry: Telemetry, gate: Gate
) -> list[Row]:
    """The share of held-out rows that alarm, and the alarms in time where the profile has a budget."""
    marks = new.false_alarms
    if not len(marks):
        return [Row(name, "false alarms", None, None, "a whole window in the held-out rows", False)]
    share, was = float(marks.mean()), float(old.false_alarms.mean()) if old and len(old.false_alarms) else None
    allowed = gate.false_alarm_factor * nominal_share(models, name)
    limit = f"at most {100 * allowed:.2f} %"
    if was is not None and was > allowed:  # where the champion is over its limit, less is better than before
        allowed, limit = was, f"at most {100 * was:.2f} %, as the champion"
    block = max(models.models[name].timesteps, math.ceil(len(marks) ** (1 / 3)))
    interval = block_share(marks, block, gate.confidence, min(gate.resamples, 2_000))
    rows = [Row(name, "false alarms", was, share, limit, interval[0] <= allowed, "share", interval)]
    if gate.alarm_budget is None or not telemetry.cadence_seconds:
        return rows
    number, _, unit = gate.alarm_budget.partition("/")
    duration = int(new.held_out.scored.sum()) * telemetry.cadence_seconds / SECONDS[unit]
    count = episodes(new.held_out, telemetry)
    least = rate_at_least(count, duration, gate.confidence)
    before = episodes(old.held_out, telemetry) / duration if old else None
    limit = f"at most {gate.alarm_budget}, unless by chance"
    rows.append(
        Row(
            name, "alarm budget", before, count / duration, limit, least <= float(number), f"/{unit}", (least, math.inf)
        )
    )
    return rows


def _feedback(name: str, old: Scorer, new: Scorer, marked: Marked, gate: Gate, tests: int, *, loud: bool) -> list[Row]:
    """Two rows: incidents that people marked, of which no fewer may be found, and false alarms, of which no more may
    be raised, beyond chance: the exact test of McNemar, one-sided (Bonferroni over `tests`).

    As for injected faults, incidents are not compared with a champion that is `loud`.
    """
    incidents, alarms = compare(old, new, marked)
    level = (1 - gate.confidence) / tests
    rows = []
    if incidents.events:
        chance = incidents.chance_of_fewer()
        lost, won = incidents.only_before, incidents.only_after
        limit = f"no loss beyond chance, of {incidents.events} marked ({lost} lost, {won} won, p = {chance:.2g})"
        if loud:
            limit = f"none: the champion alarms on normal rows too; of {incidents.events} marked"
        found = float(incidents.before), float(incidents.after)
        rows.append(Row(name, "feedback incidents", *found, limit, loud or chance > level, "count"))
    if alarms.events:
        chance = alarms.chance_of_more()
        more, fewer = alarms.only_after, alarms.only_before
        limit = f"no more beyond chance, of {alarms.events} marked ({more} new, {fewer} gone, p = {chance:.2g})"
        raised = float(alarms.before), float(alarms.after)
        rows.append(Row(name, "feedback false alarms", *raised, limit, chance > level, "count"))
    return rows


def _golden(name: str, champion: ModelSet | None, challenger: ModelSet) -> Row:
    """Both sets were opened, which runs every golden vector (V1): a set in which one fails never comes so far."""
    cases = len(challenger.golden[name].cases)
    before = len(champion.golden[name].cases) if champion and name in champion.golden else None
    return Row(name, "golden vectors passed", before, cases, f"all {cases}", cases > 0, "count")


def nominal_share(models: ModelSet, name: str) -> float:
    """Share of normal rows that the threshold of a model was made to alarm on (D3, M4); where that is not said, as much
    as its kind allows."""
    metadata: model_pb2.ModelMetadata = models.metadata[name]
    stated = trained_share(metadata)
    if stated is not None:
        return stated
    if metadata.HasField("svm"):
        return metadata.svm.nu
    if metadata.HasField("ensemble"):
        members = [detectors.NAMES[member.detector] for member in metadata.ensemble.members]
        return max(nominal_share(models, member) for member in members if member in models.metadata)
    return UNSTATED_SHARE


def deviations_of(rows: Telemetry) -> np.ndarray:
    """Standard deviation of each metric, float64 ``[F]``; 1 for one that never changes."""
    spread = rows.values.std(axis=0)
    return np.where(spread > 0, spread, 1.0)
