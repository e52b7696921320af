"""`dwcp score`: scores data of any size with the detectors of a published set, chunk by chunk."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.table import Table

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import UsageError, err, guarded, out, print_left_out, print_warning, progress_bar
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.data.row_judge import Chunk
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable
from dwcp_training.score_output import Writer, check_output, in_row_order, opened, schema, table
from dwcp_training.series_scores import SeriesScorer, features_of


class Tally:
    """What a detector found: rows with a level, by level."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {}

    def add(self, levels: pa.ChunkedArray) -> None:
        """Counts more rows."""
        for entry in levels.value_counts().to_pylist():
            self.levels[entry["values"]] = self.levels.get(entry["values"], 0) + entry["counts"]


def chosen(models: ModelSet, names: Sequence[str]) -> list[Scorer]:
    """The named models of a set, each once, or all that can be scored.

    Raises:
        ContractError: UNKNOWN_DETECTOR or DETECTOR_UNAVAILABLE.
    """
    found = [models.model(name) for name in dict.fromkeys(names)] or list(models.models.values())
    if not found:
        models.model(next(iter(models.metadata)))  # says why it cannot be scored
    return found


def run_score(
    models: Path,
    data: Sequence[Path],
    detectors: Sequence[str] = (),
    *,
    profile: str = "dwcp",
    output: str = "-",
    only_alarms: bool = False,
    on_bad_rows: str = "fail",
    cadence: float | None = None,
    chunk_rows: int = 65_536,
) -> int:
    """Scores files or folders for a person.

    Args:
        models: folder of the model set.
        data: what to score.
        detectors: which of the set; empty means all.
        profile: how files become rows.
        output: file that ends in .csv or .parquet, or ``-``.
        only_alarms: write nothing about normal rows.
        on_bad_rows, cadence, chunk_rows: as of `ChunkReader`.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage.
    """

    def command() -> None:
        check_output(output)
        if cadence is not None and not (np.isfinite(cadence) and cadence > 0):
            raise UsageError(f"--cadence {cadence:g}: write a number of seconds above 0")
        if chunk_rows < 1:
            raise UsageError(f"--chunk-rows {chunk_rows}: write 1 or more")
        if output != "-":
            check_writable(Path(output).parent)
        opened_set = ModelSet.open(models)
        scorable = chosen(opened_set, detectors)
        described = load_profile(profile)
        features = features_of(scorable, described)
        reader = ChunkReader(list(data), features, described, on_bad_rows=on_bad_rows, cadence=cadence, rows=chunk_rows)
        scorers = [SeriesScorer(model, features) for model in scorable]
        form = schema(
            times=described.timestamp_column is not None,
            files=len(reader.files) > 1,
            parquet=output != "-" and Path(output).suffix.lower() != ".csv",
        )
        tallies = {scorer.model.name: Tally() for scorer in scorers}
        with opened(output, form) as writer, progress_bar() as bar:
            task = bar.add_task("scoring", total=reader.total_bytes)
            for chunk, done in reader:
                _score(chunk, scorers, writer, form, tallies, only_alarms=only_alarms)
                bar.update(task, completed=done, description=f"scoring {chunk.file}")
        console = err if output == "-" else out
        report = reader.report
        names = ", ".join(reader.files[:3]) + (f" and {len(reader.files) - 3:,} more" if len(reader.files) > 3 else "")
        console.print(f"data: {names}, {report.rows_used:,} of {report.rows_read:,} rows")
        print_left_out(report, console)
        found = Table("detector", "scored", "warning", "critical", "threshold", "no full window yet")
        for scorer in scorers:
            levels = tallies[scorer.model.name].levels
            counts = (scorer.scored, levels.get("WARNING", 0), levels.get("CRITICAL", 0))
            found.add_row(
                scorer.model.name, *(f"{n:,}" for n in counts), f"{scorer.model.threshold:.6g}", f"{scorer.waiting:,}"
            )
        console.print(found)
        for scorer in scorers:
            for name, why in scorer.missing.items():
                print_warning(f"{scorer.model.name} was scored without {name}: {why}", console=console)
        if not detectors:
            for name in opened_set.metadata.keys() - opened_set.models.keys():
                reason = opened_set.metadata[name].graph.unavailable_reason
                print_warning(f"{name} was left out: {reason}", console=console)

    try:
        return guarded(command, "Not everything was scored.")
    except BrokenPipeError:  # who reads standard output has had enough
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _score(
    chunk: Chunk,
    scorers: Sequence[SeriesScorer],
    writer: Writer,
    form: pa.Schema,
    tallies: dict[str, Tally],
    *,
    only_alarms: bool,
) -> None:
    """Writes the scores of a chunk, row by row."""
    parts = []
    for scorer in scorers:
        for scored in scorer.score(chunk):
            part = table(chunk, scorer.model, scorer.columns, scored, form, only_alarms=only_alarms)
            tallies[scorer.model.name].add(part[0]["level"])
            parts.append(part)
    if parts:
        writer.write(in_row_order(parts))
