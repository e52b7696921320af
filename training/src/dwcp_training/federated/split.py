"""One data set as that of many clients, for simulations: cut by time, or skewed, so that clients are unlike."""

from typing import Literal

import numpy as np

from dwcp_training.data.telemetry import Telemetry
from dwcp_training.federated.errors import FederatedError

Split = Literal["time", "metric", "dirichlet"]

BLOCK = 60
"""Rows that follow one another and stay together, so that there are windows."""

LEVELS = 8
"""Groups of blocks with a similar level, for a split by Dirichlet's distribution."""


def parts(
    telemetry: Telemetry, clients: int, split: Split, *, skew: float = 0.5, metric: str | None = None, seed: int = 42
) -> list[Telemetry]:
    """The rows of each client, in the order of time.

    Args:
        telemetry: all rows.
        clients: how many.
        split: `time`: each has a stretch of it. `metric`: blocks of rows are sorted by the level of a metric, the first
            client has the lowest. `dirichlet`: each of 8 levels of that metric is dealt to the clients in shares drawn
            from Dirichlet's distribution, so that a client has much of some and little of others.
        skew: concentration of that distribution; smaller is more unlike.
        metric: None for the one that varies most from block to block.
        seed: of what is drawn.

    Raises:
        FederatedError: there are too few rows, or no such metric.
    """
    starts = np.arange(0, len(telemetry) - BLOCK // 2, BLOCK)
    if clients < 2 or len(starts) < 2 * clients:
        raise FederatedError(
            "--clients", f"{len(telemetry):,} rows are too few for {clients} clients, or it is one.", "Use fewer."
        )
    if split == "time":
        dealt = np.array_split(np.arange(len(starts)), clients)
    else:
        order = np.argsort(_levels(telemetry, starts, metric), kind="stable")
        dealt = np.array_split(order, clients) if split == "metric" else _dirichlet(order, clients, skew, seed)
    return [telemetry.take(_ranges(np.sort(blocks), starts, len(telemetry))) for blocks in dealt]


def _levels(telemetry: Telemetry, starts: np.ndarray, metric: str | None) -> np.ndarray:
    """The mean of the metric in every block."""
    means = np.add.reduceat(telemetry.values, starts, axis=0) / np.diff(starts, append=len(telemetry))[:, np.newaxis]
    if metric is None:
        spread = telemetry.values.std(axis=0)
        apart = np.divide(means.std(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
        return means[:, int(apart.argmax())]
    if metric not in telemetry.schema.names:
        raise FederatedError("--metric", f"{metric!r} is none of {', '.join(telemetry.schema.names[:10])}.")
    return means[:, telemetry.schema.index(metric)]


def _dirichlet(order: np.ndarray, clients: int, skew: float, seed: int) -> list[np.ndarray]:
    if not 0 < skew < 1e6:
        raise FederatedError("--skew", f"{skew:g} must be above 0.", "Use 0.5; smaller is more unlike.")
    rng = np.random.default_rng(seed)
    least = order[rng.permutation(len(order))[: 2 * clients]]  # two blocks each, so that none is empty
    dealt = [[*least[k::clients]] for k in range(clients)]
    for level in np.array_split(order[~np.isin(order, least)], LEVELS):
        shares = np.cumsum(rng.dirichlet(np.full(clients, skew)))
        for k, blocks in enumerate(np.split(rng.permutation(level), np.rint(shares[:-1] * len(level)).astype(int))):
            dealt[k] += blocks.tolist()
    return [np.array(blocks) for blocks in dealt]


def _ranges(blocks: np.ndarray, starts: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Row ranges of ascending blocks, neighbours joined."""
    ends = np.append(starts[1:], rows)
    ranges: list[tuple[int, int]] = []
    for block in blocks.tolist():
        start, stop = int(starts[block]), int(ends[block])
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges
