"""Signals as something to wait for, so that nothing runs inside a signal handler."""

import contextlib
import select
import signal
import socket

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
"""Asks a server to stop; a second one hurries it."""

RELOAD = signal.SIGHUP
"""Asks for what the Reload call does."""

WOKEN = 0
"""What `Signals.wait` gives after `wake`."""


class Signals:
    """Catches signals of this process from now on. Made in the main thread.

    Args:
        numbers: the signals.
    """

    def __init__(self, *numbers: int) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # The interpreter writes a byte per signal, whichever thread the system gave it to. A handler that sets an Event
        # may interrupt the very thread that holds the Event's lock.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float | None = None) -> int | None:
        """The next signal, or WOKEN; None when none came in time."""
        if not select.select([self._reader], [], [], seconds)[0]:
            return None
        return self._reader.recv(1)[0]

    def wake(self) -> None:
        """Makes `wait` return; for other threads."""
        with contextlib.suppress(BlockingIOError):  # thousands of bytes are there already: nobody sleeps
            self._writer.send(bytes([WOKEN]))
