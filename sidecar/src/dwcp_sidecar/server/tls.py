"""TLS and mutual TLS on the TCP address, with files that are read again when they change.

The standard library checks the files. It has no public reader of certificates, so a certificate proves itself: server
and client shake hands in memory, which also gives the time it expires.
"""

import contextlib
import logging
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.settings import StartError, Tls

LOOK_SECONDS = 1.0
"""Least time between two looks at the files."""

AGAIN_SECONDS = 60.0
"""A replacement that was refused is tried again after this time even when the files stayed the same: whether a
certificate has expired also depends on the clock."""

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for
_READS = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificate:
    """What the files hold, checked.

    Attributes:
        configuration: for gRPC.
        expiry: when the server's certificate expires, seconds since 1970.
    """

    configuration: grpc.ServerCertificateConfiguration
    expiry: float

    @property
    def expired(self) -> bool:
        return self.expiry <= time.time()


class Certificates:
    """The certificate in use, and its replacement.

    Args:
        files: where it is.
        metrics: told when it expires, and of every replacement.

    Raises:
        StartError: a file cannot be read or is no PEM file, or key and certificate do not belong together.
    """

    def __init__(self, files: Tls, metrics: Metrics) -> None:
        self._files = files
        self._metrics = metrics
        self._lock = threading.Lock()
        self._signature, self._current = _read_unchanged(files)
        self._given = self._current  # the one that gRPC has
        self._looked = time.monotonic()
        self._refused_at: float | None = None
        metrics.certificate(self._current.expiry)
        if self._current.expired:
            _log.warning("the certificate in --tls-cert has expired; clients will refuse it until it is replaced")

    @property
    def initial(self) -> grpc.ServerCertificateConfiguration:
        """What gRPC starts with."""
        return self._current.configuration

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks for at every new connection: another certificate than it has, or None."""
        try:
            self.look()
            with self._lock:
                if self._given is self._current:
                    return None
                self._given = self._current
                return self._given.configuration
        except Exception:  # without an answer gRPC would drop the connection
            _log.exception("the TLS files cannot be looked at; the certificate in use stays")
            return None

    def look(self) -> None:
        """Reads the files again when they changed; does nothing when that was done less than LOOK_SECONDS ago.

        A bad replacement is logged and counted, and the certificate in use stays. Connections ask by themselves; a
        timer that calls this too keeps the metric right where no connection comes.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._looked + LOOK_SECONDS:
                return
            self._looked = now
            again = self._refused_at is not None and now >= self._refused_at + AGAIN_SECONDS
            found = _signature(self._files)
            if found == self._signature and not again:
                return
            try:
                self._signature, replacement = _read_unchanged(self._files)
                if replacement.expired and not self._current.expired:
                    raise StartError(f"--tls-cert {self._files.cert} has expired; renew it")
            except StartError as error:
                self._signature = found
                self._refused_at = now
                self._metrics.certificate_reload("refused")
                _log.error("the TLS files changed and are refused, the certificate in use stays: %s", error)
                return
            self._refused_at = None
            self._current = replacement
            self._metrics.certificate(replacement.expiry)
            self._metrics.certificate_reload("swapped")
            until = datetime.fromtimestamp(replacement.expiry, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            _log.info("the TLS files changed; the new certificate expires at %s", until)


def server_credentials(files: Tls, metrics: Metrics) -> grpc.ServerCredentials:
    """Credentials that follow their files. With a client CA, clients must show a certificate that it signed.

    Raises:
        StartError: as `Certificates`.
    """
    return credentials_of(Certificates(files, metrics), files)


def credentials_of(certificates: Certificates, files: Tls) -> grpc.ServerCredentials:
    """As `server_credentials`, for a caller that also wants to call `look`."""
    return grpc.dynamic_ssl_server_credentials(
        certificates.initial, certificates.fetch, require_client_authentication=files.client_ca is not None
    )


def _paths(files: Tls) -> list[tuple[str, Path]]:
    named = [("--tls-cert", files.cert), ("--tls-key", files.key)]
    return named if files.client_ca is None else [*named, ("--tls-client-ca", files.client_ca)]


def _signature(files: Tls) -> tuple[Any, ...]:
    """Differs when a file was written or replaced, also through a symbolic link, as Kubernetes does it."""
    signature: list[Any] = []
    for _, path in _paths(files):
        try:
            stat = path.stat()
            signature.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError as error:
            signature.append(error.errno)
    return tuple(signature)


def _read_unchanged(files: Tls) -> tuple[tuple[Any, ...], Certificate]:
    """Reads and checks files that nobody writes meanwhile: what was checked is what is used."""
    for _ in range(_READS):
        before = _signature(files)
        try:
            certificate = _read(files)
        except StartError:
            if _signature(files) == before:
                raise
            continue
        if _signature(files) == before:
            return before, certificate
    raise StartError(f"--tls-cert {files.cert}: the files are being written; start again when that is done")


def _read(files: Tls) -> Certificate:
    texts = {flag: _read_pem(flag, path) for flag, path in _paths(files)}
    cert, key, client_ca = texts["--tls-cert"], texts["--tls-key"], texts.get("--tls-client-ca")
    if client_ca is not None:
        _authorities("--tls-client-ca", files.client_ca, client_ca)
    trusting = _authorities("--tls-cert", files.cert, cert)
    expiry = _expiry(_serving(files), trusting, files.cert)
    configuration = grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)
    return Certificate(configuration, expiry)


def _read_pem(flag: str, path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise StartError(f"{flag} {path}: cannot be read: {why}; give a PEM file that this user may read") from None
    if b"-----BEGIN " not in data:
        raise StartError(f"{flag} {path}: is no PEM file; give one with -----BEGIN ... lines")
    return data


def _authorities(flag: str, path: Path | None, pem: bytes) -> ssl.SSLContext:
    """A client that trusts the certificates of a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # which names clients use is theirs to check
    # Any certificate of the file may end the chain, and one that has expired is read like any other.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise StartError(f"{flag} {path}: holds no certificate that can be read; give one in PEM form") from None
    return context


def _serving(files: Tls) -> ssl.SSLContext:
    """A server with the certificate and the key."""

    def no_password() -> str:
        raise StartError(f"--tls-key {files.key}: is encrypted; give a key without a password, readable by this user")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.cert, files.key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"does not belong to --tls-cert {files.cert}; give the key that the certificate was made with"
        else:
            what = "holds no private key that can be read; give one in PEM form"
        raise StartError(f"--tls-key {files.key}: {what}") from None
    except OSError as error:
        raise StartError(f"--tls-key {files.key}: cannot be read: {error.strerror}") from None
    return context


def _expiry(serving: ssl.SSLContext, trusting: ssl.SSLContext, cert: Path) -> float:
    """When the certificate expires, as a client learns it in a handshake.

    Raises:
        StartError: no handshake comes about, for example because the certificate is one for clients.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    try:
        for side in (client, server, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        seen = client.getpeercert()
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        raise StartError(f"--tls-cert {cert}: no server can use it: {why}; give a server's certificate") from None
    if not seen:
        raise StartError(f"--tls-cert {cert}: no server can use it; give a server's certificate")
    return float(ssl.cert_time_to_seconds(str(seen["notAfter"])))
