"""The model set or fleet in use, and its replacement between calls (R2, FL7)."""

import threading
from collections.abc import Callable
from pathlib import Path

from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.fleet_index import check_series, is_fleet
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.settings import Settings

Served = ModelSet | Fleet
"""What a server answers with."""


def open_served(folder: Path, settings: Settings) -> Served:
    """Opens the model set or the fleet that a folder holds.

    Raises:
        ContractError: as `ModelSet.open`, `Fleet.open`.
    """
    if is_fleet(folder):
        return Fleet.open(folder, max_sets=settings.max_sets, public_keys=settings.public_keys)
    return ModelSet.open(folder, public_keys=settings.public_keys)


def chosen(served: Served, series: str) -> ModelSet:
    """The set that scores a series (FL2, FL3).

    Raises:
        ContractError: INVALID_REQUEST, UNKNOWN_SERIES or DETECTOR_UNAVAILABLE, field `series`.
    """
    if isinstance(served, Fleet):
        return served.set(series)
    check_series(series)
    return served


class Live:
    """Holds the model set or fleet in use.

    A call reads `models` once and works with what it got: an answer comes whole from one set.

    Attributes:
        models: what is in use.
    """

    def __init__(self, served: Served) -> None:
        self.models = served
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Served], None]] = []

    def listen(self, listener: Callable[[Served], None]) -> None:
        """Calls `listener` with what is in use now, and after every swap."""
        with self._lock:
            self._listeners.append(listener)
            listener(self.models)

    def swap(self, served: Served) -> None:
        """Puts an open set or fleet in the place of the live one."""
        with self._lock:
            former, self.models = self.models, served
            if isinstance(served, Fleet) and isinstance(former, Fleet):
                served.take_over(former)
            for listener in self._listeners:
                listener(served)
