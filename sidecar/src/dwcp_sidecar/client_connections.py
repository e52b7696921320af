"""The connections of a client, and which of them a call takes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from dwcp.anomaly.v1 import scoring_pb2_grpc
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server.settings import MAX_MESSAGE_BYTES

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment is not for a sidecar
    ("grpc.use_local_subchannel_pool", 1),  # else gRPC makes one connection of all to the same address
    # A sidecar restarts within a second; gRPC's own two minutes would be felt.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Ends a connection whose other end is gone without a word; pings proper are rarer than any server minds.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]

_AVOIDED = 0.5
"""Seconds for which a connection that failed comes after the others."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for connections over TLS. They are read when the client is made.

    Attributes:
        ca: certificates that vouch for the server; None for those that gRPC brings.
        cert: the client's own certificate, for a server that demands one (mutual TLS); goes with `key`.
        key: its key.
        server_name: the name in the server's certificate; empty for the host of the address.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC wants to have.

        Raises:
            ContractError: INVALID_REQUEST when a file cannot be read, or one of `cert` and `key` is missing.
        """
        if (self.cert is None) != (self.key is None):
            raise ContractError("INVALID_REQUEST", "tls.cert", "a certificate and its key go together; give both")
        ca, cert, key = (_read(f"tls.{name}", getattr(self, name)) for name in ("ca", "cert", "key"))
        return grpc.ssl_channel_credentials(ca, key, cert)


def _read(field: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ContractError(
            "INVALID_REQUEST", field, f"{path}: {error.strerror}; give a file that can be read"
        ) from None


class Connection:
    """One connection, and how much goes on over it."""

    def __init__(self, address: str, tls: TlsFiles | None) -> None:
        self.address = address
        self.in_flight = 0
        self.failed = float("-inf")
        if tls is None or address.startswith("unix"):  # the mode of the socket is its access control
            self.channel = grpc.insecure_channel(address, options=_OPTIONS)
        else:
            name = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
            self.channel = grpc.secure_channel(address, tls.credentials(), options=[*_OPTIONS, *name])
        self.scoring = scoring_pb2_grpc.ScoringServiceStub(self.channel)
        self.operations = scoring_pb2_grpc.OperationsServiceStub(self.channel)


class Connections:
    """All connections to one sidecar.

    Args:
        addresses: `host:port` or `unix:/path`; several are separated by commas.
        count: connections to each address.
        tls: for TCP addresses; unix sockets stay plain.
    """

    def __init__(self, addresses: str, count: int, tls: TlsFiles | None) -> None:
        self._all = [Connection(one.strip(), tls) for one in addresses.split(",") for _ in range(max(count, 1))]
        self._turn = 0
        self._lock = threading.Lock()

    def take(self, last: Connection | None = None) -> Connection:
        """The best connection for a call, which then counts as in flight on it: one that did not fail just now, not the
        one of the last attempt, and of these the one with the fewest calls in flight; equal ones take turns."""
        recently = time.monotonic() - _AVOIDED
        with self._lock:
            self._turn += last is None  # else calls that fail at once would always begin at the same connection
            order = [self._all[(self._turn + i) % len(self._all)] for i in range(len(self._all))]
            best = min(order, key=lambda one: (one.failed > recently, one is last, one.in_flight))
            best.in_flight += 1
        return best

    def give_back(self, connection: Connection, *, failed: bool = False) -> None:
        """The call is over."""
        with self._lock:
            connection.in_flight -= 1
            if failed:
                connection.failed = time.monotonic()

    def hold(self, connection: Connection) -> Callable[[], None]:
        """Counts something longer than a call, a stream, on a connection until the returned function is called."""
        with self._lock:
            connection.in_flight += 1
        return lambda: self.give_back(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.channel.close()
