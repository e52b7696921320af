"""ScoreStream: keeps the window of every series, so that a client sends each sample once (rules ST1 to ST8)."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np

from dwcp.anomaly.v1 import errors_pb2, scoring_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.limits import MAX_SERIES_BYTES, MAX_STREAM_SAMPLES
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.server.calls import StatusError
from dwcp_sidecar.server.live import Live, Served
from dwcp_sidecar.server.messages import check_id, count_batch, count_one, explain_of, to_message
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.settings import Limits
from dwcp_sidecar.verdicts import Explain, Verdict

_OPEN_GROUPS = 64
"""Model sets that one request of a stream holds at a time; so a request of many series holds no more memory (FL5)."""


class Window:
    """The last samples of one series.

    Every row is written twice, `length` apart, so that the window is one piece of memory without moving rows.

    Args:
        length: samples that are kept.
        width: features of a sample.
    """

    __slots__ = ("_next", "_rows", "count", "length")

    def __init__(self, length: int, width: int) -> None:
        self._rows = np.empty((2 * length, width))
        self._next = 0
        self.count = 0
        self.length = length

    def add(self, row: list[float]) -> None:
        """Appends a sample and forgets the oldest one when there are too many."""
        self._rows[self._next] = self._rows[self._next + self.length] = row
        self._next = (self._next + 1) % self.length
        self.count = min(self.count + 1, self.length)

    def last(self, count: int) -> np.ndarray:
        """The last `count` samples, oldest first, float64 `[count, width]`; valid until the next `add`."""
        end = self._next + self.length
        return self._rows[end - count : end]

    def clear(self) -> None:
        """Forgets all samples."""
        self.count = 0


class _Session:
    """One stream: its settings and the windows of its series."""

    def __init__(self, first: scoring_pb2.ScoreStreamRequest, models: Served, limits: Limits, metrics: Metrics):
        if not first.HasField("settings"):
            raise _invalid("settings", "the first request carries no settings; say there which detectors score")
        wanted = first.settings
        if not wanted.detectors or len(set(wanted.detectors)) < len(wanted.detectors):
            raise _invalid("settings.detectors", "name at least one detector, and each once")
        for index, number in enumerate(wanted.detectors):
            try:
                _require(models, detectors.NAMES.get(number, f"detector {number}"))
            except ContractError as error:
                raise ContractError(error.code, f"settings.detectors[{index}]", error.message) from None
        self._id = wanted.model_set_id
        check_id(models, self._id, "settings.model_set_id")
        self._explain = explain_of(wanted.explain, "settings.explain")
        self._names = [detectors.NAMES[number] for number in wanted.detectors]
        self._limits = limits
        self._metrics = metrics
        self._windows: dict[str, Window] = {}
        self._features: list[str] = []
        self._length = 1
        self._use(models)

    def _use(self, models: Served) -> None:
        """Takes over what is live; windows survive when the features are the same (ST6)."""
        self._models = models
        self._alone: _Group | None = None
        features = self._features
        if isinstance(models, Fleet):
            features = [name for name, _ in models.index.features]
        else:
            self._alone = _Group(models, self._names)
            features = self._alone.features or features
            self._length = max(self._length, self._alone.length)
        if features != self._features:
            self._features = features
            self._windows.clear()

    def answer(self, request: scoring_pb2.ScoreStreamRequest, models: Served) -> scoring_pb2.ScoreStreamResponse:
        """Scores the samples of one request."""
        if models is not self._models:
            check_id(models, self._id, "settings.model_set_id")
            self._use(models)
        if len(request.samples) > MAX_STREAM_SAMPLES:
            what = f"{len(request.samples)} samples; at most {MAX_STREAM_SAMPLES} fit in one request of a stream"
            raise ContractError("BATCH_TOO_LARGE", "samples", what)
        response = scoring_pb2.ScoreStreamResponse(model_set_id=models.id)
        groups: dict[str, _Group] = {}  # by the id of the set
        taken: list[tuple[_Group | None, list[errors_pb2.ErrorInfo | None]]] = []
        for index, sample in enumerate(request.samples):
            group, fault = self._group(index, sample.series, groups)
            if group is None:
                taken.append((None, self._refused(sample.series, fault)))
            else:
                taken.append((group, self._take(index, sample, group)))
            if len(groups) > _OPEN_GROUPS:
                self._finish(taken, groups, response)
        self._finish(taken, groups, response)
        return response

    def _group(
        self, index: int, series: str, groups: dict[str, "_Group"]
    ) -> tuple["_Group | None", ContractError | None]:
        """What scores a series, or why nothing does (FL8). Several series may have one."""
        if self._alone is not None:
            groups[""] = self._alone
            return self._alone, None
        assert isinstance(self._models, Fleet)
        _check_name(index, series)
        try:
            models = self._models.set(series)
        except ContractError as error:
            return None, error
        group = groups.get(models.id)
        if group is None:
            group = groups[models.id] = _Group(models, self._names)
            self._length = max(self._length, group.length)
        return group, None

    def _refused(self, series: str, fault: ContractError | None) -> list[errors_pb2.ErrorInfo | None]:
        """The errors of a sample of which nothing is kept: a name that nobody knows must not take a place."""
        assert fault is not None
        if series in self._windows:
            self._windows[series].clear()
        self._metrics.refusal(fault.code)
        return [_info(fault)] * len(self._names)

    def _finish(
        self,
        taken: list[tuple["_Group | None", list[errors_pb2.ErrorInfo | None]]],
        groups: dict[str, "_Group"],
        response: scoring_pb2.ScoreStreamResponse,
    ) -> None:
        """Scores all that was taken, and lets go of the sets."""
        for group in groups.values():
            group.score(self._explain, self._metrics)
        for by, outcome in taken:
            result = response.results.add()
            for detector, error in enumerate(outcome):
                if error is None:
                    assert by is not None
                    result.verdicts.add(verdict=next(by.verdicts[detector]))
                else:
                    result.verdicts.add(error=error)
            if by is not None and self._alone is None and None in outcome:
                result.model_set_id = by.id
        taken.clear()
        groups.clear()

    def _take(self, index: int, sample: scoring_pb2.StreamSample, group: "_Group") -> list[errors_pb2.ErrorInfo | None]:
        """Puts a sample into its window and, per detector, what is to be scored into its batch, or says why not."""
        window = self._window(index, sample.series)
        if sample.restart:
            window.clear()
        row = list(sample.values)
        fault = self._fault(row)
        if fault is not None:
            window.clear()  # a window never crosses a gap (ST4)
            self._metrics.refusal(fault.code)
            return [_info(fault)] * len(self._names)
        window.add(row)
        return [batch.add(window) for batch in group.batches]

    def _window(self, index: int, series: str) -> Window:
        window = self._windows.get(series)
        if window is None:
            _check_name(index, series)
            if len(self._windows) >= self._limits.series:
                what = f"the stream has {self._limits.series} series already; open another stream for further ones"
                raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, what)
            window = self._windows[series] = Window(self._length, len(self._features))
        elif window.length < self._length:
            window = self._windows[series] = _lengthened(window, self._length)
        return window

    def _fault(self, row: list[float]) -> ContractError | None:
        names = self._features
        if len(row) != len(names):
            what = f"{len(row)} values given; the schema has {len(names)}: {', '.join(names)}"
            return ContractError("WRONG_WIDTH", "values", what)
        if not all(map(math.isfinite, row)):
            name, value = next((name, x) for name, x in zip(names, row, strict=True) if not math.isfinite(x))
            what = f"{name} is {value}; send a finite number or leave the sample out"
            return ContractError("NOT_FINITE", f"values.{name}", what)
        return None


class _Group:
    """What one model set has to score of one request.

    Args:
        models: the set.
        names: detectors of the settings; one that the set does not have scores nothing.

    Attributes:
        id: of the set.
        features: names of the features; empty where it has none of the detectors.
        length: samples of the longest window of the detectors.
        batches: one for each of the detectors.
        verdicts: one iterator for each of them, over what was taken until `score`.
    """

    def __init__(self, models: ModelSet, names: list[str]) -> None:
        found = [models.models.get(name) for name in names]
        present = [model for model in found if model is not None]
        self.id = models.id
        self.features = present[0].feature_names if present else []
        self.length = max((model.timesteps for model in present), default=1)
        self.batches = [_Batch(model) for model in found]
        self.verdicts: list[Iterator[scoring_pb2.Verdict]] = []

    def score(self, explain: Explain, metrics: Metrics) -> None:
        """Scores what was taken, and begins anew."""
        self.verdicts = [batch.verdicts(explain, metrics) for batch in self.batches]


class _Batch:
    """What one detector has to score of one request."""

    def __init__(self, model: Scorer | None) -> None:
        self._model = model
        self._items: list[np.ndarray] = []

    def add(self, window: Window) -> errors_pb2.ErrorInfo | None:
        """Takes the window's last samples, or says why they cannot be scored."""
        if self._model is None:
            what = "the model set in use has no such model"
            return _info(ContractError("DETECTOR_UNAVAILABLE", "detector", what))
        if window.count < self._model.timesteps:
            what = f"{window.count} samples so far; the model's window is {self._model.timesteps} samples"
            return _info(ContractError("WINDOW_TOO_SHORT", "values", what))
        self._items.append(window.last(self._model.timesteps).copy())
        return None

    def verdicts(self, explain: Explain, metrics: Metrics) -> Iterator[scoring_pb2.Verdict]:
        """Verdicts of all that was taken since the last time, in order."""
        if self._model is None or not self._items:
            return iter(())
        taken, self._items = self._items, []
        if len(taken) == 1:
            verdict = self._model.verdict_of(taken[0], explain)
            count_one(metrics, self._model, verdict, taken[0][-1])
            return iter((self._message(verdict),))
        items = np.array(taken)
        scored = self._model.run(items, explain)
        count_batch(metrics, self._model, scored, items[:, -1])
        return map(self._message, scored.each())

    def _message(self, verdict: Verdict) -> scoring_pb2.Verdict:
        assert self._model is not None
        return to_message(self._model, verdict)


