"""How well a published set tells faults from normal operation: false alarms, misses, delay (S1-19, S1-20).

Everything is scored by the code that serves, segment by segment, so that no window crosses a gap. The verdict on a
window belongs to its last row: that is when an operator would see it.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from dwcp_sidecar.features import MAX_BATCH_ITEMS
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.console import UsageError, guarded, out, print_data, print_warning, progress_bar
from dwcp_training.data import INJECTION_KINDS, DataError, Exclusion, Intervals, Telemetry, inject, read_table
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable

STRENGTH = 5.0
"""Size of injected anomalies in training standard deviations."""

EVENTS = 20
"""Injected anomalies of a kind and metric, fewer in little data: one to 100 rows."""


@dataclass(frozen=True)
class Recall:
    """How many faults of one kind were found.

    Attributes:
        events: faults with at least one scored row.
        found: those with an alarm from their start to the end of their grace.
        rows, alarmed: scored rows inside the faults, and those with an alarm; the grace does not count.
        latency_seconds: median time from the start of a found fault to its first alarm; None without times or finds.
    """

    events: int
    found: int
    rows: int
    alarmed: int
    latency_seconds: float | None


@dataclass(frozen=True)
class Evaluated:
    """Figures of one detector.

    Attributes:
        normal_rows: scored rows outside faults and their grace.
        false_alarms: those with an alarm.
        false_positive_rate: their share; None without normal rows.
        false_alarms_per_hour: None without times.
        false_negative_rate: share of the scored rows of faults without an alarm; None without faults.
        detection_latency_seconds: median over all found faults, as in `Recall`.
        kinds: fault kind to recall.
        injected: kind to metric to recall.
    """

    normal_rows: int
    false_alarms: int
    false_positive_rate: float | None
    false_alarms_per_hour: float | None
    false_negative_rate: float | None = None
    detection_latency_seconds: float | None = None
    kinds: dict[str, Recall] = field(default_factory=dict)
    injected: dict[str, dict[str, Recall]] = field(default_factory=dict)


def alarms(
    model: Model, values: NDArray[np.float64], segments: Iterable[tuple[int, int]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of `values` `[n, features]` were scored and which alarmed, both bool `[n]`.

    The first `timesteps - 1` rows of a segment end no window and are not scored.
    """
    scored, alarmed = np.zeros(len(values), bool), np.zeros(len(values), bool)
    before = model.timesteps - 1
    for start, stop in segments:
        for first in range(start + before, stop, MAX_BATCH_ITEMS):
            last = min(first + MAX_BATCH_ITEMS, stop)
            verdicts = model.score_batch(values[first - before : last], Explain.NEVER, series=True)
            scored[first:last], alarmed[first:last] = True, verdicts.is_anomaly
    return scored, alarmed


def evaluate(
    model: Model, telemetry: Telemetry, faults: Intervals | None = None, grace_seconds: float = 0.0
) -> Evaluated:
    """Scores telemetry, with faults in it at known times, or all of it normal.

    Args:
        model: of an open set.
        telemetry: all rows, those of the faults too.
        faults: when something was wrong; they may overlap.
        grace_seconds: rows this long after a fault count neither as normal nor as faulty, because metrics lag.

    Raises:
        DataError: the metrics are not those of the model, or faults are given for rows without times.
    """
    if tuple(model.feature_names) != telemetry.schema.names:
        raise DataError("profile", f"the model scores {', '.join(model.feature_names)}; the data is another profile's.")
    if faults is not None and telemetry.timestamps is None:
        raise DataError("labels", "rows without times cannot be inside a fault.")
    if faults is not None and telemetry.parallel:
        raise DataError(
            "labels", "the data are several series at once; a fault does not say which one it is of.",
            "Evaluate one device or file at a time.",
        )  # fmt: skip
    scored, alarmed = alarms(model, telemetry.values, telemetry.segments)
    if faults is None or telemetry.timestamps is None:
        return _false_alarms(telemetry, scored, alarmed)
    times = telemetry.timestamps
    inside = faults.covers(times)
    figures = _false_alarms(telemetry, scored & ~faults.covers(times, grace_seconds), alarmed)
    faulty, missed = int((scored & inside).sum()), int((scored & inside & ~alarmed).sum())
    grace = np.timedelta64(round(grace_seconds * 1e9), "ns")
    kinds, every_latency = {}, []
    for kind in sorted(set(faults.kind)):
        of_kind = faults.of_kind(kind)
        rows = [_rows_between(times, start, end) for start, end in zip(of_kind.start, of_kind.end, strict=True)]
        reach = [
            _rows_between(times, start, end + grace) for start, end in zip(of_kind.start, of_kind.end, strict=True)
        ]
        kinds[kind], latencies = _recall(scored, alarmed, rows, reach, times, of_kind.start)
        every_latency += latencies
    return Evaluated(
        **{
            **vars(figures),
            "false_negative_rate": missed / faulty if faulty else None,
            "detection_latency_seconds": float(np.median(every_latency)) if every_latency else None,
            "kinds": kinds,
        }
    )


