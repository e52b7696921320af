"""Runs `dwcp explain` for a person."""

from __future__ import annotations

import json as json_lines
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.table import Table

from dwcp_sidecar import detectors as known
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.console import RefusedError, UsageError, check_seconds, err, guarded_pipe, out, print_left_out
from dwcp_training.data.cells import parse_times
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.data.row_judge import Chunk
from dwcp_training.explain.choice import Choice, Picked
from dwcp_training.explain.explanation import Explanation, explain
from dwcp_training.explain.shapley import kernel_explainer, shap_values
from dwcp_training.monitor.lines import StandardInput
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.score import chosen
from dwcp_training.series_scores import SeriesScorer, check_listed, features_of

WORST = 3


def run_explain(
    models: Path,
    data: Sequence[Path] = (),
    detectors: Sequence[str] = (),
    *,
    standard_input: str | None = None,
    rows: Sequence[int] = (),
    times: Sequence[str] = (),
    alarms: bool = False,
    worst: int | None = None,
    top: int | None = None,
    as_json: bool = False,
    shap: bool = False,
    profile: str = "dwcp",
    on_bad_rows: str = "fail",
    cadence: float | None = None,
) -> int:
    """Explains verdicts on rows, or on the windows that end in them.

    Args:
        models: folder of the model set.
        data: files or folders; none for standard input.
        detectors: which of the set; empty means all.
        standard_input: `-` for CSV or JSON lines from there.
        rows, times: which rows: lines of a CSV file or numbers of rows; moments.
        alarms: the alarms, in the order of the data.
        worst: how many rows of each detector, those with the highest scores; the default, unless rows are named.
        top: how many metrics are shown; None for all.
        as_json: print an object a line.
        shap: compare with SHAP values.
        profile, on_bad_rows, cadence: as of `dwcp score`.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage.
    """

    def command() -> None:
        choice = _choice(rows, times, worst, alarms=alarms)
        _check(data, standard_input, top, cadence)
        if shap:
            kernel_explainer()
        opened = ModelSet.open(models)
        scorable = chosen(opened, detectors)
        described = load_profile(profile)
        features = features_of(scorable)
        check_listed(features, described)
        scorers = [SeriesScorer(model, features, Explain.NEVER) for model in scorable]
        picked = [Picked(choice) for _ in scorable]
        before = 0
        chunks = (
            _files(data, features, described, on_bad_rows, cadence)
            if data
            else _standard_input(features, described, cadence or _trained_cadence(scorable))
        )
        for chunk in chunks:
            for scorer, wanted in zip(scorers, picked, strict=True):
                for scored in scorer.score(chunk):
                    wanted.add(chunk, scored, before)
            before += len(chunk)
        if not before:
            raise RefusedError("standard input had no row that can be scored")
        for model, wanted in zip(scorable, picked, strict=True):
            found = [explain(model, item, shap_values if shap else None) for item in wanted]
            if choice.named and not found:
                raise RefusedError(
                    f"{model.name} has no verdict on such a row: it is not in the data, or its window of "
                    f"{model.timesteps} samples is not full."
                )
            for explanation in found:
                _print(explanation, top, as_json=as_json)
            _print_rest(model, wanted, len(found), choice)

    return guarded_pipe(command, "Nothing was explained.")


def _choice(rows: Sequence[int], times: Sequence[str], worst: int | None, *, alarms: bool) -> Choice:
    if (rows or times) and (alarms or worst is not None):
        raise UsageError("--row and --at name rows, --worst and --alarms look for them: give one")
    if worst is not None and worst < 1:
        raise UsageError(f"--worst {worst}: write 1 or more")
    for row in rows:
        if row < 1:
            raise UsageError(f"--row {row}: rows are counted from 1; the header of a CSV file is line 1")
    moments = parse_times("--at", "time", pa.chunked_array([pa.array(times, pa.string())])).values
    for text, moment in zip(times, moments, strict=True):
        if np.isnat(moment):
            raise UsageError(f"--at {text}: write a time as 2024-01-01T00:00:00Z")
    most = worst if worst is not None else 20 if alarms else WORST
    return Choice(most, alarms, tuple(rows), tuple(moments))


