"""Scores of rows that come in chunks: what a window needs of the chunk before is carried over.

Windows are made as `windows` makes them, and are scored by the code that serves, whose scores do not depend on what is
scored together (W4): so the scores of a file are the same bits, whatever the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar import detectors
from dwcp_sidecar.limits import MAX_BATCH_BYTES, MAX_BATCH_ITEMS
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, Verdicts
from dwcp_training.data.errors import DataError
from dwcp_training.data.row_judge import Chunk, by_series
from dwcp_training.profiles import Profile

_MOST_BYTES = MAX_BATCH_BYTES // 4  # of the windows that are held at once


@dataclass(frozen=True, slots=True)
class Scored:
    """Verdicts on some rows of a chunk.

    Attributes:
        rows: intp ``[k]``, ascending.
        verdicts: of as many.
        windows: what was scored, float64 ``[k, timesteps, F]``.
    """

    rows: NDArray[np.intp]
    verdicts: Verdicts
    windows: NDArray[np.float64]


class SeriesScorer:
    """Scores chunks with one model. Not for several threads.

    Args:
        model: of an open set.
        features: names of the columns of a chunk's values; those of the model are among them.
        explain: which verdicts are explained.

    Attributes:
        columns: of a chunk's values, one for each feature of the model.
        scored: number of rows that were scored.
        waiting: number of rows that were not, because too few of their series are before them.
        missing: members of an ensemble that did not answer at some time, and why.
    """

    def __init__(self, model: Scorer, features: Sequence[str], explain: Explain = Explain.ALARMS) -> None:
        self.model, self._explain = model, explain
        self.columns = [list(features).index(name) for name in model.feature_names]
        self._before: dict[str, NDArray[np.float64]] = {}
        self.scored = self.waiting = 0
        self.missing: dict[str, str] = {}

    def score(self, chunk: Chunk) -> Iterator[Scored]:
        """The verdicts on a chunk, in parts. Every part must be asked for."""
        timesteps = self.model.timesteps
        if not len(chunk):
            return
        rows, starts, ends = self._windows(chunk.values[:, self.columns], chunk)
        self.scored += len(ends)
        self.waiting += len(chunk) - len(ends)
        at_once = max(1, min(MAX_BATCH_ITEMS, _MOST_BYTES // (8 * timesteps * len(self.columns))))
        for first in range(0, len(ends), at_once):
            part = slice(first, first + at_once)
            windows = rows[starts[part, np.newaxis] + np.arange(timesteps)]
            verdicts = self.model.run(windows, self._explain)  # the rows are checked
            if verdicts.members is not None:
                answers = zip(verdicts.members.detectors, verdicts.members.missing, strict=True)
                self.missing.update({detectors.NAMES[number]: why for number, why in answers if why})
            yield Scored(ends[part], verdicts, windows)

    def pass_over(self, chunk: Chunk) -> None:
        """Remembers what the next windows need of a chunk that was scored before, and scores nothing."""
        if len(chunk):
            self._windows(chunk.values[:, self.columns], chunk)

    def _windows(
        self, values: NDArray[np.float64], chunk: Chunk
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
        """Rows with those carried over in front of each series; the first row in them and the last row in the chunk of
        every window that ends in the chunk, by last row."""
        timesteps = self.model.timesteps
        if timesteps == 1:
            every = np.arange(len(values))
            return values, every, every
        parts, starts, ends, offset = [], [], [], 0
        for name, at in by_series(chunk.series):
            before = self._before.get(name, values[:0])
            joined = np.concatenate([before, values[at]])
            order = np.arange(len(joined))
            fresh = np.concatenate([np.zeros(len(before), bool), chunk.fresh[at]])
            length = order - np.maximum.accumulate(np.where(fresh, order, 0)) + 1
            full = order[(length >= timesteps) & (order >= len(before))]
            parts.append(joined)
            starts.append(offset + full - timesteps + 1)
            ends.append(at[full - len(before)])
            kept = min(timesteps - 1, int(length[-1]))
            self._before[name] = joined[len(joined) - kept :].copy()
            offset += len(joined)
        last = np.concatenate(ends)
        order = np.argsort(last, kind="stable")
        return np.concatenate(parts), np.concatenate(starts)[order], last[order]


def features_of(models: Sequence[Scorer]) -> list[str]:
    """Names of the features that some models need, each once."""
    return list(dict.fromkeys(name for model in models for name in model.feature_names))


def check_listed(names: Sequence[str], profile: Profile) -> None:
    """Raises `DataError` when the profile lists its metrics, and one that the models need is not among them."""
    if profile.reader.features == "listed":
        for name in names:
            if name not in profile.feature_schema.names:
                raise DataError(
                    "profile",
                    f"the models score {', '.join(names)}; {profile.feature_schema.name!r} has no {name!r}.",
                    "Name the profile that they were trained with: --profile.",
                )
