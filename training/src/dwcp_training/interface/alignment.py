"""Rows and sequences given together: do they speak of the same moments?"""

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError


def check_aligned(rows: NDArray[np.float64], sequences: NDArray[np.float64]) -> None:
    """Demands that every sequence is there in the rows, in the order of time, or that row `i` is the last of sequence
    `i`. So the result of a sequence is about the moment of its last row, whichever member it comes from (EN6).

    Args:
        rows: `[n, features]`, oldest first.
        sequences: `[m, sequence_length, features]`, oldest first.

    Raises:
        DataError: a sequence is not in the rows behind where the one before it ended.
    """
    if len(rows) == len(sequences) and np.array_equal(rows, sequences[:, -1]):
        return
    length = sequences.shape[1]
    stop = length
    for i, sequence in enumerate(sequences):
        while stop <= len(rows) and not np.array_equal(rows[stop - length : stop], sequence):
            stop += 1
        if stop > len(rows):
            raise DataError(
                "X_sequences",
                f"sequence {i} of {len(sequences):,} is not in the {len(rows):,} rows of X, behind the one before it: "
                "the scores of rows and sequences would be of different moments.",
                f"Make them with create_sequences(X, sequence_length={length}) from the same X, or give X alone.",
            )
        stop += 1
