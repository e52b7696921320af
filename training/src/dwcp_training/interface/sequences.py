"""Rows to overlapping sequences and back."""

from typing import overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.telemetry import Segments

_AT_ONCE = 1024
"""Sequences compared at once when they are put back into rows."""


@overload
def create_sequences(
    X: ArrayLike, y: ArrayLike, sequence_length: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.generic]]: ...


@overload
def create_sequences(X: ArrayLike, y: None = None, sequence_length: int = 100) -> tuple[NDArray[np.float64], None]: ...


def create_sequences(
    X: ArrayLike, y: ArrayLike | None = None, sequence_length: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.generic] | None]:
    """All sequences of consecutive rows, each with the label of its last row.

    Args:
        X: rows of one unbroken series, oldest first, `[n, features]`.
        y: one label per row, or None.
        sequence_length: rows in a sequence.

    Returns:
        `X_seq`, float64 `[n - sequence_length + 1, sequence_length, features]`: a view that cannot be written to, as it
        takes no memory of its own. `y_seq`, `[n - sequence_length + 1]`, or None without labels.

    Raises:
        DataError: the arrays do not fit each other, or there are fewer rows than a sequence has.

    Example:
        >>> X_seq, y_seq = create_sequences([[1.0], [2.0], [3.0]], [0, 0, 1], sequence_length=2)
        >>> X_seq[:, :, 0].tolist(), y_seq.tolist()
        ([[1.0, 2.0], [2.0, 3.0]], [0, 1])
    """
    rows = np.asarray(X, np.float64)
    if rows.ndim != 2:
        raise DataError("X", f"an array of shape {list(rows.shape)} is no table of rows.", "Give [n, features].")
    if sequence_length < 1:
        raise DataError("sequence_length", f"{sequence_length} must be 1 or more.")
    if len(rows) < sequence_length:
        raise DataError(
            "X",
            f"{len(rows)} rows hold no sequence of {sequence_length}.",
            "Use more rows or a smaller sequence_length.",
            code=DataErrorCode.TOO_SHORT,
        )
    sequences = sliding_window_view(rows, sequence_length, axis=0).transpose(0, 2, 1)
    if y is None:
        return sequences, None
    labels = np.asarray(y)
    if labels.shape != (len(rows),):
        raise DataError(
            "y", f"labels of shape {list(labels.shape)} for {len(rows)} rows.", "Give one label for each row of X."
        )
    return sequences, labels[sequence_length - 1 :]


def as_series(sequences: NDArray[np.float64]) -> tuple[NDArray[np.float64], Segments]:
    """Rows and unbroken stretches behind sequences `[n, sequence_length, features]`; rows `[n, features]` are one.

    Sequences that overlap their neighbour in all but one row, as those of `create_sequences` do, become one stretch
    again. So data can be held out that shares no row with what is fitted (C3).
    """
    if sequences.ndim == 2:
        return sequences, ((0, len(sequences)),)
    continues = np.zeros(len(sequences), bool)
    for start in range(1, len(sequences), _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, len(sequences)))
        before = sequences[part.start - 1 : part.stop - 1]
        continues[part] = (before[:, 1:] == sequences[part, :-1]).all(axis=(1, 2))
    starts = np.flatnonzero(~continues)
    parts, segments, first = [], [], 0
    for start, stop in zip(starts, [*starts[1:], len(sequences)], strict=True):
        stretch = np.concatenate([sequences[start], sequences[start + 1 : stop, -1]])
        parts.append(stretch)
        segments.append((first, first + len(stretch)))
        first += len(stretch)
    return np.concatenate(parts), tuple(segments)


def labels_of_series(labels: NDArray[np.bool_], segments: Segments, length: int) -> NDArray[np.bool_]:
    """Labels of the rows that `as_series` gives, bool `[rows]`, from those of the sequences, which are of last rows.

    The rows before the last of a stretch's first sequence have no label of their own, and get that of the sequence.
    """
    parts, first = [], 0
    for start, stop in segments:
        count = stop - start - length + 1
        own = labels[first : first + count]
        parts.append(np.concatenate([np.repeat(own[:1], length - 1), own]))
        first += count
    return np.concatenate(parts)