def evaluate_injected(model: Model, telemetry: Telemetry, kind: str, metric: str) -> Recall:
    """Recall on anomalies of one kind put into one metric of normal rows; only windows ending in one are scored."""
    events = min(EVENTS, max(1, len(telemetry) // 100))
    scale = model.metadata.scaler.scale
    deviations = np.array(scale) if len(scale) else None  # an ensemble has none: those of the data
    values, labels = inject(telemetry, kind, metrics=[metric], strength=STRENGTH, deviations=deviations, events=events)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels.astype(np.int8), [0]])))
    rows = [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
    scored, alarmed = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for first, last in rows:
        segment = next(start for start, stop in telemetry.segments if start <= first < stop)
        begin = max(segment, first - model.timesteps + 1)
        parts = alarms(model, values[begin:last], [(0, last - begin)])
        scored[first:last], alarmed[first:last] = (part[first - begin :] for part in parts)
    times = telemetry.timestamps
    starts = None if times is None else times[[first for first, _ in rows]]
    return _recall(scored, alarmed, rows, rows, times, starts)[0]


def _false_alarms(telemetry: Telemetry, normal: NDArray[np.bool_], alarmed: NDArray[np.bool_]) -> Evaluated:
    rows, false = int(normal.sum()), int((normal & alarmed).sum())
    hours = rows * telemetry.cadence_seconds / 3600 if telemetry.cadence_seconds else None
    return Evaluated(rows, false, false / rows if rows else None, false / hours if hours else None)


def _rows_between(times: NDArray[np.datetime64], start: np.datetime64, end: np.datetime64) -> tuple[int, int]:
    return int(np.searchsorted(times, start, side="left")), int(np.searchsorted(times, end, side="right"))


def _recall(
    scored: NDArray[np.bool_],
    alarmed: NDArray[np.bool_],
    rows: Sequence[tuple[int, int]],
    reach: Sequence[tuple[int, int]],
    times: NDArray[np.datetime64] | None,
    starts: NDArray[np.datetime64] | None,
) -> tuple[Recall, list[float]]:
    """Recall over events with these rows, found where an alarm is in `reach`; and the latency of each one found."""
    events = found = inside = inside_alarmed = 0
    latencies = []
    for k, ((first, last), (_, until)) in enumerate(zip(rows, reach, strict=True)):
        inside += int(scored[first:last].sum())
        inside_alarmed += int(alarmed[first:last].sum())
        if not scored[first:until].any():
            continue
        events += 1
        hits = np.flatnonzero(alarmed[first:until])
        if len(hits):
            found += 1
            if times is not None and starts is not None:
                latencies.append(float((times[first + hits[0]] - starts[k]) / np.timedelta64(1, "s")))
    latency = float(np.median(latencies)) if latencies else None
    return Recall(events, found, inside, inside_alarmed, latency), latencies


def run_evaluate(
    models: Path,
    data: Sequence[Path],
    labels: Sequence[Path] = (),
    grace_seconds: float = 0.0,
    *,
    injected: bool = False,
    json_file: Path | None = None,
    on_bad_rows: str = "fail",
    profile: str = "dwcp",
) -> int:
    """Evaluates every detector of a set for a person and returns the exit status, as `run.run` does."""

    def command() -> None:
        if injected and labels:
            raise UsageError("--inject puts anomalies into normal data; with --labels the data is not normal: give one")
        if not 0 <= grace_seconds < float("inf"):
            raise UsageError(f"--grace {grace_seconds:g}: write a number of seconds, 0 or more")
        if grace_seconds and not labels:
            raise UsageError("--grace is the time after a fault of --labels, which is not given")
        if json_file is not None:
            check_writable(json_file.parent, "--json")
        models_set = ModelSet.open(models)
        faults = Exclusion(tuple(labels)).read_intervals()
        telemetry = read_table(
            list(data),
            load_profile(profile),
            on_bad_rows=on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
        )
        print_data(telemetry)
        found: dict[str, Evaluated] = {}
        with progress_bar() as bar:
            combinations = [(kind, metric) for kind in INJECTION_KINDS for metric in telemetry.schema.names]
            task = bar.add_task("scoring", total=len(models_set.models) * (1 + injected * len(combinations)))
            for name, model in models_set.models.items():
                figures = evaluate(model, telemetry, faults, grace_seconds)
                bar.advance(task)
                for kind, metric in combinations if injected else ():
                    recall = evaluate_injected(model, telemetry, kind, metric)
                    figures.injected.setdefault(kind, {})[metric] = recall
                    bar.advance(task)
                found[name] = figures
        for name, figures in found.items():
            _print(name, figures)
        for name in models_set.metadata.keys() - found.keys():
            print_warning(f"{name} was left out: {models_set.why_not(name)}")
        if json_file is not None:
            content = {"model_set": models_set.id, "data": telemetry.source, "grace_seconds": grace_seconds}
            _write_json(json_file, {**content, "detectors": {name: asdict(figures) for name, figures in found.items()}})

    return guarded(command, "Nothing was evaluated.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def _print(name: str, figures: Evaluated) -> None:
    table = Table(title=name, show_header=False, title_justify="left")
    per_hour = figures.false_alarms_per_hour
    table.add_row("normal rows scored", f"{figures.normal_rows:,}")
    table.add_row(
        "false positive rate",
        f"{_percent(figures.false_positive_rate)}: {figures.false_alarms:,} rows"
        + (f", {per_hour:.1f} an hour" if per_hour is not None else ""),
    )
    if figures.kinds:
        table.add_row("false negative rate", f"{_percent(figures.false_negative_rate)} of the rows inside faults")
        table.add_row("detection latency", f"{_seconds(figures.detection_latency_seconds)}, median of the faults found")
    out.print(table)
    if figures.kinds:
        table = Table(
            "fault", "found", "rows alarmed", "latency", title=f"{name}: recall per fault kind", title_justify="left"
        )
        for kind, recall in figures.kinds.items():
            rows = recall.alarmed / recall.rows if recall.rows else None
            table.add_row(kind, f"{recall.found} of {recall.events}", _percent(rows), _seconds(recall.latency_seconds))
        out.print(table)
    if figures.injected:
        title = f"{name}: found of the anomalies injected into one metric, {STRENGTH:g} training standard deviations"
        table = Table("metric", *figures.injected, title=title, title_justify="left")
        for metric in next(iter(figures.injected.values())):
            recalls = [by_metric[metric] for by_metric in figures.injected.values()]
            table.add_row(metric, *(_percent(recall.found / recall.events, 0) for recall in recalls))
        out.print(table)


def _percent(share: float | None, decimals: int = 2) -> str:
    return "-" if share is None else f"{100 * share:.{decimals}f} %"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3g} s"
