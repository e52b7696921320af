"""Runs a training command for a person: reads, reports, shows progress, prints the outcome, returns an exit status."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dwcp_sidecar.errors import ContractError
from dwcp_training.data import DataError, Exclusion, Telemetry, forest_rows, lstm_series, read_table
from dwcp_training.pipeline import Trained, train
from dwcp_training.profiles import ProfileError, load_profile
from dwcp_training.publish import PublishError, check_writable

SYNTHETIC: dict[str, Callable[..., Telemetry]] = {"isolation_forest": forest_rows, "lstm_autoencoder": lstm_series}
"""Detector to its synthetic training data (S1-12)."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass
class Source:
    """Where training data comes from.

    Attributes:
        synthetic: make it instead of reading it.
        data: CSV or Parquet files.
        on_bad_rows: `fail` or `drop`.
        exclude: CSV files with intervals that are not normal.
        grace_seconds: rows this long after such an interval are left out too.
        label_column: a row with a label in this column is left out.
        normal_labels: labels that mean normal.
    """

    synthetic: bool = False
    data: Sequence[Path] = ()
    on_bad_rows: str = "fail"
    exclude: Sequence[Path] = ()
    grace_seconds: float = 0.0
    label_column: str | None = None
    normal_labels: Sequence[str] = field(default_factory=tuple)


class UsageError(Exception):
    """A command line that makes no sense; the message says what to write."""


def run(
    detector: str, source: Source, output: Path, flags: dict[str, Any], profile: str = "dwcp", verbose: bool = False, **options: Any
) -> int:
    """Trains one detector.

    Args:
        detector: its name.
        source: where the data comes from.
        output: folder of the model set.
        flags: hyperparameters by name; None means the profile's default.
        options: further arguments of the detector's fit.

    Returns:
        Exit status: 0 done (also when there is no ONNX graph, S1-9), 1 refused, 2 wrong usage.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(message)s", handlers=[RichHandler(console=err)]
    )
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras calls HDF5 legacy at every save; the format is asked for
    try:
        chosen = load_profile(profile)
        settings = _settings(getattr(chosen.detectors, detector), flags)
        check_writable(output)
        telemetry = _telemetry(detector, source, profile, settings)
        _print_data(telemetry)
        with _progress() as bar:
            task = bar.add_task(detector, total=None)
            trained = train(
                detector,
                telemetry,
                settings,
                output,
                lambda done, total, text: bar.update(task, completed=done, total=total, description=f"{detector}: {text}"),
                **options,
            )
    except UsageError as error:
        err.print(str(error), style="red", soft_wrap=True)
        return 2
    except (DataError, ProfileError, PublishError, ContractError) as error:
        err.print(f"[red]{detector} was not trained.[/red]", str(error), soft_wrap=True)
        return 1
    _print_outcome(trained)
    return 0


def _settings(defaults: BaseModel, flags: dict[str, Any]) -> BaseModel:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return type(defaults).model_validate({**defaults.model_dump(), **given})
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise UsageError(f"--{name.replace('_', '-')} {given.get(name)}: {fault['msg']}") from None


def _telemetry(detector: str, source: Source, profile: str, settings: Any) -> Telemetry:
    if source.synthetic == bool(source.data):
        raise UsageError("name training data: either --data FILE.csv (or .parquet), or --synthetic, not both")
    if source.synthetic:
        return SYNTHETIC[detector](seed=settings.seed)
    return read_table(
        list(source.data),
        load_profile(profile),
        on_bad_rows=source.on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
        exclude=Exclusion(tuple(source.exclude), source.grace_seconds, source.label_column, tuple(source.normal_labels)),
    )


def _print_data(telemetry: Telemetry) -> None:
    report = telemetry.report
    span = f", {telemetry.first_timestamp} to {telemetry.last_timestamp}" if telemetry.first_timestamp else ""
    out.print(f"data: {telemetry.source}, {report.rows_used:,} of {report.rows_read:,} rows{span}")
    for reason, rows in report.dropped.items():
        out.print(f"  left out: {rows:,} rows, {reason.replace('_', ' ')}")
    for problem in report.problems:
        out.print(f"    {problem}")
    if report.gap_count:
        out.print(f"  gaps in the cadence: {report.gap_count:,}; no window crosses one")
        for gap in report.gaps:
            out.print(f"    {gap.file} line {gap.line}: {gap.seconds:g} s after the row before it")
    if report.ignored_columns:
        out.print(f"  columns not used: {', '.join(report.ignored_columns)}")
    for warning in report.warnings:
        out.print(f"  [yellow]warning:[/yellow] {warning}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=not sys.stderr.isatty(),
    )


def _print_outcome(trained: Trained) -> None:
    table = Table(title=trained.detector, show_header=False, title_justify="left")
    for label, text in trained.facts.items():
        table.add_row(label, text)
    out.print(table)
    if trained.warning:
        out.print("[yellow]warning:[/yellow]", trained.warning, soft_wrap=True)
        out.print("The model and its metadata are written, but this detector cannot be served before it is exported.")
