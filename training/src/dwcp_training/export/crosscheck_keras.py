"""Published scores of a network's graph against Keras in float64 (P2)."""

import numpy as np

from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.golden.make import boundary_distance

P2_GAP = 1e-12
"""Only scores nearer to the midpoint of two float32 numbers may be published as neighbours (P2)."""


def compare_with_keras(scores: np.ndarray, unrounded: np.ndarray) -> str:
    """Compares published scores, float32 `[n]`, with those of Keras before they are rounded, float64 `[n]`.

    Returns:
        How many are equal, in words.

    Raises:
        CrossCheckError: when one differs in a bit outside P2's gap.
    """
    unequal = scores.view(np.uint32) != unrounded.astype(np.float32).view(np.uint32)
    differing = int((unequal & (boundary_distance(unrounded) > P2_GAP)).sum())
    if differing:
        raise CrossCheckError(f"{differing} of {len(scores)} published scores differ from Keras in float64")
    return f"{len(scores) - int(unequal.sum()):,} of {len(scores):,} published scores equal in every bit"
