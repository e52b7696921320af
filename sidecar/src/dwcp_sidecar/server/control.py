"""The channel between a supervisor and a worker: JSON lines over a pair of sockets, questions and answers both ways."""

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dwcp_sidecar.errors import ContractError

Handler = Callable[[str, dict[str, Any]], "Future[dict[str, Any]] | None"]
"""Takes a message's name and its fields. The answer to a question is a future; a note has none."""


class ChannelClosedError(Exception):
    """The other side is gone, so no answer will come."""


class RemoteError(Exception):
    """The other side failed on a question for a reason that the contract has no code for."""


class Channel:
    """One end of a channel. Messages may be sent from any thread.

    Args:
        end: a connected socket; the channel owns it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._writing = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def tell(self, name: str, **fields: Any) -> None:
        """Sends a note; one that the other side is no longer there to read is lost."""
        self._send({"name": name, "fields": fields})

    def ask(self, name: str, **fields: Any) -> "Future[dict[str, Any]]":
        """Sends a question.

        Returns:
            The answer; or ContractError, RemoteError or ChannelClosedError.
        """
        future: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        with self._lock:
            if self._closed:
                future.set_exception(ChannelClosedError())
                return future
            self._asked[number] = future
        self._send({"name": name, "fields": fields, "ask": number})
        return future

    def run(self, handle: Handler) -> None:
        """Reads until the other side closes. Answers reach who asked; all else goes to `handle`, in order."""
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._receive(json.loads(line), handle)
        except (OSError, ValueError):  # reset, or half a line: the other side ended in the middle of it
            pass
        with self._lock:
            self._closed = True
            asked = list(self._asked.values())
            self._asked.clear()
        for future in asked:
            future.set_exception(ChannelClosedError())

    def close(self) -> None:
        """Closes this end; `run` returns at both ends."""
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _receive(self, message: dict[str, Any], handle: Handler) -> None:
        if "answer" in message:
            with self._lock:
                asked = self._asked.pop(message["answer"], None)
            if asked is not None:
                _settle(asked, message)
            return
        answer = handle(message["name"], message["fields"])
        if answer is not None and "ask" in message:
            answer.add_done_callback(lambda done: self._send({"answer": message["ask"], **_said(done)}))

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._writing:
                self._socket.sendall(line)
        except OSError:
            pass  # `run` finds out and tells everybody who waits


def _said(done: "Future[dict[str, Any]]") -> dict[str, Any]:
    """The outcome of a future as the fields of a message."""
    if done.cancelled():
        return {"failure": "the other side is stopping"}
    error = done.exception()
    if error is None:
        return {"result": done.result()}
    if isinstance(error, ContractError):
        return {"refusal": [error.code, error.field, error.message]}
    return {"failure": f"{type(error).__name__}: {error}"}


def _settle(future: "Future[dict[str, Any]]", said: dict[str, Any]) -> None:
    if "refusal" in said:
        future.set_exception(ContractError(*said["refusal"]))
    elif "failure" in said:
        future.set_exception(RemoteError(said["failure"]))
    else:
        future.set_result(said["result"])
