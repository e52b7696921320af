"""Serves in this process, without workers."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from dwcp_sidecar.server import memory
from dwcp_sidecar.server.announce import announced
from dwcp_sidecar.server.reload import Outcome, Reloader, signature
from dwcp_sidecar.server.settings import Settings
from dwcp_sidecar.server.signals import RELOAD, STOP, Signals

_log = logging.getLogger(__name__)


def serve(settings: Settings) -> NoReturn:
    """Serves until a signal says to stop, then ends the process.

    Raises:
        ContractError: the model set is refused.
        StartError: an address or a file cannot be had.
    """
    memory.limit_arenas()
    from dwcp_sidecar.server.live import open_served

    seen = signature(settings.models)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_served, settings.models, settings)
        # While ONNX Runtime computes golden vectors Python is free to import gRPC.
        from dwcp_sidecar.server.serving import Serving, leave
    served = opening.result()

    signals = Signals(*STOP, RELOAD)  # before this nothing is open that a signal could leave behind
    serving = Serving(settings, served, lambda: reloader.reload())
    app, candidate = serving.app, serving.candidate
    del served  # the live set is the one to hold it, and to let go of it

    def change() -> Outcome:
        candidate.prepare(settings.models)
        return candidate.commit()

    reloader = Reloader(settings.models, settings.watch, change, serving.metrics, seen)
    try:
        if settings.metrics is not None:
            if settings.feedback is not None:
                serving.metrics.feedback(settings.feedback)
            _log.info("metrics are at http://%s/metrics", serving.metrics.serve_metrics(settings.metrics))
        app.start()
        reloader.start()
        try:
            with announced(app.addresses, serving.live.models.id, settings.ready_file):
                while (number := signals.wait()) not in STOP:
                    if number == RELOAD:
                        reloader.request()
        finally:
            reloader.stop()
            drained = app.drain(settings.grace)
            while not drained.wait(0.05):
                if signals.wait(0) in STOP:
                    app.drain(0)
    finally:
        serving.metrics.close()
    leave()
