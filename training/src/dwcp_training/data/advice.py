"""Warnings about data that can be used but may not be what a good model needs."""

from __future__ import annotations

import numpy as np

from dwcp_training.data.report import counted
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.time_order import steps_seconds
from dwcp_training.profiles import Profile

_DAY = 86_400.0


def warnings_about(
    telemetry: Telemetry, profile: Profile, *, longest_gap_seconds: float, asked_to_exclude: bool
) -> tuple[str, ...]:
    """Sentences about amount, gaps, uneven steps, constant metrics and rows that were left out. Never a failure.

    Args:
        telemetry: the rows that are used, with its report but for the warnings.
        profile: says how much data is recommended.
        longest_gap_seconds: length of the longest gap in the files, 0 without one.
        asked_to_exclude: whether intervals or labels were given.
    """
    report, recommended = telemetry.report, profile.recommended
    found = []
    if len(telemetry) < recommended.samples:
        found.append(f"{len(telemetry):,} samples: fewer than the {recommended.samples:,} recommended for training.")
    span = telemetry.span_seconds
    if span is not None and span < recommended.days * _DAY:
        found.append(
            f"the samples span {_duration(span)}: less than the {recommended.days:g} days recommended for training."
        )
    if report.problem_counts:
        bad = sum(number for reason, number in report.dropped.items() if not reason.startswith("excluded"))
        found.append(
            f"{bad:,} of {report.rows_read:,} rows are bad and were left out: {counted(report.problem_counts)}."
        )
    if report.gap_count:
        gaps = "1 gap" if report.gap_count == 1 else f"{report.gap_count:,} gaps"
        found.append(f"{gaps} in the cadence, the longest {_duration(longest_gap_seconds)}; no window crosses one.")
    if asked_to_exclude and not report.excluded_by_kind:
        found.append("the intervals or labels to exclude matched no row; are their times in UTC?")
    if telemetry.timestamps is not None and telemetry.cadence_seconds is not None:
        within = [telemetry.timestamps[start:stop] for start, stop in telemetry.series]
        short = sum(int((steps_seconds(times) < telemetry.cadence_seconds / 2).sum()) for times in within)
        if short:
            found.append(f"{short:,} steps are shorter than half the cadence of {telemetry.cadence_seconds:g} s.")
    constant = np.flatnonzero((telemetry.values == telemetry.values[0]).all(axis=0))
    if len(constant) and len(telemetry) > 1:
        names = ", ".join(telemetry.schema.names[index] for index in constant)
        found.append(f"{names} never changes: a model learns nothing about it.")
    return tuple(found)


def _duration(seconds: float) -> str:
    """``2.5 days``, ``3 h``, ``4.2 min`` or ``7 s``: the largest unit that is at least one."""
    for unit, length in (("days", _DAY), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
