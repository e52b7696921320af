"""`fleet.json`: which series is scored by which model set (rules FL1, FL3, FL6)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dwcp.anomaly.v1 import fleet_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.audit.checks import requirement
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.limits import MAX_SERIES_BYTES

INDEX = "fleet.json"
"""Name of the index; a folder that has it is a fleet."""

SETS = "sets"
"""Folder of the model sets, beside the index."""

_CURRENT = "current"
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class FleetIndex:
    """An index that was read and checked.

    Attributes:
        id: SHA-256 of the bytes of `fleet.json` (FL1).
        folder: where they were, links resolved.
        features: name and unit of each feature, in the order of the schema.
        series: name to id of the model set.
        global_set_id: the set of series that are not listed; empty when there is none (FL3).
    """

    id: str
    folder: Path
    features: tuple[tuple[str, str], ...]
    series: Mapping[str, str]
    global_set_id: str

    @classmethod
    def read(cls, path: Path) -> "FleetIndex":
        """Reads the index of the fleet in a folder.

        Raises:
            ContractError: MANIFEST_MISSING, FILE_MISSING, METADATA_INVALID or SCHEMA_FROM_FUTURE, field `fleet.json`.
        """
        index, id = read_message(path)
        ids: dict[str, str] = {}  # many series share one set: one string for each
        return cls(
            id=id,
            folder=resolve(path),
            features=tuple((feature.name, feature.unit) for feature in index.feature_schema.features),
            series={one.name: ids.setdefault(one.model_set_id, one.model_set_id) for one in index.series},
            global_set_id=index.global_set_id,
        )

    def set_of(self, series: str) -> str:
        """The id of the set that scores a series (FL3).

        Raises:
            ContractError: INVALID_REQUEST or UNKNOWN_SERIES, field `series`.
        """
        found = self.series.get(series) or _checked(series, self.global_set_id)
        if not found:
            what = f"the fleet has no series {series[:64]!r}, and no set for those that it does not list"
            raise ContractError("UNKNOWN_SERIES", "series", what)
        return found

    def set_ids(self) -> set[str]:
        """Ids of all sets."""
        return {*self.series.values(), *([self.global_set_id] if self.global_set_id else [])}

    def set_folder(self, id: str) -> Path:
        """Where the set of an id is."""
        return self.folder / SETS / id[:16]


def read_message(path: Path) -> tuple[fleet_pb2.FleetIndex, str]:
    """The index of the fleet in a folder as its message, checked (FL6), and the fleet's id.

    Raises:
        ContractError: as `FleetIndex.read`.
    """
    try:
        raw = (resolve(path) / INDEX).read_bytes()
    except FileNotFoundError:
        what = f"{path} is no fleet: it has no {INDEX}. Name the folder that `dwcp fleet train` wrote."
        raise ContractError("MANIFEST_MISSING", INDEX, what) from None
    except OSError as error:
        what = f"{INDEX} cannot be read: {error.strerror}. Give this user the right to read it."
        raise ContractError("FILE_MISSING", INDEX, what) from None
    index = protojson.parse(raw, fleet_pb2.FleetIndex(), INDEX)
    check_index(index)
    return index, hashlib.sha256(raw).hexdigest()


def check_series(series: str) -> None:
    """Refuses a name that is too long for any server (FL3).

    Raises:
        ContractError: INVALID_REQUEST, field `series`.
    """
    size = len(series) if series.isascii() else len(series.encode())
    if size > MAX_SERIES_BYTES:
        what = f"a name of {size} bytes; at most {MAX_SERIES_BYTES} fit"
        raise ContractError("INVALID_REQUEST", "series", what)


def is_fleet(path: Path) -> bool:
    """Whether a folder is a fleet, and not a model set."""
    return (resolve(path) / INDEX).is_file()


def resolve(path: Path) -> Path:
    """The folder of the index: where `current` leads to, if it is a link (FL1)."""
    current = path / _CURRENT
    return (current if current.is_symlink() else path).resolve()


def _checked(series: str, found: str) -> str:
    check_series(series)
    if not series:
        what = "this server has a fleet: say which series the samples are of"
        raise ContractError("INVALID_REQUEST", "series", what)
    return found


def check_index(index: fleet_pb2.FleetIndex) -> None:
    """Checks an index alone (FL6).

    Raises:
        ContractError: METADATA_INVALID or SCHEMA_FROM_FUTURE, field `fleet.json`.
    """
    require = requirement("METADATA_INVALID", INDEX)
    protojson.require_known_version(index.schema_version, INDEX)
    require(index.schema_version == protojson.SCHEMA_VERSION, f"schema_version is {index.schema_version}")
    names = [feature.name for feature in index.feature_schema.features]
    require(len(names) > 0, "feature_schema has no features")
    require(all(names) and len(set(names)) == len(names), "feature_schema has a feature without name, or one twice")
    known = set(fleet_pb2.FleetOrigin.values()) - {fleet_pb2.FLEET_ORIGIN_UNSPECIFIED}
    last = b""
    for i, series in enumerate(index.series):
        name, at = series.name.encode(), f"series[{i}]"
        # The first name is compared with an empty one: so an empty name is refused, too.
        require(name > last, f"{at}.name {series.name[:64]!r} is empty, there twice or not in ascending order")
        require(len(name) <= MAX_SERIES_BYTES, f"{at}.name has {len(name)} bytes, more than {MAX_SERIES_BYTES}")
        right = _ID.fullmatch(series.model_set_id) is not None
        require(right, f"{at}.model_set_id {series.model_set_id[:80]!r} is not 64 hexadecimal digits")
        require(series.origin in known, f"{at}.origin is {series.origin}, which is unknown")
        last = name
    right = not index.global_set_id or _ID.fullmatch(index.global_set_id) is not None
    require(right, f"global_set_id {index.global_set_id[:80]!r} is not 64 hexadecimal digits")
