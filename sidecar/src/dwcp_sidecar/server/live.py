"""The model set in use, and its replacement between calls (R2)."""

import threading
from collections.abc import Callable

from dwcp_sidecar.model_set import ModelSet


class Live:
    """Holds the model set in use.

    A call reads `models` once and works with what it got: an answer comes whole from one set.

    Attributes:
        models: the set in use.
    """

    def __init__(self, models: ModelSet) -> None:
        self.models = models
        self._lock = threading.Lock()
        self._listeners: list[Callable[[ModelSet], None]] = []

    def listen(self, listener: Callable[[ModelSet], None]) -> None:
        """Calls `listener` with the set in use now, and after every swap."""
        with self._lock:
            self._listeners.append(listener)
            listener(self.models)

    def swap(self, models: ModelSet) -> None:
        """Puts an open set in the place of the live one."""
        with self._lock:
            self.models = models
            for listener in self._listeners:
                listener(models)
