"""A model set on its way into use: opened beside the live one, then swapped in or dropped (rules R1, R2, R4)."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from dwcp_sidecar.model_set import ModelSet, identify, resolve, verify
from dwcp_sidecar.server import memory
from dwcp_sidecar.server.live import Live
from dwcp_sidecar.server.reload import Outcome
from dwcp_sidecar.signatures import PublicKeys

_SWITCH_SECONDS = 0.0005
"""Longest time that opening keeps Python to itself before a call gets its turn; 5 ms is usual. The price is some 3 % of
the speed of all threads, so it is paid while a set is opened alone."""


class Candidate:
    """The set that may take the place of the live one. For one thread at a time.

    Args:
        live: the set in use.
        public_keys: one of these must have signed a set (A8); None asks for no signature.
    """

    def __init__(self, live: Live, public_keys: PublicKeys | None = None) -> None:
        self._live = live
        self._public_keys = public_keys
        self._models: ModelSet | None = None

    def prepare(self, folder: Path) -> tuple[str, Path]:
        """Opens what a folder holds, in the place of a former candidate. Calls go on meanwhile.

        Returns:
            Its id, and the folder where its files really are. The id may be that of the live set: then there is no
            candidate, and only the digests of the files were checked.

        Raises:
            ContractError: it is refused; there is no candidate then.
        """
        self._models = None
        with _quick_switches():
            folder = resolve(folder)
            id = identify(folder)
            if id == self._live.models.id:
                verify(folder, self._public_keys)
                return id, folder
            self._models = ModelSet.open(folder, public_keys=self._public_keys)
            return self._models.id, folder

    def commit(self) -> Outcome:
        """Puts the candidate into use, if there is one."""
        models, self._models = self._models, None
        changed = models is not None and models.id != self._live.models.id
        if models is not None and changed:
            self._live.swap(models)
        del models
        memory.give_back()
        return Outcome(self._live.models.id, changed)

    def abort(self) -> None:
        """Drops the candidate."""
        self._models = None
        memory.give_back()


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
