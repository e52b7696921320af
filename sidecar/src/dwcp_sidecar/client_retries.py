"""When a failed call is sent again, and when not.

Scoring has no effects, so a call that scored nothing, or whose answer was lost, may be sent again: UNAVAILABLE,
RESOURCE_EXHAUSTED, and CANCELLED without the caller's doing. A refusal may not, nor a call whose deadline has passed.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from dwcp_sidecar.client_connections import Connection, Connections

RETRIES = 3
"""How often a call is sent again at most, unless the client is told otherwise."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.010, 1.0
_FULL, _COST, _EARNED = 10.0, 1.0, 0.1

_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}

Answer = TypeVar("Answer")


class Budget:
    """Allows ten retries at once, and for long one for every ten calls that succeed: a server that is overloaded is not
    asked more for it."""

    def __init__(self) -> None:
        self._left = _FULL
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._left = min(self._left + _EARNED, _FULL)

    def spend(self) -> bool:
        with self._lock:
            if self._left < _COST - 1e-9:  # ten tenths are a whole
                return False
            self._left -= _COST
            return True


class Caller:
    """Sends calls over connections, again where that is safe.

    Args:
        connections: to choose from.
        retries: how often a call is sent again at most.

    Attributes:
        attempts: calls sent.
        retried: those among them that were sent again.
    """

    def __init__(self, connections: Connections, retries: int) -> None:
        self._connections = connections
        self._retries = retries
        self._budget = Budget()
        self._count = threading.Lock()
        self.attempts = 0
        self.retried = 0

    def call(self, send: Callable[[Connection, float], Answer], timeout: float) -> Answer:
        """Sends until an answer comes.

        Args:
            send: does one attempt, over a connection, within seconds.
            timeout: seconds for all attempts and the pauses between them.

        Raises:
            grpc.RpcError: the last attempt's failure.
        """
        deadline = time.monotonic() + timeout
        last = None
        for attempt in range(self._retries + 1):
            connection = self._connections.take(last)
            failure = None
            try:
                answer = send(connection, max(deadline - time.monotonic(), 0.0))
            except grpc.RpcError as error:
                failure = error
            finally:
                self._connections.give_back(
                    connection, failed=failure is not None and failure.code() == grpc.StatusCode.UNAVAILABLE
                )
                with self._count:
                    self.attempts += 1
                    self.retried += attempt > 0
            if failure is None:
                self._budget.earn()
                return answer
            if attempt == self._retries or failure.code() not in _AGAIN:
                raise failure
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            if time.monotonic() + pause >= deadline or not self._budget.spend():
                raise failure
            time.sleep(pause)
            last = connection
        raise AssertionError("the last attempt returns or raises")
