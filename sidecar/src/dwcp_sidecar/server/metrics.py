"""What is counted, and for whom (rules M1, M2): Prometheus metrics of one process, or of several that share a folder.

In one process the numbers live in memory. Where `PROMETHEUS_MULTIPROC_DIR` names a folder, each process keeps its
numbers in files there, and whichever of them calls `serve_metrics` shows the sum: a supervisor and its workers. What
a process counted stays in the sum when it ends; its gauges go when `forget` is called.
"""

import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp.anomaly.v1 import scoring_pb2
from dwcp.oip.v2 import inference_pb2

if TYPE_CHECKING:  # prometheus_client is imported by the process that counts: it takes 3 MB and 50 ms
    import numpy as np
    from prometheus_client.metrics_core import Metric

    from dwcp_sidecar.lazy_cache import Counts
    from dwcp_sidecar.server.metrics_page import Page
    from dwcp_sidecar.server.recent import Recent

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder that several processes share. Set before a `Metrics` is made."""

METHODS = frozenset(
    method.name
    for file in (scoring_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
)
"""Every value of the label `method` (M2)."""

RELOADS = ("swapped", "unchanged", "refused")
"""Values of `result` in `dwcp_reloads_total`."""

CERTIFICATE_RELOADS = ("swapped", "refused")
"""Values of `result` in `dwcp_certificate_reloads_total`."""

BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
"""Upper bounds of `dwcp_request_seconds`, the same in every implementation."""

_INFO = "dwcp_model_set_info"
_BUDGET = "dwcp_alarm_budget_share"
_DRIFT = {
    "dwcp_drift_rows": ("Recent rows that are compared with the training rows.", ("detector",)),
    "dwcp_drift_psi": ("Population stability index of recent rows.", ("detector", "metric")),
    "dwcp_drift_wasserstein": (
        "Wasserstein distance of recent rows, in training standard deviations.",
        ("detector", "metric"),
    ),
    "dwcp_drift": ("1 where recent rows have drifted from the training rows.", ("detector", "metric")),
}
"""Gauges of DR6: name to help and labels."""
_GONE = -1.0  # of a series in a shared folder, which cannot be removed; none of these gauges is negative

_LEAVE = {*_DRIFT, _BUDGET}  # series of these go when another set comes into use
_PUBLISH_SECONDS = 1.0  # a scrape comes every 10 s or so; fresher gauges would not be seen
_DRIFT_EVERY = 5  # times that long: drift is slow, and comparing takes some ms for each detector


class Metrics:
    """The metrics of a process. All methods may be called from any thread; those of a call take a few microseconds.

    Args:
        identity: name of this process in the shared folder, without `_` and `/`; its process id when empty. A
            supervisor that gives its workers the same few names, each to one living process, gets a folder that does
            not grow with every restart.

    Attributes:
        recent: the last rows that were scored (DR6); None for a process that scores none, or where nobody looks.
    """

    recent: "Recent | None" = None

    def __init__(self, identity: str = "") -> None:
        import prometheus_client as prometheus
        from prometheus_client import values

        from dwcp_sidecar.server.p_values import BOUNDS, PValues

        self._shared = os.environ.get(FOLDER, "")
        if self._shared:
            identity = identity or str(os.getpid())
            forget(identity)  # what a former process of that name left
            values.ValueClass = values.MultiProcessValue(lambda: identity)
        prometheus.disable_created_metrics()
        self._registry = prometheus.CollectorRegistry()
        self._page: Page | None = None
        self._feedback: Any = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[tuple[str, ...], Any] = {}
        self._id = ""

        def counter(name: str, help: str, *labels: str) -> Any:
            return prometheus.Counter(name, help, labels, registry=self._registry)

        def gauge(name: str, help: str, mode: Any, *labels: str) -> Any:
            return prometheus.Gauge(name, help, labels, registry=self._registry, multiprocess_mode=mode)

        self._counter, self._gauge = counter, gauge
        self._fleet: _Fleet | None = None  # made when there is a fleet: a page of one set says nothing of it
        self._fleet_sources: tuple[Callable[[], float], Callable[[], Counts]] | None = None
        self._requests = counter("dwcp_requests_total", "Calls answered, streams when they end.", "method", "code")
        self._seconds = prometheus.Histogram(
            "dwcp_request_seconds",
            "Seconds from the arrival of a request to its answer.",
            ["method"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._scores = counter("dwcp_scores_total", "Items scored.", "detector")
        self._p_values = PValues(
            "dwcp_score_p_value", "P-values of scored items.", ["detector"], buckets=BOUNDS, registry=self._registry
        )
        self._budget = gauge(
            _BUDGET, "Share of normal samples that may alarm as the model was trained for.", "livemax", "detector"
        )
        self._budgeted: set[str] = set()
        self._alarms = counter(
            "dwcp_alarms_total",
            "Anomalies, with the metric that contributes most where that was asked for.",
            "detector",
            "level",
            "metric",
        )
        self._refusals = counter("dwcp_refusals_total", "Requests refused, by code of the contract.", "code")
        self._reloads = counter("dwcp_reloads_total", "Looks at the folder that found something new.", "result")
        self._sets_refused = counter("dwcp_model_sets_refused_total", "Model sets refused, by code.", "code")
        self._certificate_reloads = counter(
            "dwcp_certificate_reloads_total", "TLS files read again after they changed.", "result"
        )
        self._restarts = counter("dwcp_worker_restarts_total", "Worker processes started anew after one ended.")
        self._workers = gauge("dwcp_workers", "Processes that answer calls.", "livemax")
        self._info = gauge(_INFO, "1 for the model set in use.", "livemax", "model_set_id")
        self._loaded = gauge(
            "dwcp_model_set_loaded_timestamp_seconds", "When the model set in use was opened.", "livemostrecent"
        )
        self._written = gauge(
            "dwcp_model_set_created_timestamp_seconds", "When its manifest was written.", "livemostrecent"
        )
        self._expiry: Any = None  # made when there is a certificate: a page without TLS has no expiry of 1970
        for result in RELOADS:
            self._reloads.labels(result)  # at 0 from the start, so that the first one is an increase
        self._now = [
            gauge("dwcp_in_flight", "Unary calls taken and not answered yet.", "livesum"),
            gauge("dwcp_queued", "Those of them that wait for a thread.", "livesum"),
            gauge("dwcp_streams", "Streams that are open.", "livesum"),
        ]
        self._drift: dict[str, Any] = {}
        self._drift_series: dict[tuple[str, ...], Any] = {}
        if self._shared:
            self._drift = {name: gauge(name, help, "livemax", *labels) for name, (help, labels) in _DRIFT.items()}
        else:
            self._workers.set(1)
            self._registry.register(_Drift(self))

    def read(self, in_flight: Callable[[], float], queued: Callable[[], float], streams: Callable[[], float]) -> None:
        """Says where three gauges are read: when a scrape comes, or once a second where processes share a folder, for
        whoever answers the scrape cannot call into another process.

        Args:
            in_flight: unary calls taken and not answered yet.
            queued: those of them that wait for a thread.
            streams: streams that are open.
        """
        sources = list(zip(self._now, (in_flight, queued, streams), strict=True))
        if self._shared:
            threading.Thread(target=self._publish, args=(sources,), name="metrics", daemon=True).start()
        else:
            for metric, function in sources:
                metric.set_function(function)

    def call(self, method: str, code: str, seconds: float | None) -> None:
        """Counts a call that ended. One of a method that is not in METHODS is not counted (M2).

        Args:
            method: last part of the gRPC path.
            code: name of the status, for example `INVALID_ARGUMENT`.
            seconds: from its arrival to its answer; None for a call that was not taken, and for a stream, whose answers
                are counted one by one.
        """
        count = self._children.get((method, code))
        if count is None:
            if method not in METHODS:
                return
            count = self._children[method, code] = self._requests.labels(method, code).inc
        count()
        if seconds is not None:
            self.answered(method, seconds)

    def answered(self, method: str, seconds: float) -> None:
        """Counts the time that one answer took, for each of the answers of a stream.

        Args:
            method: one of METHODS.
            seconds: from the arrival of its request to the answer.
        """
        observe = self._children.get((method,))
        if observe is None:
            observe = self._children[(method,)] = self._seconds.labels(method).observe
        observe(seconds)

    def scored(self, detector: str, count: int) -> None:
        """Counts scored items."""
        self._child(self._scores, detector).inc(count)

    def p_value(self, detector: str, value: float) -> None:
        """Counts the p-value of one scored item (M3)."""
        add = self._children.get(("p", detector))
        if add is None:
            add = self._children["p", detector] = self._p_values.labels(detector).add
        add(value)

    def p_values(self, detector: str, values: "np.ndarray") -> None:
        """Counts those of a batch, float64 `[n]` (M3)."""
        self._child(self._p_values, detector).add_all(values)

    def alarm(self, detector: str, level: str, metric: str, count: int = 1) -> None:
        """Counts anomalies.

        Args:
            level: `WARNING` or `CRITICAL`.
            metric: name of the top feature; empty where nothing was explained.
        """
        self._child(self._alarms, detector, level, metric).inc(count)

    def refusal(self, code: str) -> None:
        """Counts a refused request by its code of E1."""
        self._child(self._refusals, code).inc()

    def reload(self, result: str) -> None:
        """Counts a reload by its result, one of RELOADS. With several workers: by the process that leads it alone."""
        self._child(self._reloads, result).inc()

    def set_refused(self, code: str) -> None:
        """Counts a refused model set by its code of E1. With several workers as `reload`."""
        self._child(self._sets_refused, code).inc()

    def model_set(self, id: str, loaded: float, created: float) -> None:
        """Names the model set in use; the former one is no longer shown.

        Args:
            loaded: when it was opened, seconds since 1970.
            created: when its manifest was written, seconds since 1970.
        """
        with self._lock:
            former, self._id = self._id, id
            self._info.labels(id).set(1)
            self._loaded.set(loaded)
            self._written.set(created)
            if former not in ("", id):
                # In a shared folder a series cannot be removed; the page leaves out those at 0.
                if self._shared:
                    self._info.labels(former).set(0)
                else:
                    self._info.remove(former)

    def detectors(self, budgets: Mapping[str, float | None]) -> None:
        """Names the detectors of the set in use, so that their scores and p-values are counted from 0 on (M3).

        Args:
            budgets: the share of normal samples that may alarm of each (M4); None where nobody knows.
        """
        with self._lock:
            for detector, share in budgets.items():
                self._child(self._scores, detector)
                self._child(self._p_values, detector)
                if share is not None:
                    self._budget.labels(detector).set(share)
            now = {detector for detector, share in budgets.items() if share is not None}
            for former in self._budgeted - now:
                if self._shared:
                    self._budget.labels(former).set(_GONE)
                else:
                    self._budget.remove(former)
            self._budgeted = now

    def fleet(self, series: Callable[[], float], counts: Callable[[], "Counts"]) -> None:
        """Says that a fleet is in use (FL9).

        Args:
            series: how many its index lists.
            counts: of its sets; only ever rising but for those that are open.
        """
        with self._lock:
            self._fleet_sources = series, counts
            if self._fleet is None:
                self._fleet = _Fleet(self._counter, self._gauge)

    def read_fleet(self) -> None:
        """Brings the metrics of the fleet up to date: when a scrape comes, or once a second."""
        with self._lock:
            if self._fleet is not None and self._fleet_sources is not None:
                series, counts = self._fleet_sources
                self._fleet.show(series(), counts())

    def worker_restart(self) -> None:
        """Counts a worker that was started in the place of one that ended."""
        self._restarts.inc()

    def workers(self, count: int) -> None:
        """Says how many processes answer calls; set by the supervisor. Without one it is 1."""
        self._workers.set(count)

    def certificate(self, expiry: float) -> None:
        """Says when the certificate in use expires, seconds since 1970. Of several workers the earliest is shown."""
        with self._lock:
            if self._expiry is None:
                self._expiry = self._gauge(
                    "dwcp_certificate_expiry_timestamp_seconds", "When the certificate in use expires.", "livemin"
                )
                for result in CERTIFICATE_RELOADS:
                    self._certificate_reloads.labels(result)
            self._expiry.set(expiry)

    def certificate_reload(self, result: str) -> None:
        """Counts a change of the TLS files by its result, one of CERTIFICATE_RELOADS; each worker counts its own."""
        self._child(self._certificate_reloads, result).inc()

    def feedback(self, path: Path) -> None:
        """Shows what operators said of alarms (M5). With several workers: by the process that serves the page.

        Args:
            path: a file with a `FeedbackSummary`, read when a scrape comes.
        """
        from prometheus_client import CollectorRegistry

        from dwcp_sidecar.server.feedback_file import FeedbackFile

        self._feedback = CollectorRegistry()
        self._feedback.register(FeedbackFile(path))

    def serve_metrics(self, address: str) -> str:
        """Serves `http://ADDRESS/metrics` until `close`.

        Args:
            address: `host:port`, port 0 for any free one.

        Returns:
            The address with the port it got.

        Raises:
            StartError: the address cannot be had.
        """
        from dwcp_sidecar.server.metrics_page import Page

        self._page = Page(address, self.text)
        return self._page.address

    def text(self) -> bytes:
        """The page, in the Prometheus text format."""
        from prometheus_client import generate_latest

        if not self._shared:
            self.read_fleet()
        page: bytes = generate_latest(_Shared(self._shared) if self._shared else self._registry)
        return page if self._feedback is None else page + generate_latest(self._feedback)

    def close(self) -> None:
        """Stops serving the page and reading gauges. Counting goes on."""
        self._stop.set()
        if self._page is not None:
            self._page.close()
            self._page = None

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _publish(self, sources: list[tuple[Any, Callable[[], float]]]) -> None:
        for turn in itertools.count():
            for metric, function in sources:
                metric.set(function())
            self.read_fleet()
            if turn % _DRIFT_EVERY == 0:
                self._publish_drift()
            if self._stop.wait(_PUBLISH_SECONDS):
                return

    def _publish_drift(self) -> None:
        if self.recent is None:
            return
        now = {(name, *labels): value for name, labels, value in drift_gauges(self.recent)}
        for key in now.keys() - self._drift_series.keys():
            self._drift_series[key] = self._drift[key[0]].labels(*key[1:])
        for key, series in self._drift_series.items():
            series.set(now.get(key, _GONE))


def drift_gauges(recent: "Recent") -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Name, labels and value of each gauge of DR6, now."""
    for detector, rows, found in recent.compare():
        yield "dwcp_drift_rows", (detector,), float(rows)
        for feature in found:
            labels = detector, feature.name
            yield "dwcp_drift_psi", labels, feature.psi
            yield "dwcp_drift_wasserstein", labels, feature.wasserstein
            yield "dwcp_drift", labels, float(feature.drifted)