class _Progress:
    """How far a stream is: since when it waits for its client, or that it computes."""

    __slots__ = ("cancel", "waiting_since")

    def __init__(self, cancel: Callable[[], Any]) -> None:
        self.cancel = cancel
        self.waiting_since: float | None = time.monotonic()

    def waits(self) -> None:
        """The client has to send a request, or to take an answer."""
        self.waiting_since = time.monotonic()

    def computes(self) -> None:
        """The server has a request to answer."""
        self.waiting_since = None


class Streams:
    """Runs streams, and ends those on which nothing moves (L5) or when the server stops (L7).

    Args:
        live: holds the model set in use.
        limits: series of a stream, idle time.
        metrics: counts scores and alarms.
    """

    def __init__(self, live: Live, limits: Limits, metrics: Metrics) -> None:
        self._live = live
        self._limits = limits
        self._metrics = metrics
        self._open: set[_Progress] = set()
        self._stopping = threading.Event()
        threading.Thread(target=self._sweep, name="idle-streams", daemon=True).start()

    def run(self, requests: Any) -> Iterator[scoring_pb2.ScoreStreamResponse]:
        """Answers the requests of one stream, an iterator that can also `cancel` its call."""
        progress = _Progress(requests.cancel)
        self._open.add(progress)
        session: _Session | None = None
        try:
            for request in requests:
                progress.computes()
                came = time.perf_counter()
                models = self._live.models
                if session is None:
                    session = _Session(request, models, self._limits, self._metrics)
                elif request.HasField("settings"):
                    raise _invalid("settings", "settings belong in the first request of a stream alone")
                answer = session.answer(request, models)
                self._metrics.answered("ScoreStream", time.perf_counter() - came)
                progress.waits()
                yield answer
                if self._stopping.is_set():
                    raise StatusError(grpc.StatusCode.UNAVAILABLE, "the server is stopping; open the stream again")
        finally:
            self._open.discard(progress)

    def stop(self) -> None:
        """Ends streams: those that wait for their client soon, others after the answer they are computing."""
        self._stopping.set()

    def _sweep(self) -> None:
        while not self._stopping.wait(min(1.0, self._limits.idle / 4)):
            self._cancel_waiting(self._limits.idle)
        while self._open:
            self._cancel_waiting(0.1)  # a moment for an answer that is on its way
            time.sleep(0.02)

    def _cancel_waiting(self, seconds: float) -> None:
        for progress in self._open.copy():
            since = progress.waiting_since
            if since is not None and time.monotonic() - since > seconds:
                progress.cancel()


def _lengthened(window: Window, length: int) -> Window:
    longer = Window(length, window.last(1).shape[1])
    for row in window.last(window.count):
        longer.add(row.tolist())
    return longer


def _require(models: Served, name: str) -> None:
    """Refuses a detector that cannot be scored; of a fleet one that there is not at all (FL8)."""
    if not isinstance(models, Fleet):
        models.model(name)
    elif name not in detectors.BY_NAME:
        what = f"{name!r} is no detector; there are {', '.join(detectors.BY_NAME)}"
        raise ContractError("UNKNOWN_DETECTOR", "detector", what)


def _check_name(index: int, series: str) -> None:
    """Refuses a name that is too long; it ends the stream (ST7)."""
    size = len(series.encode())
    if size > MAX_SERIES_BYTES:
        raise _invalid(f"samples[{index}].series", f"a name of {size} bytes; at most {MAX_SERIES_BYTES} fit")


def _invalid(field: str, message: str) -> ContractError:
    return ContractError("INVALID_REQUEST", field, message)


def _info(error: ContractError) -> errors_pb2.ErrorInfo:
    return errors_pb2.ErrorInfo(code=error.number, field=error.field, message=error.message)  # type: ignore[arg-type]  # an enum is a number
