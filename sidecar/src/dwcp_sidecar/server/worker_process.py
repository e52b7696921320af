"""A worker as its supervisor sees it: a process, and the channel to it."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from typing import Any

from dwcp_sidecar.server.control import Channel, Handler

_MODULE = "dwcp_sidecar.server.worker"


class WorkerProcess:
    """A fresh interpreter, not a fork: gRPC and forks do not go together.

    Args:
        order: fields of the note `serve`.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: modules are not looked for in the current folder.
            command = [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._channel = Channel(ours)
        self.tell = self._channel.tell
        self._channel.tell("serve", **order)

    def ask(self, name: str, **fields: Any) -> "Future[dict[str, Any]]":
        """As `Channel.ask`."""
        return self._channel.ask(name, **fields)

    def run(self, handle: Handler) -> str:
        """Hands on what the worker says until it has ended.

        Returns:
            How it ended, in words.
        """
        self._channel.run(handle)
        self._channel.close()
        try:
            status = self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:  # a process that nobody can talk to is of no use
            self._process.kill()
            status = self._process.wait()
        return f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"

    def kill(self) -> None:
        """Ends it at once."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)


_LAST_SECONDS = 5.0
"""What a worker may take to end after it closed its channel."""
