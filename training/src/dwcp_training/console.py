"""What commands share when they talk to a person: consoles, progress, what was read, refusals with an exit status."""

import logging
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.signatures import KeyFileError
from dwcp_training.data import DataError, Report, Telemetry
from dwcp_training.detectors.libraries import MissingLibraryError
from dwcp_training.profiles import ProfileError
from dwcp_training.publish import PublishError

# Without markup: messages quote cells and file names, which may hold anything in brackets.
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class RefusedError(Exception):
    """Why a command could not do what it was asked to, where no other error says it."""


class UsageError(Exception):
    """A command line that makes no sense; the message names the flag and says what to write."""


def guarded(command: Callable[[], None], refusal: str, verbose: bool = False) -> int:
    """Runs a command.

    Args:
        command: does the work.
        refusal: what a refusal means, in words.
        verbose: log more.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(message)s", handlers=[RichHandler(console=err)]
    )
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras calls HDF5 legacy at every save; the format is asked for
    try:
        command()
    except UsageError as error:
        err.print(str(error), style="red")
        return 2
    except (
        DataError, ProfileError, PublishError, ContractError, MissingLibraryError, RefusedError, KeyFileError,
    ) as error:  # fmt: skip
        err.print(refusal, style="red", end=" ")
        err.print(str(error))
        return 1
    return 0


def guarded_pipe(command: Callable[[], None], refusal: str) -> int:
    """`guarded`, for a command whose standard output others read: it is done when they have had enough."""
    try:
        return guarded(command, refusal)
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def check_seconds(flag: str, seconds: float | None) -> None:
    """Raises `UsageError` for seconds that are given and make no sense."""
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{flag} {seconds:g}: write a number of seconds above 0")


def print_warning(text: str, indent: str = "", console: Console = out) -> None:
    """Prints a warning, on standard output unless told otherwise."""
    console.print(f"{indent}warning:", style="yellow", end=" ")
    console.print(text)


def print_data(telemetry: Telemetry, console: Console = out) -> None:
    """Prints what was read, left out and noticed, on standard output unless told otherwise."""
    report = telemetry.report
    span = f", {telemetry.first_timestamp} to {telemetry.last_timestamp}" if telemetry.first_timestamp else ""
    console.print(f"data: {telemetry.source}, {report.rows_used:,} of {report.rows_read:,} rows{span}")
    if telemetry.labels is not None:
        console.print(f"  labels: {int(telemetry.labels.sum()):,} of {len(telemetry):,} rows are anomalies")
    print_left_out(report, console)


def print_left_out(report: Report, console: Console = out) -> None:
    """Prints what of the data was left out, and what was noticed."""
    for reason, rows in report.dropped.items():
        console.print(f"  left out: {rows:,} rows, {reason.replace('_', ' ')}")
    for kind, rows in report.excluded_by_kind.items():
        console.print(f"    {rows:,} of kind {kind}")
    for problem in report.problems:
        console.print(f"    {problem}")
    if report.gap_count:
        console.print(f"  gaps in the cadence: {report.gap_count:,}; no window crosses one")
        for gap in report.gaps:
            console.print(f"    {gap.file} line {gap.line}: {gap.seconds:g} s after the row before it")
    if report.ignored_columns:
        console.print(f"  columns not used: {', '.join(report.ignored_columns)}")
    for warning in report.warnings:
        print_warning(warning, "  ", console)


def progress_bar() -> Progress:
    """A progress bar on standard error; nothing where that is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not sys.stderr.isatty(),
    )
