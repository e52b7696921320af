"""Sends alarms to an Alertmanager, in a thread of its own, so that waiting for it delays no score.

Attempts are bounded in number and time, and so is what waits. An alarm that could not be sent is handed back, never
dropped without a word.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from dwcp_training.monitor.alarms import Alarm
from dwcp_training.monitor.web import EndpointError, call

ATTEMPTS = 5
"""How often a post is tried."""

TIMEOUT = 5.0
"""Seconds that an attempt may take."""

MOST_WAITING = 10_000
"""Alarms that wait to be sent; one more is handed back at once."""

AT_ONCE = 100
"""Most alarms in a post."""

_FIRST_PAUSE = 0.5  # doubled after every attempt

Lost = Callable[[Alarm, str], None]
"""Told about an alarm that was not sent, and why."""


class Forwarder:
    """Posts alarms to ``/api/v2/alerts``.

    Args:
        address: of the Alertmanager, without a slash at its end.
        model_set: id of the set that finds the alarms.
        lost: is told what was not sent; from this thread or from the caller's.

    Attributes:
        sent, lost_count: alarms so far.
    """

    def __init__(self, address: str, model_set: str, lost: Lost) -> None:
        self._url = f"{address}/api/v2/alerts"
        self._model_set, self._lost = model_set, lost
        self._waiting: deque[Alarm] = deque()
        self._changed = threading.Condition()
        self._end: float | None = None  # monotonic time until which is tried, once it is closed
        self.sent = self.lost_count = 0
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def send(self, alarm: Alarm) -> None:
        """Takes an alarm."""
        with self._changed:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(alarm)
                self._changed.notify()
                return
        self._give_up([alarm], f"{MOST_WAITING:,} others wait already")

    def close(self, seconds: float = 10.0) -> None:
        """Sends what waits, for some seconds at most, and hands back the rest."""
        with self._changed:
            self._end = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and self._end is None:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                self._post(batch)
            except EndpointError as error:
                self._give_up(batch, str(error))
            else:
                self.sent += len(batch)

    def _post(self, batch: list[Alarm]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = json.dumps([alarm.alert(now, self._model_set) for alarm in batch]).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                call("POST", self._url, body, max(0.1, min(TIMEOUT, self._left())))
                return
            except EndpointError as error:
                pause = _FIRST_PAUSE * 2 ** (attempt - 1)
                if not error.again or attempt == ATTEMPTS or self._left() <= pause:
                    tried = f", tried {attempt} times" if attempt > 1 else ""
                    raise EndpointError(error.address, error.message + tried, again=False) from None
                self._pause(pause)

    def _left(self) -> float:
        return float("inf") if self._end is None else self._end - time.monotonic()

    def _pause(self, seconds: float) -> None:
        """Waits, but not longer than there is time once this is closed."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left := min(end - time.monotonic(), self._left())) > 0:
                self._changed.wait(left)

    def _give_up(self, batch: list[Alarm], reason: str) -> None:
        self.lost_count += len(batch)
        for alarm in batch:
            self._lost(alarm, reason)
