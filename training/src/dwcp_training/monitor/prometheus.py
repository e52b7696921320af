"""Samples from a Prometheus: one instant query for each feature, all of the same instant, again and again."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dwcp_training.console import UsageError
from dwcp_training.data.pieces import Columns
from dwcp_training.data.raw import RawTable
from dwcp_training.monitor.source import Item, LiveJudge
from dwcp_training.monitor.web import EndpointError, call
from dwcp_training.profiles import FeatureSchema, Profile, Reader
from dwcp_training.profiles.errors import nearest

TIMEOUT = 5.0
"""Seconds that an answer may take."""

_TIME, _SERIES = "(time)", "(series)"  # no feature can be called that


def queries_of(given: Sequence[str], features: Sequence[str]) -> dict[str, str]:
    """Feature to query, in the order of the features.

    Args:
        given: ``feature=promql`` each.

    Raises:
        UsageError: one is not of that form, names no feature or one twice, or a feature has none.
    """
    found: dict[str, str] = {}
    for text in given:
        name, sign, query = (part.strip() for part in text.partition("="))
        if not sign or not query:
            raise UsageError(f"--query {text}: write FEATURE=PROMQL")
        if name not in features:
            raise UsageError(f"--query {text}: the models have no feature {name!r}. {nearest(name, features)}")
        if name in found:
            raise UsageError(f"--query {text}: {name} has a query already")
        found[name] = query
    if missing := [name for name in features if name not in found]:
        raise UsageError(f"--query is missing for {', '.join(missing)}: write --query {missing[0]}=PROMQL")
    return {name: found[name] for name in features}


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
                answers[feature] = self._ask(query, now)
            except EndpointError as error:
                if self._once or not error.again:
                    raise
                yield f"no sample: {error} (asked for {feature})"
                return
        if all(len(found) == 1 for found in answers.values()):
            samples = {"": {feature: next(iter(found.values())) for feature, found in answers.items()}}
        else:
            names = dict.fromkeys(name for found in answers.values() for name in found)
            samples = {name: {f: found[name] for f, found in answers.items() if name in found} for name in names}
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

    def _ask(self, query: str, now: float) -> dict[str, float]:
        """Values by labels."""
        asked = urllib.parse.urlencode({"query": query, "time": f"{now:.3f}", "timeout": f"{TIMEOUT:g}s"})
        content = call("GET", f"{self.name}/api/v1/query?{asked}", None, TIMEOUT)
        try:
            data = json.loads(content)["data"]
            return _values(data["resultType"], data["result"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise EndpointError(
                self.name, f"does not answer {query!r} as Prometheus does: {error!r}", again=False
            ) from None


def _values(kind: str, result: Any) -> dict[str, float]:
    if kind == "scalar":
        return {"": float(result[1])}
    if kind != "vector":
        raise ValueError(f"it gives a {kind}; write a query that gives one number for each series")
    found = {}
    for series in result:
        labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
        text = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        found[text] = float(series["value"][1])
        if text and math.isnan(found[text]) and len(result) > 1:
            del found[text]  # a series that has ended
    return found
