"""`dwcp score`: scores data of any size with the detectors of a published set, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from rich.table import Table

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import (
    UsageError,
    check_seconds,
    err,
    guarded_pipe,
    out,
    print_left_out,
    print_warning,
    progress_bar,
)
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.data.row_judge import Chunk
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable
from dwcp_training.score_output import Writer, check_output, in_row_order, is_parquet, opened, schema, table
from dwcp_training.series_scores import SeriesScorer, check_listed, features_of


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
        check_seconds("--cadence", cadence)
        if chunk_rows < 1:
            raise UsageError(f"--chunk-rows {chunk_rows}: write 1 or more")
        if output != "-":
            check_writable(Path(output).parent)
        opened_set = ModelSet.open(models)
        scorable = chosen(opened_set, detectors)
        described = load_profile(profile)
        features = features_of(scorable)
        check_listed(features, described)
        reader = ChunkReader(list(data), features, described, on_bad_rows=on_bad_rows, cadence=cadence, rows=chunk_rows)
        scorers = [SeriesScorer(model, features) for model in scorable]
        form = schema(
            times=described.timestamp_column is not None,
            files=len(reader.files) > 1,
            parquet=is_parquet(output),
        )
        tallies: dict[str, Counter[str]] = {scorer.model.name: Counter() for scorer in scorers}
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
            levels = tallies[scorer.model.name]
            counts = (scorer.scored, levels["WARNING"], levels["CRITICAL"])
            found.add_row(
                scorer.model.name, *(f"{n:,}" for n in counts), f"{scorer.model.threshold:.6g}", f"{scorer.waiting:,}"
            )
        console.print(found)
        for scorer in scorers:
            for name, why in scorer.missing.items():
                print_warning(f"{scorer.model.name} was scored without {name}: {why}", console=console)
        if not detectors:
            for name in opened_set.metadata:
                if name not in opened_set.models:
                    print_warning(f"{name} was left out: {opened_set.why_not(name)}", console=console)

    return guarded_pipe(command, "Not everything was scored.")


def _score(
    chunk: Chunk,
    scorers: Sequence[SeriesScorer],
    writer: Writer,
    form: pa.Schema,
    tallies: dict[str, Counter[str]],
    *,
    only_alarms: bool,
) -> None:
    """Writes the scores of a chunk, row by row."""
    parts = []
    for scorer in scorers:
        for scored in scorer.score(chunk):
            part = table(chunk, scorer.model, scorer.columns, scored, form, only_alarms=only_alarms)
            for entry in part[0]["level"].value_counts().to_pylist():
                tallies[scorer.model.name][entry["values"]] += entry["counts"]
            parts.append(part)
    if parts:
        writer.write(in_row_order(parts))
