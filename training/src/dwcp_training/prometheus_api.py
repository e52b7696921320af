"""What Prometheus is asked over HTTP, and how the answers to one query for each feature become samples."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dwcp_training.console import UsageError
from dwcp_training.monitor.web import MOST_BYTES, EndpointError, call
from dwcp_training.profiles.errors import nearest

MOST_POINTS = 11_000
"""Steps of a range that Prometheus answers at most, for each series."""

_RANGE_BYTES = 1 << 26

Answer = TypeVar("Answer")


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


def joined(answers: Mapping[str, Mapping[str, Answer]]) -> dict[str, dict[str, Answer]]:
    """Series to feature to what was answered, of feature to labels to that.

    Where every query gives one series, these are one, whatever their labels. Where one gives more, those with equal
    labels are.
    """
    if all(len(found) == 1 for found in answers.values()):
        return {"": {feature: next(iter(found.values())) for feature, found in answers.items()}}
    names = dict.fromkeys(name for found in answers.values() for name in found)
    return {name: {f: found[name] for f, found in answers.items() if name in found} for name in names}


def instant(address: str, query: str, now: float, timeout: float) -> dict[str, float]:
    """Values by labels at an instant, seconds since 1970.

    Raises:
        EndpointError: it cannot be reached, or does not answer as Prometheus does.
    """
    asked = {"query": query, "time": f"{now:.3f}", "timeout": f"{timeout:g}s"}
    return _answered(address, "query", asked, query, timeout, MOST_BYTES, lambda answer: _values(answer["data"]))


def server_time(address: str, timeout: float) -> float:
    """Seconds since 1970 by the clock of the server: that of this machine may be another. Raises as `instant` does."""
    asked = {"query": "time()"}
    return _answered(address, "query", asked, "time()", timeout, MOST_BYTES, lambda a: float(a["data"]["result"][1]))


@dataclass(frozen=True)
class Range:
    """The values of a query at ``n`` instants.

    Attributes:
        values: labels to float64 ``[n]``, NaN where there is no value.
        warnings: what the server says is wrong with the answer, for example that a part of it is missing.
    """

    values: dict[str, NDArray[np.float64]]
    warnings: tuple[str, ...] = ()


def time_range(address: str, query: str, start_ms: int, step_ms: int, count: int, timeout: float) -> Range:
    """Values at `count` instants, at most `MOST_POINTS`, from `start_ms` on, milliseconds since 1970.

    Raises:
        EndpointError: as of `instant`.
    """

    def read(answer: dict[str, Any]) -> Range:
        data, found = answer["data"], {}
        if data["resultType"] != "matrix":
            raise ValueError(f"it gives a {data['resultType']}")
        for series in data["result"]:
            values = np.full(count, np.nan)
            points = np.array([[float(time), float(text)] for time, text in series["values"]]).reshape(-1, 2)
            at = np.rint((points[:, 0] * 1e3 - start_ms) / step_ms).astype(np.intp)
            inside = (at >= 0) & (at < count)
            values[at[inside]] = points[inside, 1]
            found[labels_text(series["metric"])] = values
        return Range(found, tuple(str(warning) for warning in answer.get("warnings", ())))

    asked = {
        "query": query,
        "start": f"{start_ms / 1e3:.3f}",
        "end": f"{(start_ms + (count - 1) * step_ms) / 1e3:.3f}",
        "step": f"{step_ms / 1e3:.3f}",
        "timeout": f"{timeout:g}s",
    }
    return _answered(address, "query_range", asked, query, timeout, _RANGE_BYTES, read)


def labels_text(metric: Mapping[str, str]) -> str:
    """The labels of a series but its name, as one text."""
    return ",".join(f"{name}={value}" for name, value in sorted(metric.items()) if name != "__name__")


def _answered(
    address: str,
    path: str,
    asked: Mapping[str, str],
    query: str,
    timeout: float,
    most_bytes: int,
    read: Callable[[dict[str, Any]], Answer],
) -> Answer:
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
    content = call("GET", url, None, timeout, most_bytes)
    try:
        return read(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EndpointError(address, f"does not answer {query!r} as Prometheus does: {error!r}", again=False) from None


def _values(data: dict[str, Any]) -> dict[str, float]:
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return {"": float(result[1])}
    if kind != "vector":
        raise ValueError(f"it gives a {kind}; write a query that gives one number for each series")
    found = {}
    for series in result:
        text = labels_text(series["metric"])
        found[text] = float(series["value"][1])
        if text and math.isnan(found[text]) and len(result) > 1:
            del found[text]  # a series that has ended
    return found
