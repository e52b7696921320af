"""What a model was trained on, as a digest."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def fingerprint(values: NDArray[np.float64]) -> str:
    """SHA-256, in lower-case hexadecimal, over the values ``[n, F]`` column by column in schema order.

    Each value counts as its eight bytes of little-endian float64; negative zero is zero (F5). It is the
    `data_fingerprint` of a training record.
    """
    digest = hashlib.sha256()
    for column in np.asarray(values, dtype=np.float64).T:
        digest.update(np.ascontiguousarray(column + 0.0, dtype="<f8").tobytes())
    return digest.hexdigest()
