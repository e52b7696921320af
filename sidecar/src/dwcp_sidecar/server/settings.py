"""What the server is told at start, checked before anything is opened."""

import enum
import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path

from dwcp_sidecar.limits import DEFAULT_MAX_SETS, MAX_BATCH_BYTES
from dwcp_sidecar.signatures import PublicKeys

DEFAULT_LISTEN = "127.0.0.1:50051"
"""Used when neither a TCP address nor a unix socket is given: loopback, never all interfaces."""

MAX_MESSAGE_BYTES = MAX_BATCH_BYTES + 1024 * 1024
"""Largest gRPC message: the largest batch (W4) and room for its other fields. A batch that is a little too large still
reaches the check that answers BATCH_TOO_LARGE."""


DEFAULT_WINDOW = 4096
"""Recent rows of a detector that are compared with its training rows."""

MAX_WINDOW = 1 << 30
"""Most of them; memory has a limit of its own (DR6)."""


class StartError(Exception):
    """The server cannot start for a reason that is not its model set: an address or a file. Names the remedy."""


@dataclass(frozen=True)
class Limits:
    """What one process takes on (L2 to L5).

    Attributes:
        in_flight: unary calls at a time, waiting ones included; one more is RESOURCE_EXHAUSTED.
        threads: unary calls handled at a time; further ones wait, and are dropped when their deadline passes.
        streams: open streams; one more is RESOURCE_EXHAUSTED.
        series: series held by one stream.
        idle: seconds after which a stream on which nothing moved is ended.
    """

    in_flight: int = 256
    threads: int = 128
    streams: int = 64
    series: int = 10_000
    idle: float = 300.0

    def __post_init__(self) -> None:
        for flag, value in (
            ("--max-in-flight", self.in_flight),
            ("--workers-threads", self.threads),
            ("--max-streams", self.streams),
            ("--max-series", self.series),
        ):
            if value < 1:
                raise StartError(f"{flag} is {value}; give at least 1")
        if not 0 < self.idle < float("inf"):
            raise StartError(f"--stream-idle is {self.idle}; give a number of seconds above 0")


@dataclass(frozen=True)
class Tls:
    """Files for TLS on the TCP address.

    Attributes:
        cert: PEM certificate chain.
        key: PEM private key.
        client_ca: PEM certificates that clients must be signed by (mutual TLS); None asks clients for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class Reflection(enum.Enum):
    """Whether strangers may ask what the server offers."""

    AUTO = "auto"
    """Off with mutual TLS, else on."""
    ON = "on"
    OFF = "off"


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        models: folder of the model set, or of a fleet.
        listen: `host:port`, port 0 for any free one; None for no TCP.
        unix: path of a unix socket; None for none.
        workers: processes that share the addresses; each has the limits to itself.
        limits: what a process takes on.
        grace: seconds that calls in flight get to finish when the server is told to stop.
        ready_file: written when the server answers, with the line it prints; removed when it stops.
        watch: seconds between looks at the folder (R1); 0 for none.
        metrics: `host:port` of the Prometheus page; None for none.
        feedback: file with what operators said of alarms, for the Prometheus page (M5); None for none.
        drift_window: rows that are kept of each detector and compared with its training rows (DR6); 0 for none.
        tls: files for TLS on the TCP address; None for plain text.
        reflection: whether the services can be listed.
        traces: whether OpenTelemetry spans are sent.
        max_sets: sets of a fleet that a process keeps open (FL5).
        public_keys: one of these must have signed a model set, at start and at each reload (A8); None asks for none.
        reuse_port: whether other processes may listen on the same port; set by a supervisor for its workers.

    Raises:
        StartError: nothing to listen on, or a value out of range.
    """

    models: Path
    listen: str | None = DEFAULT_LISTEN
    unix: Path | None = None
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    grace: float = 5.0
    ready_file: Path | None = None
    watch: float = 2.0
    metrics: str | None = None
    feedback: Path | None = None
    drift_window: int = DEFAULT_WINDOW
    tls: Tls | None = None
    reflection: Reflection = Reflection.AUTO
    traces: bool = False
    max_sets: int = DEFAULT_MAX_SETS
    public_keys: PublicKeys | None = None
    reuse_port: bool = False

    def __post_init__(self) -> None:
        if self.listen is None and self.unix is None:
            raise StartError("nothing to listen on; give --listen HOST:PORT or --unix PATH")
        for flag, address in (("--listen", self.listen), ("--metrics", self.metrics)):
            if address is not None:
                split_address(address, flag)
        if self.feedback is not None and self.metrics is None:
            raise StartError("--feedback is shown on the page of --metrics; add --metrics HOST:PORT")
        if not 0 <= self.drift_window <= MAX_WINDOW:
            raise StartError(f"--drift-window is {self.drift_window}; give a number of rows, or 0 for none")
        if self.max_sets < 1:
            raise StartError(f"--max-sets is {self.max_sets}; give at least 1")
        if self.workers < 1:
            raise StartError(f"--workers is {self.workers}; give at least 1")
        for flag, seconds in (("--grace", self.grace), ("--watch", self.watch)):
            if not 0 <= seconds < float("inf"):
                raise StartError(f"{flag} is {seconds}; give a number of seconds, 0 or more")
        if self.tls is not None and self.listen is None:
            raise StartError("--tls-cert is for TCP; add --listen HOST:PORT, or leave it out for a unix socket")

    @property
    def mutual_tls(self) -> bool:
        """Whether every client on TCP has shown a certificate."""
        return self.tls is not None and self.tls.client_ca is not None

    @property
    def lists_services(self) -> bool:
        """Whether reflection is offered."""
        return self.reflection is Reflection.ON or (self.reflection is Reflection.AUTO and not self.mutual_tls)

    @property
    def only_trusted_peers(self) -> bool:
        """Whether whoever can call may also ask for a reload (R6)."""
        if self.listen is None or self.mutual_tls:
            return True
        host, port = split_address(self.listen)
        return ipaddress.ip_address(one_address(host, port)[1]).is_loopback


def split_address(address: str, flag: str = "--listen") -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        StartError: no host (that would be all interfaces, unasked), or a port that is none.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise StartError(f"{flag} {address!r} is no address; write it as {DEFAULT_LISTEN}, port 0 for any free one")
    if not host:
        raise StartError(
            f"{flag} {address!r} names no host; write 127.0.0.1{address} for this machine alone, "
            f"0.0.0.0{address} if every interface is meant"
        )
    return host, int(port)


def one_address(host: str, port: int, flag: str = "--listen") -> tuple[int, str]:
    """Family and number of a host.

    A name such as `localhost` may stand for two addresses. gRPC is content when one of them can be bound, and a port in
    use on the other would go unnoticed: so one address is chosen here.

    Raises:
        StartError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"{flag}: host {host!r} is not known ({error.strerror}); write {DEFAULT_LISTEN}") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])
