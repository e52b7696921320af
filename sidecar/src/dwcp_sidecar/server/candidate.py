"""A model set or fleet on its way into use: opened beside the live one, swapped in or dropped (R1, R2, R4, FL7)."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.fleet_index import is_fleet
from dwcp_sidecar.model_set import identify, resolve, verify
from dwcp_sidecar.server import memory
from dwcp_sidecar.server.live import Live, Served, open_served
from dwcp_sidecar.server.reload import Outcome
from dwcp_sidecar.server.settings import Settings

_SWITCH_SECONDS = 0.0005
"""Longest time that opening keeps Python to itself before a call gets its turn; 5 ms is usual. The price is some 3 % of
the speed of all threads, so it is paid while a set is opened alone."""


class Candidate:
    """The set that may take the place of the live one. For one thread at a time.

    Args:
        live: what is in use.
        settings: say which signatures are asked for (A8), and how many sets of a fleet are open.
    """

    def __init__(self, live: Live, settings: Settings) -> None:
        self._live = live
        self._settings = settings
        self._served: Served | None = None

    def prepare(self, folder: Path) -> tuple[str, Path]:
        """Opens what a folder holds, in the place of a former candidate. Calls go on meanwhile.

        Returns:
            Its id, and the folder where its files really are. The id may be that of the live set or fleet: then there
            is no candidate, and only the digests of the files were checked.

        Raises:
            ContractError: it is refused; there is no candidate then.
        """
        self._served = None
        live = self._live.models
        with _quick_switches():
            if is_fleet(folder):
                found = live.reopened(folder) if isinstance(live, Fleet) else open_served(folder, self._settings)
                if found.id != live.id:
                    self._served = found
                return found.id, found.path
            folder = resolve(folder)
            id = identify(folder)
            if id == live.id:
                verify(folder, self._settings.public_keys)
                return id, folder
            self._served = open_served(folder, self._settings)
            return self._served.id, folder

    def commit(self) -> Outcome:
        """Puts the candidate into use, if there is one."""
        served, self._served = self._served, None
        changed = served is not None and served.id != self._live.models.id
        if served is not None and changed:
            self._live.swap(served)
        del served
        memory.give_back()
        return Outcome(self._live.models.id, changed)

    def abort(self) -> None:
        """Drops the candidate."""
        self._served = None
        memory.give_back()


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
