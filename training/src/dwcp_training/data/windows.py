"""Sliding windows that stay inside segments, and the split of fitted and held-out data by time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.telemetry import Telemetry


def window_starts(segments: Sequence[tuple[int, int]], length: int, stride: int = 1) -> NDArray[np.intp]:
    """First rows, ascending, of all windows of `length` rows that lie within a segment, every `stride` rows of it.

    Raises:
        DataError: `length` or `stride` is less than 1.
    """
    for name, number in (("length", length), ("stride", stride)):
        if number < 1:
            raise DataError(name, f"{number} must be 1 or more.")
    ranges = [np.arange(start, stop - length + 1, stride, dtype=np.intp) for start, stop in segments]
    return np.concatenate(ranges) if ranges else np.zeros(0, dtype=np.intp)


def windows(
    values: NDArray[np.float64], segments: Sequence[tuple[int, int]], length: int, stride: int = 1
) -> NDArray[np.float64]:
    """The windows of `window_starts`, oldest sample first, as float64 ``[n, T, F]`` (a copy).

    ``windows(values, segments, T)[i] == values[start:start + T]`` with ``start = window_starts(segments, T)[i]``.

    Args:
        values: float64 ``[rows, F]``.
        segments: row ranges that a window must not leave.
        length: samples in a window, T.
        stride: rows between the starts of neighbouring windows of a segment.

    Raises:
        DataError: `length` or `stride` is less than 1, or no segment is as long as a window.
    """
    starts = window_starts(segments, length, stride)
    if not len(starts):
        longest = max((stop - start for start, stop in segments), default=0)
        raise DataError(
            "window_size",
            f"no window of {length} samples fits: the longest run without a gap has {longest}.",
            "Use a shorter window or data with fewer gaps.",
            code=DataErrorCode.TOO_SHORT,
        )
    return np.ascontiguousarray(sliding_window_view(values, length, axis=0)[starts].transpose(0, 2, 1))


def time_split(telemetry: Telemetry, held_out: float = 0.2, *, gap: int) -> tuple[Telemetry, Telemetry]:
    """Splits into a part to fit and a part to hold out, which is the end by time (rule C3).

    Runs that follow one another are cut once. Of series side by side, such as devices, each is cut at its own end.

    Args:
        telemetry: ``n`` rows.
        held_out: share of the rows in the held-out part, more than 0 and less than 1.
        gap: rows between the parts that belong to neither: one window, so that no window shares a sample or its
            immediate neighbourhood with both.

    Returns:
        The fitted part, ``n - gap - round(n * held_out)`` rows, and the held-out part, ``round(n * held_out)`` rows.

    Raises:
        DataError: an argument makes no sense, or a part would have no row.
    """
    if not 0 < held_out < 1:
        raise DataError("held_out", f"{held_out} must be more than 0 and less than 1.")
    if gap < 0:
        raise DataError("gap", f"{gap} must be 0 or more.")
    if telemetry.parallel:
        return _split_each(telemetry, held_out, gap)
    kept_back = round(len(telemetry) * held_out)
    fitted = len(telemetry) - kept_back - gap
    if fitted < 1 or kept_back < 1:
        raise DataError(
            "rows",
            f"{len(telemetry)} rows are too few to hold out {held_out:.0%} of them behind a gap of {gap}.",
            "Use more data or a shorter window.",
            code=DataErrorCode.TOO_SHORT,
        )
    return telemetry.rows(0, fitted), telemetry.rows(len(telemetry) - kept_back, len(telemetry))


def _split_each(telemetry: Telemetry, held_out: float, gap: int) -> tuple[Telemetry, Telemetry]:
    """`time_split` of each series; one that is too short to be cut is fitted whole."""
    to_fit, kept_back = [], []
    for start, stop in telemetry.series:
        cut = stop - round((stop - start) * held_out)
        if start < cut - gap and cut < stop:
            to_fit.append((start, cut - gap))
            kept_back.append((cut, stop))
        else:
            to_fit.append((start, stop))
    if not kept_back:
        raise DataError(
            "rows",
            f"none of {len(telemetry.series)} series can hold out {held_out:.0%} of its rows behind a gap of {gap}.",
            "Use more data or a shorter window.",
            code=DataErrorCode.TOO_SHORT,
        )
    return telemetry.take(to_fit), telemetry.take(kept_back)
