"""Which features of a wide schema the golden vectors probe one by one."""

import numpy as np

MOST = 16
"""Features that are probed one by one. The 7 of `dwcp` all are; of 128 these, spread evenly from first to last."""

NUMBERS = 20_000
"""Most numbers in the items that probe every chosen feature once, which keeps a golden file at a few megabytes."""


def probed(features: int, timesteps: int = 1) -> list[int]:
    """Ascending indices of the features to probe, at least the first and the last.

    Args:
        features: width of a sample.
        timesteps: samples in an item: of long windows fewer features are probed.
    """
    most = max(4, min(MOST, NUMBERS // (features * timesteps)))
    if features <= most:
        return list(range(features))
    return np.unique(np.linspace(0, features - 1, most).round().astype(int)).tolist()
