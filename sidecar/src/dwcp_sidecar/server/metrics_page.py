"""Serves one page over HTTP: the metrics, for Prometheus. Nothing a client does takes threads or memory for long."""

import contextlib
import errno
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from dwcp_sidecar.server.settings import StartError, one_address, split_address

PATH = "/metrics"
"""Where the page is."""

MAX_CONNECTIONS = 8
"""Connections at a time, a thread each; one more is closed at once."""

MAX_SECONDS = 5.0
"""What a connection may take, from its first byte to its last."""

_log = logging.getLogger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Page:
    """A listener with one page.

    Args:
        address: `host:port`, port 0 for any free one.
        text: makes the page, for every request anew.

    Attributes:
        address: with the port it got.

    Raises:
        StartError: the address cannot be had.
    """

    def __init__(self, address: str, text: Callable[[], bytes]) -> None:
        host, port = split_address(address, "--metrics")
        family, number = one_address(host, port, "--metrics")
        written = f"[{number}]" if family == socket.AF_INET6 else number
        try:
            self._listener = _Listener(family, (number, port), text)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            remedy = (
                f"Stop the program that uses port {port}, or choose" if error.errno == errno.EADDRINUSE else "Choose"
            )
            raise StartError(
                f"--metrics: cannot listen on {written}:{port}: {why}. {remedy} another HOST:PORT (0: any free one)."
            ) from None
        self.address = f"{written}:{self._listener.server_address[1]}"
        threading.Thread(target=self._listener.serve_forever, name="metrics-page", daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        self._listener.shutdown()
        self._listener.server_close()


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True  # a restart does not wait for connections in TIME_WAIT
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, family: int, address: tuple[str, int], text: Callable[[], bytes]) -> None:
        self.address_family = family
        self.text = text
        self._lock = threading.Lock()
        self._open: dict[Any, float] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client went away, or was too slow
        finally:
            with self._lock:
                del self._open[request]
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Ends connections that take too long; called twice a second."""
        oldest = time.monotonic() - MAX_SECONDS
        with self._lock:
            for request, since in self._open.items():
                if since < oldest:
                    with contextlib.suppress(OSError):  # it may have ended meanwhile
                        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = MAX_SECONDS
    server: _Listener

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"The page is {PATH}.")
            return
        try:
            page = self.server.text()
        except Exception:  # its trace is for the log, not for whoever asks
            _log.exception("the metrics cannot be read")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if with_body:
            self.wfile.write(page)

    def version_string(self) -> str:
        return "dwcp-sidecar"  # no version of Python for strangers

    def log_message(self, format: str, *args: Any) -> None:
        pass  # a line per scrape says nothing
