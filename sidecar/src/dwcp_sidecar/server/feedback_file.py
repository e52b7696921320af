"""What operators said of alarms, from a file that `dwcp feedback` writes, as gauges (rule M5)."""

import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Lock

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dwcp.anomaly.v1.feedback_pb2 import FeedbackSummary
from dwcp_sidecar import protojson
from dwcp_sidecar.errors import ContractError

_log = logging.getLogger(__name__)


class FeedbackFile:
    """A collector of the gauges of one file, which is read anew when a scrape comes and the file has changed.

    Args:
        path: a `FeedbackSummary`; it may come later, or never.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = (0, 0, 0)
        self._summary: FeedbackSummary | None = None

    def collect(self) -> Iterator[Metric]:
        """The gauges; none where the file cannot be used."""
        with self._lock:
            self._look()
            summary = self._summary
        if summary is None:
            return
        marks = GaugeMetricFamily(
            "dwcp_feedback_marks", "Alarms marked true and false, and faults without an alarm.", labels=["verdict"]
        )
        counts = {"true": summary.true_alarms, "false": summary.false_alarms, "missed": summary.missed_faults}
        for verdict, count in counts.items():
            marks.add_metric([verdict], count)
        yield marks
        alarms = summary.true_alarms + summary.false_alarms
        if alarms:
            yield GaugeMetricFamily(
                "dwcp_feedback_precision", "Share of marked alarms that were right.", summary.true_alarms / alarms
            )
        yield GaugeMetricFamily(
            "dwcp_feedback_updated_timestamp_seconds", "When the marks were last summed up.", _seconds(summary.updated)
        )

    def _look(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen, self._summary = seen, None
        try:
            summary = protojson.parse(self._path.read_bytes(), FeedbackSummary(), self._path.name)
            protojson.require_known_version(summary.schema_version, self._path.name)
            if not math.isfinite(_seconds(summary.updated)) or summary.schema_version < 1:
                raise ContractError("METADATA_INVALID", self._path.name, "`updated` is no time, or there is no version")
            self._summary = summary
        except (OSError, ContractError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            _log.warning("--feedback %s: %s; no feedback is shown until the file changes", self._path.name, reason)


def _seconds(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; NaN where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return moment.timestamp() if moment.tzinfo else math.nan
