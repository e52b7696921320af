"""What the server is told at start, checked before anything is opened."""

import socket
from dataclasses import dataclass
from pathlib import Path

from dwcp_sidecar.features import MAX_BATCH_BYTES

DEFAULT_LISTEN = "127.0.0.1:50051"
"""Used when neither a TCP address nor a unix socket is given: loopback, never all interfaces."""

MAX_MESSAGE_BYTES = MAX_BATCH_BYTES + 1024 * 1024
"""Largest gRPC message: the largest batch (W4) and room for its other fields. A batch that is a little too large still
reaches the check that answers BATCH_TOO_LARGE."""


class StartError(Exception):
    """The server cannot start for a reason that is not its model set: an address or a file. Names the remedy."""


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        models: folder of the model set.
        listen: `host:port`, port 0 for any free one; None for no TCP.
        unix: path of a unix socket; None for none.
        worker_threads: calls handled at a time; further ones wait, and are dropped when their deadline passes.
        grace: seconds that calls in flight get to finish when the server is told to stop.
        ready_file: written when the server answers, with the line it prints; removed when it stops.

    Raises:
        StartError: nothing to listen on, or a value out of range.
    """

    models: Path
    listen: str | None = DEFAULT_LISTEN
    unix: Path | None = None
    worker_threads: int = 8
    grace: float = 5.0
    ready_file: Path | None = None

    def __post_init__(self) -> None:
        if self.listen is None and self.unix is None:
            raise StartError("nothing to listen on; give --listen HOST:PORT or --unix PATH")
        if self.listen is not None:
            split_address(self.listen)
        if self.worker_threads < 1:
            raise StartError(f"--workers-threads is {self.worker_threads}; give at least 1")
        if not 0 <= self.grace < float("inf"):
            raise StartError(f"--grace is {self.grace}; give a number of seconds, 0 or more")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        StartError: no host (that would be all interfaces, unasked), or a port that is none.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise StartError(f"--listen {address!r} is no address; write it as {DEFAULT_LISTEN}, port 0 for any free one")
    if not host:
        raise StartError(
            f"--listen {address!r} names no host; write 127.0.0.1{address} for this machine alone, "
            f"0.0.0.0{address} if every interface is meant"
        )
    return host, int(port)


def one_address(host: str, port: int) -> tuple[int, str]:
    """Family and number of a host.

    A name such as `localhost` may stand for two addresses. gRPC is content when one of them can be bound, and a port in
    use on the other would go unnoticed: so one address is chosen here.

    Raises:
        StartError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"--listen: host {host!r} is not known ({error.strerror}); write {DEFAULT_LISTEN}") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])
