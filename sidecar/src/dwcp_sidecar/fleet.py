"""A fleet: many model sets, each opened when a series first needs it, at most so many open (rules FL1 to FL7)."""

import logging
from collections.abc import Callable
from pathlib import Path

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet_index import FleetIndex
from dwcp_sidecar.lazy_cache import Counts, LazyCache
from dwcp_sidecar.limits import DEFAULT_MAX_SETS
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.signatures import PublicKeys

_log = logging.getLogger(__name__)


class Fleet:
    """An open fleet: one index, and the sets that are open. Safe to call from several threads.

    Example:
        >>> fleet = Fleet.open("models/fleet")                                              # doctest: +SKIP
        >>> models = fleet.set("link-7")                                                    # doctest: +SKIP
        >>> models.model("isolation_forest").score([[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]])  # doctest: +SKIP

    Attributes:
        id: SHA-256 of `fleet.json` (FL1).
        path: its folder, links resolved.
        index: what it says.
        refused: told of each set that is refused; None for nobody.
    """

    def __init__(
        self,
        index: FleetIndex,
        cache: LazyCache[ModelSet],
        threads: int,
        public_keys: PublicKeys | None,
    ) -> None:
        self.id = index.id
        self.path = index.folder
        self.index = index
        self._cache = cache
        self._threads = threads
        self._public_keys = public_keys
        self.refused: Callable[[ContractError], None] | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        max_sets: int = DEFAULT_MAX_SETS,
        threads: int = 1,
        public_keys: PublicKeys | None = None,
    ) -> "Fleet":
        """Opens the fleet in a folder: reads and checks its index alone (FL6).

        Args:
            path: folder with `fleet.json`, or with a link `current` to one.
            max_sets: most sets that are open (FL5).
            threads: ONNX Runtime threads per model; scores do not depend on it.
            public_keys: accept only sets that one of these has signed (A8); None accepts any.

        Raises:
            ContractError: MANIFEST_MISSING, FILE_MISSING, METADATA_INVALID or SCHEMA_FROM_FUTURE, field `fleet.json`.
        """
        return cls(FleetIndex.read(Path(path)), LazyCache(max_sets), threads, public_keys)

    def reopened(self, path: str | Path) -> "Fleet":
        """The fleet that a folder holds now, with the open sets of this one (FL7). This one stays usable.

        Raises:
            ContractError: as `open`.
        """
        return Fleet(FleetIndex.read(Path(path)), self._cache, self._threads, self._public_keys)

    def take_over(self, former: "Fleet") -> None:
        """Closes the sets of the former index that this one does not name, and tries refused ones again (FL4, FL7)."""
        same = self.index.features == former.index.features
        self._cache.retain(self.index.set_ids() if same else ())

    def set(self, series: str) -> ModelSet:
        """The open model set of a series; opened now if need be. Hold it for a call, not for longer (FL5).

        Raises:
            ContractError: INVALID_REQUEST, UNKNOWN_SERIES or DETECTOR_UNAVAILABLE, field `series` (FL3, FL4).
        """
        id = self.index.set_of(series)
        return self._cache.get(id, lambda: self._open(id))

    def counts(self) -> Counts:
        """How many sets are open, and were opened and closed so far."""
        return self._cache.counts()

    def open_ids(self) -> list[str]:
        """Ids of the sets that are open, the least recently used first."""
        return self._cache.keys()

    def open_set(self, id: str) -> ModelSet:
        """Opens a set of the fleet apart from those that serve, with all that it has: to check it.

        Raises:
            ContractError: as `ModelSet.open`; DIGEST_MISMATCH for another id, METADATA_INVALID for other features.
        """
        return self._opened(id, compact=False)

    def _open(self, id: str) -> ModelSet:
        try:
            return self._opened(id, compact=True)
        except ContractError as error:
            _log.error("model set %s of the fleet is refused: %s", id, error)
            if self.refused is not None:
                self.refused(error)
            what = f"model set {id[:16]} of this series is refused: {error.code}; the server's log says why"
            raise ContractError("DETECTOR_UNAVAILABLE", "series", what) from error

    def _opened(self, id: str, *, compact: bool) -> ModelSet:
        folder = self.index.set_folder(id)
        models = ModelSet.open(folder, threads=self._threads, public_keys=self._public_keys, compact=compact)
        if models.id != id:
            what = f"the set in {folder.name} is {models.id}, the index says {id}. Copy the whole fleet again."
            raise ContractError("DIGEST_MISMATCH", "manifest.json", what)
        for name, metadata in models.metadata.items():
            features = tuple((feature.name, feature.unit) for feature in metadata.feature_schema.features)
            if features != self.index.features:
                what = f"{name} has the features {features}, the fleet {self.index.features}. Train the fleet again."
                raise ContractError("METADATA_INVALID", "feature_schema", what)
        return models
