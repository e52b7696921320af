"""Windows never leave a segment, the split keeps time in order (C3), and the fingerprint is what the schema says."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dwcp_training.data import DataError, DataErrorCode, fingerprint, forest_rows, time_split, window_starts, windows

SEGMENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=6).map(
    lambda spans: _placed(spans)
)


def _placed(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Segments from the rows skipped before each and the rows in it."""
    placed, at = [], 0
    for skipped, length in spans:
        placed.append((at + skipped, at + skipped + length))
        at += skipped + length
    return tuple(placed)


@settings(deadline=None)
@given(SEGMENTS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 3))
def test_windows_equal_their_definition(
    segments: tuple[tuple[int, int], ...], length: int, stride: int, features: int
) -> None:
    n = segments[-1][1]
    values = np.arange(n * features, dtype=np.float64).reshape(n, features)
    expected = [
        values[start : start + length]
        for first, stop in segments
        for start in range(first, stop, stride)
        if start + length <= stop
    ]
    assert len(window_starts(segments, length, stride)) == len(expected)
    if not expected:
        with pytest.raises(DataError, match="no window") as caught:
            windows(values, segments, length, stride)
        assert caught.value.code is DataErrorCode.TOO_SHORT
        return
    made = windows(values, segments, length, stride)
    assert made.shape == (len(expected), length, features)
    assert made.flags.c_contiguous
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, np.array(expected))
    owner = np.repeat(np.arange(len(segments)), [stop - first for first, stop in segments])
    rows = np.concatenate([np.arange(first, stop) for first, stop in segments])
    segment_of = dict(zip(rows.tolist(), owner.tolist(), strict=True))
    for window in made:
        assert len({segment_of[int(row)] for row in window[:, 0] // features}) == 1


def test_windows_are_a_copy() -> None:
    values = np.zeros((5, 1))
    windows(values, [(0, 5)], 2)[:] = 1
    assert not values.any()


@pytest.mark.parametrize(("length", "stride", "field"), [(0, 1, "length"), (2, 0, "stride")])
def test_window_arguments(length: int, stride: int, field: str) -> None:
    with pytest.raises(DataError) as caught:
        windows(np.zeros((5, 1)), [(0, 5)], length, stride)
    assert caught.value.field == field


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 20), SEGMENTS)
def test_split_is_by_time_with_a_gap(n: int, share: float, gap: int, segments: tuple[tuple[int, int], ...]) -> None:
    assume(round(n * share) >= 1 and n - round(n * share) - gap >= 1)
    inside = tuple((first, min(stop, n)) for first, stop in segments if first < n)
    whole = replace(forest_rows(n), segments=inside)
    fit, held_out = time_split(whole, share, gap=gap)
    assert len(held_out) == round(n * share)
    assert len(fit) == n - len(held_out) - gap
    np.testing.assert_array_equal(fit.values, whole.values[: len(fit)])
    np.testing.assert_array_equal(held_out.values, whole.values[n - len(held_out) :])
    assert fit.timestamps is not None
    assert held_out.timestamps is not None
    assert held_out.timestamps[0] - fit.timestamps[-1] == np.timedelta64(60 * (gap + 1), "s")
    moved = [(first + n - len(held_out), stop + n - len(held_out)) for first, stop in held_out.segments]
    rows = {row for first, stop in (*fit.segments, *moved) for row in range(first, stop)}
    skipped = set(range(len(fit), n - len(held_out)))
    assert rows == {row for first, stop in inside for row in range(first, stop)} - skipped
    assert all(0 <= first < stop <= len(part) for part in (fit, held_out) for first, stop in part.segments)


@pytest.mark.parametrize(
    ("share", "gap", "field"), [(0.0, 1, "held_out"), (1.0, 1, "held_out"), (0.2, -1, "gap"), (0.2, 80, "rows")]
)
def test_split_arguments(share: float, gap: int, field: str) -> None:
    with pytest.raises(DataError) as caught:
        time_split(forest_rows(100), share, gap=gap)
    assert caught.value.field == field


def test_fingerprint_is_sha256_over_columns_of_little_endian_float64() -> None:
    values = np.array([[1.0, 2.0], [3.0, -0.0]])
    expected = hashlib.sha256(struct.pack("<4d", 1.0, 3.0, 2.0, 0.0)).hexdigest()
    assert fingerprint(values) == expected
    assert fingerprint(np.asfortranarray(values)) == expected
    assert fingerprint(values[:, ::-1]) != expected