class _Drift:
    """Compares when a scrape comes, in a process of its own."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable["Metric"]:
        return ()  # asked when it is registered: there is nothing to compare yet

    def collect(self) -> Iterable["Metric"]:
        from prometheus_client.core import GaugeMetricFamily

        found: dict[str, Any] = {}
        recent = self._metrics.recent
        for name, labels, value in () if recent is None else drift_gauges(recent):
            if name not in found:
                found[name] = GaugeMetricFamily(name, _DRIFT[name][0], labels=_DRIFT[name][1])
            found[name].add_metric(labels, value)
        return found.values()


class _Fleet:
    """The metrics of FL9."""

    def __init__(self, counter: Callable[[str, str], Any], gauge: Callable[[str, str, str], Any]) -> None:
        self._series = gauge("dwcp_fleet_series", "Series that the index of the fleet lists.", "livemax")
        self._open = gauge("dwcp_fleet_sets_open", "Model sets that are open.", "livesum")
        self._opened = counter("dwcp_fleet_sets_opened_total", "Model sets that were opened.")
        self._closed = counter("dwcp_fleet_sets_closed_total", "Model sets that were closed.")
        self._before = (0, 0)

    def show(self, series: float, counts: "Counts") -> None:
        """Shows what a fleet has now. A fleet that takes the place of another goes on with its counts (FL7)."""
        self._series.set(series)
        self._open.set(counts.open)
        before = self._before if counts.opened >= self._before[0] and counts.closed >= self._before[1] else (0, 0)
        self._opened.inc(counts.opened - before[0])
        self._closed.inc(counts.closed - before[1])
        self._before = counts.opened, counts.closed


class NoMetrics(Metrics):
    """Counts nothing, and imports nothing: for a server that nobody asks for metrics."""

    def __init__(self) -> None:
        pass

    def read(
        self, in_flight: Callable[[], float], queued: Callable[[], float], streams: Callable[[], float]
    ) -> None: ...

    def call(self, method: str, code: str, seconds: float | None) -> None: ...

    def answered(self, method: str, seconds: float) -> None: ...

    def scored(self, detector: str, count: int) -> None: ...

    def p_value(self, detector: str, value: float) -> None: ...

    def p_values(self, detector: str, values: "np.ndarray") -> None: ...

    def alarm(self, detector: str, level: str, metric: str, count: int = 1) -> None: ...

    def refusal(self, code: str) -> None: ...

    def reload(self, result: str) -> None: ...

    def set_refused(self, code: str) -> None: ...

    def model_set(self, id: str, loaded: float, created: float) -> None: ...

    def detectors(self, budgets: Mapping[str, float | None]) -> None: ...

    def fleet(self, series: Callable[[], float], counts: Callable[[], "Counts"]) -> None: ...

    def read_fleet(self) -> None: ...

    def worker_restart(self) -> None: ...

    def workers(self, count: int) -> None: ...

    def certificate(self, expiry: float) -> None: ...

    def certificate_reload(self, result: str) -> None: ...

    def feedback(self, path: Path) -> None: ...

    def serve_metrics(self, address: str) -> str:
        raise NotImplementedError("there is nothing to serve; make a Metrics")

    def text(self) -> bytes:
        return b""

    def close(self) -> None: ...


def forget(identity: str | int) -> None:
    """Takes the gauges of a process that ended out of the sum; its counts stay. Called by whoever saw it end.

    Args:
        identity: what the process was given as `identity`, or its process id.
    """
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(identity, os.environ[FOLDER])


class _Shared:
    """Reads the files of all processes when a scrape comes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def collect(self) -> Iterable["Metric"]:
        from prometheus_client.multiprocess import MultiProcessCollector

        # A file is empty from its making until its process goes on, which on a busy machine takes a while, or for ever
        # when that process was killed. Nothing is counted in it yet: it does not keep the others from being shown.
        begun = [str(file) for file in self._folder.glob("*.db") if _size(file)]
        metrics = list(MultiProcessCollector.merge(begun))
        for metric in metrics:
            if metric.name == _INFO:  # sets that were in use once
                metric.samples = [sample for sample in metric.samples if sample.value]
            elif metric.name in _LEAVE:
                metric.samples = [sample for sample in metric.samples if sample.value != _GONE]
        return [metric for metric in metrics if metric.samples or metric.name not in _LEAVE]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # gauges of a process that ended
        return 0


def shared_folder(parent: Path) -> Path:
    """Makes the empty folder that a supervisor and its workers share, and names it in the environment (FOLDER).

    Args:
        parent: an existing folder, best in memory.
    """
    folder = Path(tempfile.mkdtemp(prefix="dwcp-metrics-", dir=parent))
    os.environ[FOLDER] = str(folder)
    return folder
