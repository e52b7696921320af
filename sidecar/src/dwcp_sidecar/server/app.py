"""Builds, starts and stops the server."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dwcp_sidecar import detectors
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import oip, tcp, tls, unix_socket
from dwcp_sidecar.server.calls import Calls
from dwcp_sidecar.server.event_loop import EventLoop, event_loop_fits
from dwcp_sidecar.server.gate import Gate
from dwcp_sidecar.server.live import Live, Served
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.outgoing import unsent
from dwcp_sidecar.server.servicer import OPERATIONS, SERVICE, Servicer, operations
from dwcp_sidecar.server.settings import MAX_MESSAGE_BYTES, Settings, StartError
from dwcp_sidecar.server.streams import Streams
from dwcp_sidecar.server.tracing import Tracer

_log = logging.getLogger(__name__)

_MAX_STREAMS_OF_A_CONNECTION = 100
"""Calls that one connection may have open; its client waits with further ones. Keeps one client from all the places."""

_QUIET = 0.1
"""Seconds without a call after which a stopping server takes itself for idle: what was sent has arrived by then."""

_LINGER = 2.0
"""Seconds after the last answer that a stopping server gives slow connections to take it."""

_CERTIFICATE_SECONDS = 10.0
"""Seconds between looks at the TLS files; a new connection looks too."""

_LAST_SPANS = 2.0
"""Seconds that a stopping server takes to send its last spans."""


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_OF_A_CONNECTION),
        # Otherwise gRPC resets calls of clients that keep to the limit, while it still clears away earlier ones.
        ("grpc.http.overload_protection", 0),
        # A port in use is an error, not a second server that takes half of the calls, unless they are one server.
        ("grpc.so_reuseport", int(settings.reuse_port)),
    ]


def health_name(detector: str) -> str:
    """Name of a detector in grpc.health.v1, for example `dwcp.anomaly.v1.ScoringService/isolation_forest`.

    Every detector of the contract has one: SERVING when the model set can score it, else NOT_SERVING. At a fleet all
    are SERVING: series differ in what their sets have. The empty name and the service's name stand for the server as a
    whole.
    """
    return f"{SERVICE.full_name}/{detector}"


class App:
    """A server with a live model set.

    Args:
        live: holds the set.
        settings: where to listen, limits, how to stop.
        metrics: counts calls.
        reload: what the Reload call does: gives the id in use then and whether it changed, or raises ContractError.

    Attributes:
        addresses: what clients may pass to gRPC, `127.0.0.1:50051` or `unix:/run/dwcp.sock`; filled by `start`.
        gate: which calls are taken, and how many there are.

    Raises:
        StartError: traces are wanted and cannot be sent.
    """

    def __init__(
        self,
        live: Live,
        settings: Settings,
        metrics: Metrics,
        reload: Callable[[], tuple[str, bool]],
    ) -> None:
        self.addresses: list[str] = []
        self.gate = gate = Gate(settings.limits)
        metrics.read(lambda: gate.in_flight, lambda: gate.queued, lambda: gate.open_streams)
        self._live = live
        self._settings = settings
        self._metrics = metrics
        self._socket: Path | None = None
        self._grace_ends = float("inf")
        self._drained, self._stopped = threading.Event(), threading.Event()
        self._closing: threading.Thread | None = None
        self._tracer = Tracer() if settings.traces else None
        self._certificates: tls.Certificates | None = None
        self._streams = Streams(live, settings.limits, metrics)
        # Watch is answered without a thread of its own: watchers must not use up the threads that score.
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = grpc.server(self.gate.other, options=_options(settings))
        self._server.add_generic_rpc_handlers(self._services(reload))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.lists_services:
            names = (SERVICE.full_name, OPERATIONS.full_name, oip.SERVICE.full_name, health.SERVICE_NAME)
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)

    def _services(self, reload: Callable[[], tuple[str, bool]]) -> list[Calls]:
        inference = oip.InferenceService(self._live, lambda: self.gate.draining)
        return [
            Calls(descriptor.full_name, methods, self.gate, self._metrics, self._tracer)
            for descriptor, methods in (
                (SERVICE, Servicer(self._live, self._streams, self._metrics).methods()),
                (OPERATIONS, operations(reload, allowed=self._settings.only_trusted_peers)),
                (oip.SERVICE, inference.methods(self._metrics)),
            )
        ]

    def start(self) -> None:
        """Binds all addresses, then answers calls.

        Raises:
            StartError: an address cannot be had; nothing listens then.
        """
        try:
            if self._settings.listen is not None:
                self.addresses.append(self._bind_tcp(self._settings.listen))
            if self._settings.unix is not None:
                self.addresses.append(self._bind_unix(self._settings.unix))
        except StartError:
            self._server.stop(0)
            self.remove_socket()
            raise
        self._live.listen(self._set_health)
        if event_loop_fits():
            self.gate.unary.loop = loop = EventLoop(self._server)
            loop.start()
        else:
            _log.info("grpcio %s is not the version of requirements/: calls take a little longer", grpc.__version__)
            self._server.start()
        if self._certificates is not None:
            threading.Thread(target=self._look_at_certificates, args=(self._certificates,), daemon=True).start()

    def drain(self, grace: float) -> threading.Event:
        """Refuses new calls and lets those in flight finish within `grace` seconds (L7).

        Health becomes NOT_SERVING first. May be called again with a shorter grace. Connections stay open, and what
        comes in is refused with UNAVAILABLE, on which clients try elsewhere; they see the same when the process ends.

        Returns:
            An event that is set when no call is left, or the grace is over.
        """
        self._grace_ends = min(self._grace_ends, time.monotonic() + grace)
        if not self.gate.draining:
            self._health.enter_graceful_shutdown()
            self.gate.draining = True
            self._streams.stop()
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
        return self._drained

    def stop(self, grace: float) -> threading.Event:
        """Drains, then closes all connections: for a process that goes on.

        To calls that come in at that moment gRPC answers CANCELLED now and then.

        Returns:
            An event that is set when nothing is left.
        """
        self.drain(grace)
        if self._closing is None:
            self._closing = threading.Thread(target=self._close, name="close", daemon=True)
            self._closing.start()
        return self._stopped

    def _drain(self) -> None:
        answered = quiet = time.monotonic()
        while (now := time.monotonic()) < self._grace_ends:
            # First what goes on, then the clock: this thread may have slept for long.
            if self.gate.busy:
                answered = quiet = now
            elif now < answered + _LINGER and unsent():
                quiet = now
            elif now > quiet + _QUIET:
                break
            time.sleep(0.01)
        self.remove_socket()
        if self._tracer is not None:
            closing = threading.Thread(target=self._tracer.close, daemon=True)
            closing.start()
            closing.join(_LAST_SPANS)
        self._drained.set()

    def _close(self) -> None:
        self._drained.wait()
        self._server.stop(0).wait()
        self._stopped.set()

    def _look_at_certificates(self, certificates: tls.Certificates) -> None:
        """Keeps the metric of the certificate right where no connection comes that would have it read again."""
        while not self._drained.wait(_CERTIFICATE_SECONDS):
            certificates.look()

    def remove_socket(self) -> None:
        """Removes the file of the unix socket: no new connection comes that way."""
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            self._socket = None

    def _bind_tcp(self, listen: str) -> str:
        family, number, port = tcp.resolve(listen)
        try:
            bound = self._add_port(tcp.written(family, number, port))
        except RuntimeError:
            raise tcp.cannot_listen(family, number, port) from None
        return tcp.written(family, number, bound)

    def _add_port(self, address: str) -> int:
        if self._settings.tls is None:
            return self._server.add_insecure_port(address)
        self._certificates = tls.Certificates(self._settings.tls, self._metrics)
        return self._server.add_secure_port(address, tls.credentials_of(self._certificates, self._settings.tls))

    def _bind_unix(self, unix: Path) -> str:
        path = Path(os.path.abspath(unix))
        unix_socket.claim(path)
        try:
            with unix_socket.socket_mode():
                self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError:
            raise StartError(f"--unix {path}: cannot listen there; choose another path") from None
        self._socket = path
        return f"unix:{path}"

    def _set_health(self, served: Served) -> None:
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE.full_name):
            self._health.set(name, serving)
        # Which detectors the sets of a fleet have is known when they are open.
        there = served.models if isinstance(served, ModelSet) else detectors.BY_NAME
        for detector in detectors.BY_NAME:
            self._health.set(health_name(detector), serving if detector in there else not_serving)
