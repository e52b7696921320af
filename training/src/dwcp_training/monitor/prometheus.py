"""Samples from a Prometheus: one instant query for each feature, all of the same instant, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from dwcp_training.data.pieces import Columns
from dwcp_training.data.raw import RawTable
from dwcp_training.monitor.source import Item, LiveJudge
from dwcp_training.monitor.web import EndpointError
from dwcp_training.profiles import FeatureSchema, Profile, Reader
from dwcp_training.prometheus_api import instant, joined

TIMEOUT = 5.0
"""Seconds that an answer may take."""

_TIME, _SERIES = "(time)", "(series)"  # no feature can be called that


class Prometheus:
    """A Prometheus that is asked at every interval.

    Where every query gives one series, these are one sample. Where one gives more, those with equal labels are, and
    each such set of labels is a series of its own.

    Args:
        address: of the server, without a slash at its end.
        queries: feature to query.
        stop: ends it.
        interval: seconds from one instant to the next: the cadence.
        once: ask for one instant only.
    """

    def __init__(
        self, address: str, queries: Mapping[str, str], stop: threading.Event, *, interval: float, once: bool
    ) -> None:
        self.name = address
        self._queries = dict(queries)
        self._stop, self._interval, self._once = stop, interval, once
        # Judged as a table of such columns would be.
        profile = Profile(
            feature_schema=FeatureSchema(name="prometheus", version=1),
            timestamp_column=_TIME,
            reader=Reader(features="numeric", series_column=_SERIES),
        )
        self._columns = Columns(tuple(queries), (_TIME, _SERIES))
        self._judge = LiveJudge(tuple(queries), profile, {None: interval})
        self._incomplete: set[str] = set()

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""
        return self._judge.rows_read

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        due = time.monotonic()
        while not self._stop.is_set():
            yield from self._instant(time.time())
            if self._once:
                return
            due = max(due + self._interval, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _instant(self, now: float) -> Iterator[Item]:
        """The samples of one instant, seconds since 1970."""
        answers: dict[str, dict[str, float]] = {}
        for feature, query in self._queries.items():
            if self._stop.is_set():
                return
            try:
                answers[feature] = instant(self.name, query, now, TIMEOUT)
            except EndpointError as error:
                if self._once or not error.again:
                    raise
                yield f"no sample: {error} (asked for {feature})"
                return
        samples = joined(answers)
        for name in [*samples]:
            if missing := [feature for feature in self._queries if feature not in samples[name]]:
                del samples[name]
                if name not in self._incomplete:
                    self._incomplete.add(name)
                    yield f"no sample of {name or self.name}: nothing found for {', '.join(missing)}"
            else:
                self._incomplete.discard(name)
        if not samples:
            if not any(answers.values()):
                yield f"no sample: {self.name} has nothing for any query"
            return
        moment = np.full(len(samples), round(now * 1e3), "datetime64[ms]")
        cells = {name: pa.array([sample[name] for sample in samples.values()], pa.float64()) for name in self._queries}
        cells |= {_TIME: pa.array(moment), _SERIES: pa.array(samples, pa.string())}
        lines = np.arange(self.rows_read + 1, self.rows_read + len(samples) + 1)
        yield from self._judge.items(RawTable(self.name, pa.table(cells), lines), self._columns, "the samples")
