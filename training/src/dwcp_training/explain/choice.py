"""Which rows are explained: the worst, all alarms, those of a line or of a time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.row_judge import Chunk
from dwcp_training.series_scores import Scored


@dataclass(frozen=True)
class Choice:
    """What was asked for; without any, the worst.

    Attributes:
        worst: how many with the highest scores; at most so many of the alarms.
        alarms: alarms alone, in the order of the data.
        rows: lines of a CSV file, numbers of rows of another.
        times: moments, datetime64[ns].
    """

    worst: int
    alarms: bool = False
    rows: Sequence[int] = ()
    times: Sequence[np.datetime64] = ()

    @property
    def named(self) -> bool:
        """Whether rows are asked for one by one."""
        return bool(self.rows or self.times)

    def among(self, chunk: Chunk, scored: Scored) -> NDArray[np.intp]:
        """Which of the verdicts on rows of a chunk come into question, as indices."""
        if not self.named:
            if self.alarms:
                return np.flatnonzero(scored.verdicts.is_anomaly)
            return np.argsort(-scored.verdicts.scores, kind="stable")[: self.worst]
        wanted = np.isin(chunk.rows[scored.rows], np.array(self.rows, np.int64))
        if chunk.times is not None and self.times:
            wanted |= np.isin(chunk.times[scored.rows], np.array(self.times, "M8[ns]"))
        return np.flatnonzero(wanted)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A row to explain.

    Attributes:
        place: its number among all rows, in the order of the data.
        time: of the row; None without.
        file, row, series: as in `Chunk`.
        window: raw values that its verdict depends on, float64 ``[timesteps, F]``.
    """

    place: int
    time: np.datetime64 | None
    file: str
    row: int
    series: str
    window: NDArray[np.float64]


@dataclass
class Picked:
    """The chosen rows of one detector, as chunks come: never more than are wanted."""

    choice: Choice
    _heap: list[tuple[float, int, Chosen]] = field(default_factory=list)
    left_out: int = 0

    def add(self, chunk: Chunk, scored: Scored, before: int) -> None:
        """Takes the verdicts on rows of a chunk that has `before` rows before it."""
        for index in self.choice.among(chunk, scored).tolist():
            row = int(scored.rows[index])
            time = None if chunk.times is None else chunk.times[row]
            chosen = Chosen(
                before + row, time, chunk.file, int(chunk.rows[row]), str(chunk.series[row]),
                scored.windows[index].copy(),
            )  # fmt: skip
            # The first of equal scores stays: places count down in the heap.
            entry = (float(scored.verdicts.scores[index]), -chosen.place, chosen)
            if self.choice.named or len(self._heap) < self.choice.worst:
                heapq.heappush(self._heap, entry)
            else:
                self.left_out += 1
                heapq.heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[Chosen]:
        """The worst first, or in the order of the data where alarms or rows were asked for."""
        if self.choice.named or self.choice.alarms:
            return iter(sorted((chosen for _, _, chosen in self._heap), key=lambda chosen: chosen.place))
        return (chosen for _, _, chosen in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))
