"""Builds, starts and stops the server."""

import contextlib
import errno
import os
import socket
import threading
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dwcp_sidecar import detectors
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import unix_socket
from dwcp_sidecar.server.servicer import SERVICE, Servicer, add_to_server
from dwcp_sidecar.server.settings import MAX_MESSAGE_BYTES, Settings, StartError, one_address, split_address

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server that takes half of the calls
]


def health_name(detector: str) -> str:
    """Name of a detector in grpc.health.v1, for example `dwcp.anomaly.v1.ScoringService/isolation_forest`.

    Every detector of the contract has one: SERVING when the model set can score it, else NOT_SERVING. The empty name
    and the service's name stand for the server as a whole.
    """
    return f"{SERVICE.full_name}/{detector}"


class App:
    """A server with one open model set.

    Args:
        models: the open set.
        settings: where to listen and how to stop.

    Attributes:
        addresses: what clients may pass to gRPC, `127.0.0.1:50051` or `unix:/run/dwcp.sock`; filled by `start`.
    """

    def __init__(self, models: ModelSet, settings: Settings) -> None:
        self.addresses: list[str] = []
        self.models = models
        self._settings = settings
        self._socket: Path | None = None
        # Watch is answered without a thread of its own: watchers must not use up the threads that score.
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="score"), options=_OPTIONS
        )
        add_to_server(Servicer(models), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

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
            self.stop(0)
            raise
        self._set_health()
        self._server.start()

    def stop(self, grace: float) -> threading.Event:
        """Refuses new calls and lets those in flight finish within `grace` seconds.

        Health becomes NOT_SERVING first. May be called again with a shorter grace.

        Returns:
            An event that is set when no call is left.
        """
        self._health.enter_graceful_shutdown()
        stopped: threading.Event = self._server.stop(grace)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            self._socket = None
        return stopped

    def _bind_tcp(self, listen: str) -> str:
        host, port = split_address(listen)
        family, number = one_address(host, port)
        written = f"[{number}]" if family == socket.AF_INET6 else number
        try:
            bound = self._server.add_insecure_port(f"{written}:{port}")
        except RuntimeError:  # gRPC does not say why
            why, in_use = _why(family, number, port)
            remedy = f"Stop the program that uses port {port}, or choose" if in_use else "Choose"
            raise StartError(
                f"cannot listen on {written}:{port}: {why}. {remedy} another with --listen HOST:PORT (0: any free one)."
            ) from None
        return f"{written}:{bound}"

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

    def _set_health(self) -> None:
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE.full_name):
            self._health.set(name, serving)
        for detector in detectors.BY_NAME:
            self._health.set(health_name(detector), serving if detector in self.models.models else not_serving)


def _why(family: int, host: str, port: int) -> tuple[str, bool]:
    """Why an address cannot be bound, and whether because it is in use: found by asking the system once more."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error), error.errno == errno.EADDRINUSE
    return "the system refuses it", False


def write_ready_file(path: Path, line: str) -> None:
    """Writes the ready line so that a reader never sees half of it.

    Raises:
        StartError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(line + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StartError(f"--ready-file {path}: {error.strerror}; choose a folder that can be written to") from None
