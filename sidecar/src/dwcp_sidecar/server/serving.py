"""All that answers calls in one process: the live set, its metrics, the gRPC server."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from dwcp_sidecar.alarm_budget import trained_share
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.fleet_index import INDEX
from dwcp_sidecar.model_set import MANIFEST
from dwcp_sidecar.server.app import App
from dwcp_sidecar.server.candidate import Candidate
from dwcp_sidecar.server.live import Live, Served
from dwcp_sidecar.server.metrics import Metrics, NoMetrics
from dwcp_sidecar.server.recent import Recent
from dwcp_sidecar.server.settings import Settings


class Serving:
    """A server that is not started yet.

    Args:
        settings: as `App` takes them.
        served: the set or fleet it begins with.
        reload: what the Reload call does, as `App` takes it.
        identity: name of this process among those that share their metrics; empty for a process of its own.

    Attributes:
        live: what is in use.
        app: answers calls.
        candidate: the way of another set into use.
        metrics: what is counted, when the settings ask for metrics.

    Raises:
        StartError: as `App`.
    """

    def __init__(
        self, settings: Settings, served: Served, reload: Callable[[], tuple[str, bool]], identity: str = ""
    ) -> None:
        self.metrics = NoMetrics() if settings.metrics is None else Metrics(identity)
        self.live = Live(served)
        if settings.metrics is not None:
            recent = self.metrics.recent = Recent(settings.drift_window)
            self.live.listen(recent.use)
        self.live.listen(self._describe)
        self.candidate = Candidate(self.live, settings)
        self.app = App(self.live, settings, self.metrics, reload)

    def _describe(self, served: Served) -> None:
        now = time.time()
        fleet = isinstance(served, Fleet)
        try:
            created = (served.path / (INDEX if fleet else MANIFEST)).stat().st_mtime
        except OSError:  # gone already: it was there a moment ago
            created = now
        self.metrics.model_set(served.id, now, created)
        if isinstance(served, Fleet):
            served.refused = self._refused
            self.metrics.detectors({})
            self.metrics.fleet(lambda: len(served.index.series), served.counts)
        else:
            self.metrics.detectors({name: trained_share(model.metadata) for name, model in served.models.items()})

    def _refused(self, error: ContractError) -> None:
        """Counts a set of the fleet as R3 says (FL4)."""
        self.metrics.set_refused(error.code)


def leave() -> NoReturn:
    """Ends this process with status 0, as it is: for one that has drained.

    The system closes its connections, which clients see as UNAVAILABLE. Were gRPC to close them, some calls that come
    in at that moment would get CANCELLED, on which nobody tries again.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
