"""One HTTP call with bounds: of time, of the answer's size, and without following anything elsewhere."""

from __future__ import annotations

import http.client
import time
import urllib.parse

from dwcp_training.console import RefusedError

MOST_BYTES = 1 << 24
"""Largest answer."""


class EndpointError(RefusedError):
    """An HTTP endpoint that cannot be used.

    Attributes:
        address: of the endpoint.
        message: what is wrong, and what to do about it.
        again: whether another attempt may succeed.
    """

    def __init__(self, address: str, message: str, *, again: bool) -> None:
        super().__init__(f"{address}: {message}")
        self.address, self.message, self.again = address, message, again


def checked_address(flag: str, url: str) -> str:
    """`url` without a slash at its end.

    Raises:
        ValueError: it is no address that can be asked; the message names the flag.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{flag} {url}: {error}") from None
    if parts.username or parts.password:
        raise ValueError(f"{flag}: write no name or password in an address, other users can see it")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise ValueError(f"{flag} {url}: write an address such as http://127.0.0.1:9090")
    return url.rstrip("/")


def call(method: str, url: str, body: bytes | None, timeout: float, most_bytes: int = MOST_BYTES) -> bytes:
    """The body of a successful answer.

    Args:
        method: GET or POST; a body is JSON.
        timeout: seconds for all of it.
        most_bytes: largest answer.

    Raises:
        EndpointError: it cannot be reached, takes too long, or answers with another status than 2xx.
    """
    parts = urllib.parse.urlsplit(url)
    address = f"{parts.scheme}://{parts.netloc}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    end = time.monotonic() + timeout
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
    try:
        connection.request(method, path or "/", body, headers)
        answer = connection.getresponse()
        content = b""
        while part := answer.read1(1 << 16):
            content += part
            if len(content) > most_bytes:
                raise EndpointError(address, f"it answers with more than {most_bytes >> 20} MiB", again=False)
            if time.monotonic() > end:
                raise TimeoutError
    except TimeoutError:
        raise EndpointError(address, f"no answer within {timeout:g} s", again=True) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise EndpointError(address, f"cannot be reached: {reason}", again=True) from None
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        said = " ".join(content[:300].decode("utf-8", errors="replace").split())
        again = answer.status >= 500 or answer.status == 429
        raise EndpointError(address, f"answers {answer.status} {answer.reason}: {said}".rstrip(": "), again=again)
    return content