def _check(data: Sequence[Path], standard_input: str | None, top: int | None, cadence: float | None) -> None:
    """Raises UsageError for flags that contradict each other."""
    if standard_input not in (None, "-"):
        raise UsageError(f"{standard_input}: for rows of a file write --data {standard_input}; - is standard input")
    if (standard_input is None) == (not data):
        raise UsageError("name one source of rows: --data FILE, or - for standard input")
    if top is not None and top < 1:
        raise UsageError(f"--top {top}: write 1 or more")
    check_seconds("--cadence", cadence)


def _trained_cadence(models: Sequence[Scorer]) -> float | None:
    return next((model.metadata.cadence_seconds for model in models if model.metadata.cadence_seconds), None)


def _files(
    data: Sequence[Path], features: Sequence[str], profile: Profile, on_bad_rows: str, cadence: float | None
) -> Iterator[Chunk]:
    reader = ChunkReader(list(data), features, profile, on_bad_rows=on_bad_rows, cadence=cadence)
    for chunk, _ in reader:
        yield chunk
    print_left_out(reader.report, err)


def _standard_input(features: Sequence[str], profile: Profile, cadence: float | None) -> Iterator[Chunk]:
    source = StandardInput(features, profile, {None: cadence} if cadence else {}, threading.Event())
    for item in source.items():
        if isinstance(item, Chunk):
            yield item
        else:
            err.print(item)


def _print(found: Explanation, top: int | None, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_lines.dumps(found.as_json(), ensure_ascii=False, allow_nan=False) + "\n")
        return
    of = f" of {found.series}" if found.series else ""
    counted = "row" if found.file.endswith((".parquet", ".pq", ".npy")) else "line"
    place = f"{found.file} {counted} {found.row}{of}"
    where = f"{found.time}, {place}" if found.time else place
    side = "over" if found.is_anomaly else "up to"
    out.print(
        f"{found.level} {found.detector} {found.score:.6g} {side} {found.threshold:.6g}, p {found.p_value:.4g}: {where}"
    )
    with_shap = any(part.shap is not None for part in found.parts)
    windowed = any(part.low != part.high for part in found.parts)
    more = [*(["in the window"] if windowed else []), *(["SHAP"] if with_shap else [])]
    table = Table("", "metric", "value", "expected", "unit", "contribution", *more)
    for rank, part in enumerate(found.parts[:top], 1):
        table.add_row(
            str(rank), part.metric, f"{part.value:.6g}", "-" if part.expected is None else f"{part.expected:.6g}",
            part.unit, f"{100 * part.contribution:.1f} %",
            *([f"{part.low:.4g} to {part.high:.4g}"] if windowed else []),
            *([f"{part.shap:+.4g}"] if part.shap is not None else []),
        )  # fmt: skip
    out.print(table)
    for member in found.members:
        said = member.missing or f"{member.score:.6g}, {member.normalized:.3f} on the common scale"
        out.print(f"  {known.NAMES[member.detector]}, weight {member.weight:.3g}: {said}")
    if with_shap:
        strongest = max(found.parts, key=lambda part: part.shap or 0.0)
        same = "the same" if strongest.metric == found.parts[0].metric else "another"
        out.print(f"  SHAP names {same} metric first: {strongest.metric}")


def _print_rest(model: Scorer, wanted: Picked, shown: int, choice: Choice) -> None:
    """Says what is not shown, and that nothing is."""
    if choice.alarms and wanted.left_out:
        total = shown + wanted.left_out
        err.print(f"{model.name}: the worst {shown:,} of {total:,} alarms; --worst {total} shows them all")
    if not shown:
        nothing = "no alarm" if choice.alarms else f"no full window of {model.timesteps} samples"
        err.print(f"{model.name}: {nothing}")
