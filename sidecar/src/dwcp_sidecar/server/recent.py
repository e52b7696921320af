"""The last rows that each detector was asked to score, compared with its training rows when somebody looks (DR6)."""

import threading
from collections.abc import Iterator, Mapping

import numpy as np

from dwcp_sidecar.drift import FeatureDrift, Reference, Sketch, references
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.server.live import Served
from dwcp_sidecar.server.settings import DEFAULT_WINDOW

LARGEST = 1 << 20
"""Numbers that are kept of a detector, however wide its rows are: 8 MiB."""


class Rows:
    """The last rows of one detector. Safe to call from several threads.

    They are kept as they came, in a ring, and counted when somebody looks: a call pays for one copy alone, a third of a
    microsecond, and no sum is ever corrected for a row that leaves.

    Args:
        reference: what they are compared with.
        window: how many are kept.
    """

    def __init__(self, reference: Reference, window: int) -> None:
        width = len(reference.names)
        self._reference = reference
        self._room = min(window, max(1, LARGEST // width))
        self._values = np.empty((self._room, width))  # memory comes with the rows
        self._lock = threading.Lock()
        self._next = self._count = self._added = 0
        self._comparing = threading.Lock()
        self._compared, self._found = -1, list[FeatureDrift]()

    def add(self, row: np.ndarray) -> None:
        """Takes one scored row, float64 `[features]`."""
        with self._lock:
            at = self._next
            self._values[at] = row
            self._next = at + 1 if at + 1 < self._room else 0
            if self._count < self._room:
                self._count += 1
            self._added += 1

    def add_all(self, rows: np.ndarray) -> None:
        """Takes several, float64 `[n, features]`, oldest first."""
        kept = rows[-self._room :]
        with self._lock:
            first = min(len(kept), self._room - self._next)
            self._values[self._next : self._next + first] = kept[:first]
            self._values[: len(kept) - first] = kept[first:]
            self._next = (self._next + len(kept)) % self._room
            self._count = min(self._count + len(kept), self._room)
            self._added += len(rows)

    def compare(self) -> tuple[int, list[FeatureDrift]]:
        """How many rows there are and, when they are enough, how far each feature is from the training rows."""
        with self._comparing:
            with self._lock:
                count, added = self._count, self._added
                if count < self._reference.least:
                    return count, []
                if added == self._compared:
                    return count, self._found
                rows = self._values[:count].copy()  # in any order: a distribution has none
            self._found = self._reference.compare(Sketch(self._reference).add(rows))
            self._compared = added
            return count, self._found


class Recent:
    """The last rows of all detectors of the set in use that have a reference.

    Args:
        window: how many are kept of each; 0 for none.
    """

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        self._window = window
        self._rows: Mapping[Scorer, Rows] = {}

    def use(self, models: Served) -> None:
        """Starts anew with a model set. Of the sets of a fleet nothing is kept (FL9)."""
        if not isinstance(models, ModelSet):
            self._rows = {}
            return
        found: dict[str, Reference] = {}
        if self._window > 0:
            found = references({name: model.metadata for name, model in models.models.items()}, models.models)
        self._rows = {models.models[name]: Rows(reference, self._window) for name, reference in found.items()}

    def add(self, model: Scorer, row: np.ndarray) -> None:
        """Takes the last sample of a scored item, float64 `[features]`; nothing where the model is in use no more."""
        rows = self._rows.get(model)
        if rows is not None:
            rows.add(row)

    def add_all(self, model: Scorer, rows: np.ndarray) -> None:
        """Takes those of several items, float64 `[n, features]`."""
        kept = self._rows.get(model)
        if kept is not None:
            kept.add_all(rows)

    def compare(self) -> Iterator[tuple[str, int, list[FeatureDrift]]]:
        """Of each detector with a reference: its name, the number of rows, and how far its features are, if they are
        enough."""
        for model, rows in self._rows.items():
            yield model.name, *rows.compare()
