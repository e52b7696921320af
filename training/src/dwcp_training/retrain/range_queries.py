"""The last days of samples from a Prometheus, by range queries: chunk by chunk, and no finished chunk twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dwcp_training.console import RefusedError
from dwcp_training.data.writers import whole_file
from dwcp_training.monitor.web import EndpointError
from dwcp_training.prometheus_api import MOST_POINTS, Answer, joined, server_time, time_range

TIME, SERIES = "timestamp", "(series)"  # no feature can be called the second
TIMEOUT = 60.0
"""Seconds that an answer may take."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt at a chunk."""
LOOKBACK = 300.0
"""Seconds for which Prometheus repeats the last value of a series that is no longer written, unless told otherwise."""
SETTLED = 600.0
"""Seconds after which nothing is written into a chunk any more."""
DAY_MS = 86_400_000

Say = Callable[[int, int, str], None]


@dataclass
class Collected:
    """What was found.

    Attributes:
        file: Parquet file with the columns `TIME`, `SERIES` and the features, whole samples alone.
        notes: for people: gaps, values left out, warnings of the server.
    """

    file: Path
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RangeQueries:
    """Which samples to collect.

    Attributes:
        address: of the server, without a slash at its end.
        queries: feature to query.
        step_ms: milliseconds from one sample to the next.
        days: how far back.
        work: folder for finished chunks.
    """

    address: str
    queries: Mapping[str, str]
    step_ms: int
    days: float
    work: Path

    @property
    def chunk_steps(self) -> int:
        """Samples in a chunk: a day of them, or as many as Prometheus gives at once."""
        return max(1, min(MOST_POINTS - 1, DAY_MS // self.step_ms))

    @property
    def folder(self) -> Path:
        """Where the chunks of these very questions are."""
        asked = json.dumps([self.address, dict(self.queries), self.step_ms])
        return self.work / "prometheus" / hashlib.sha256(asked.encode()).hexdigest()[:16]

    def collect(self, say: Say) -> Collected:
        """Asks for what is not there yet.

        Chunks begin at multiples of their length since 1970, so that a later run asks for the same ones.

        Raises:
            EndpointError: the server cannot be used. Finished chunks stay, and are not asked for again.
            RefusedError: there is not one whole sample.
        """
        now_ms = int(self._patient(lambda: server_time(self.address, TIMEOUT)) * 1e3)
        start_ms = now_ms - int(self.days * DAY_MS)
        length = self.chunk_steps * self.step_ms
        numbers = range(start_ms // length, now_ms // length + 1)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clear(numbers.start * length)
        chunks, warnings = [], []
        for done, number in enumerate(numbers):
            begin = number * length
            say(done, len(numbers), f"asking for {np.datetime64(begin, 'ms')}")
            kept = self.folder / f"{begin}.parquet"
            if kept.is_file():
                chunks.append(pq.read_table(kept))
                continue
            table, said = self._ask(begin, min(begin + length, now_ms + 1))
            warnings += said
            chunks.append(table)
            settled = begin + length + SETTLED * 1e3 <= now_ms
            if settled and len(table) and not said:  # what is empty or partial may be there another time
                with whole_file(kept) as file:
                    pq.write_table(table, file)
        collected = self._whole_samples(pa.concat_tables(chunks), start_ms, now_ms)
        collected.notes[:0] = [f"Prometheus warns: {text}" for text in dict.fromkeys(warnings)]
        return collected

    def _ask(self, begin: int, end: int) -> tuple[pa.Table, list[str]]:
        """Samples at multiples of the step in ``[begin, end)``, milliseconds; NaN where a feature is not there."""
        count = -(-(end - begin) // self.step_ms)
        answers, warnings = {}, []
        for feature, query in self.queries.items():
            answer = self._patient(partial(time_range, self.address, query, begin, self.step_ms, count, TIMEOUT))
            answers[feature] = answer.values
            warnings += answer.warnings
        times, names = begin + self.step_ms * np.arange(count), []
        columns: dict[str, list[NDArray[np.float64]]] = {feature: [] for feature in self.queries}
        for name, found in joined(answers).items():
            names += [name] * count
            for feature in self.queries:
                columns[feature].append(found.get(feature, np.full(count, np.nan)))
        series = len(names) // count
        cells = {
            TIME: pa.array(np.tile(times, series), pa.int64()),
            SERIES: pa.array(names, pa.string()),
            **{f: pa.array(np.concatenate([*parts, np.zeros(0)]), pa.float64()) for f, parts in columns.items()},
        }
        table = pa.table(cells)
        found_any = np.zeros(len(table), bool)
        for feature in self.queries:
            found_any |= ~np.isnan(table[feature].to_numpy())
        return table.filter(pa.array(found_any)), warnings

    def _patient(self, ask: Callable[[], Answer]) -> Answer:
        """The answer, asked for again after each of `WAITS` where that may help."""
        waits = list(WAITS)
        while True:
            try:
                return ask()
            except EndpointError as error:
                if not error.again or not waits:
                    remedy = "What was collected is kept: run it again." if error.again else ""
                    raise EndpointError(
                        error.address, f"{error.message}. {remedy}".rstrip(), again=error.again
                    ) from None
                time.sleep(waits.pop(0))

    def _clear(self, before_ms: int) -> None:
        """Removes chunks that are too old to be needed, and what a run that was killed has left."""
        for path in self.folder.iterdir():
            if path.name.startswith(".") or (path.stem.isdigit() and int(path.stem) < before_ms):
                path.unlink(missing_ok=True)

    def _whole_samples(self, table: pa.Table, start_ms: int, now_ms: int) -> Collected:
        """Leaves out what repeats itself before a gap, and samples that lack a feature; the rest becomes a file."""
        features = list(self.queries)
        times, names = table[TIME].to_numpy(), np.asarray(table[SERIES].to_pylist(), object)
        values = (
            np.column_stack([table[feature].to_numpy() for feature in features]) if len(table) else np.zeros((0, 1))
        )
        values = np.where(np.isinf(values), np.nan, values)  # a division by zero in a query
        stale, order = 0, np.lexsort((times, names.astype(str)))
        times, names, values = times[order], names[order], values[order]
        edges = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1], [True]])) if len(names) else [0]
        for first, last in pairwise(edges):
            for j in range(len(features)):
                stale += drop_stale(times[first:last], values[first:last, j], self.step_ms, now_ms)
        inside = times > start_ms
        whole = ~np.isnan(values).any(axis=1) if len(values) else np.zeros(0, bool)
        kept = inside & whole
        missing = (
            {f: int((inside & np.isnan(values[:, j])).sum()) for j, f in enumerate(features)} if len(values) else {}
        )
        lacking = ", ".join(f"{name} {count:,}" for name, count in missing.items() if count)
        if not kept.any():
            raise RefusedError(
                f"{self.address} has no whole sample of the last {self.days:g} days"
                + (f"; missing were: {lacking}." if lacking else ": it answers every query with nothing.")
                + " Try the queries in its own page."
            )
        notes = []
        if count := int((inside & ~whole).sum()):
            notes.append(
                f"{count:,} of {int(inside.sum()):,} instants left out, where a metric has no value: {lacking}"
            )
        if stale:
            notes.append(f"{stale:,} values taken for missing: Prometheus repeated the one before them until a gap")
        cells = {
            TIME: pa.array(times[kept].astype("datetime64[ms]")),
            SERIES: pa.array(names[kept].tolist(), pa.string()),
            **{feature: pa.array(values[kept, j]) for j, feature in enumerate(features)},
        }
        path = self.work / "prometheus.parquet"
        with whole_file(path) as file:
            pq.write_table(pa.table(cells), file)
        return Collected(path, notes)


def drop_stale(times: NDArray[np.int64], values: NDArray[np.float64], step_ms: int, now_ms: int) -> int:
    """Makes NaN of the values that repeat the one before until a gap, for at most `LOOKBACK`; gives their number.

    A series that is no longer written, without being marked as ended, keeps its last value so long. What does not end
    in a gap may be a metric that does not change.

    Args:
        times: milliseconds, ascending.
        values: float64 ``[n]``, NaN where there is none; changed.
        step_ms: milliseconds between neighbours.
        now_ms: a series whose last value is older than the lookback has ended.
    """
    there = ~np.isnan(values)
    followed = np.zeros(len(values), bool)
    followed[:-1] = there[1:] & (np.diff(times) <= step_ms)
    followed[-1:] = now_ms - times[-1:] <= LOOKBACK * 1e3
    dropped = 0
    for end in np.flatnonzero(there & ~followed):
        last = end
        while (
            last > 0 and there[last - 1] and values[last - 1] == values[last]
            and times[last] - times[last - 1] <= step_ms and times[end] - times[last - 1] <= LOOKBACK * 1e3
        ):  # fmt: skip
            last -= 1
        values[last + 1 : end + 1] = np.nan
        dropped += int(end - last)
    return dropped
