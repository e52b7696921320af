"""How every set of a fleet is trained: what all workers share, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.data import DataError, Exclusion, Telemetry, read_table
from dwcp_training.data.layout import layout_of
from dwcp_training.fleet.partitions import Partition, digest
from dwcp_training.pipeline import LIBRARIES
from dwcp_training.profiles import Feature, Profile

MOST_LOOKED_AT = 1_000
"""Series of which a file is looked at to find the metrics, where the profile does not list them."""


@dataclass(frozen=True)
class Recipe:
    """What does not depend on the series.

    Attributes:
        fleet: folder of the fleet.
        profile: of `link_profile`.
        detectors: names; all of them stand in each set.
        settings: hyperparameters of each.
        seed: of samples and clusters.
        min_rows: a series with fewer has no set of its own.
        alarm_budget: says where thresholds are; None leaves it to the settings.
        on_bad_rows: `fail` or `drop`.
        exclude: which rows are not confirmed normal.
        drift: make drift references.
        sign_key: PEM file of the private key that signs the sets (A8), or None.
    """

    fleet: Path
    profile: Profile
    detectors: tuple[str, ...]
    settings: dict[str, Any]
    seed: int = 42
    min_rows: int = 1_000
    alarm_budget: AlarmBudget | None = None
    on_bad_rows: str = "fail"
    exclude: Exclusion = field(default_factory=Exclusion)
    drift: bool = False
    sign_key: Path | None = None

    def digest(self) -> str:
        """SHA-256 over all that decides what comes of some data: settings, libraries, the intervals left out."""
        libraries = {}
        for library in (*LIBRARIES, "dwcp-training"):
            with suppress(PackageNotFoundError):
                libraries[library] = version(library)
        said = {
            "profile": self.profile.model_dump(mode="json"),
            "detectors": self.detectors,
            "settings": {name: settings.model_dump(mode="json") for name, settings in self.settings.items()},
            "seed": self.seed,
            "min_rows": self.min_rows,
            "alarm_budget": str(self.alarm_budget),
            "on_bad_rows": self.on_bad_rows,
            "exclude": [digest(Path(str(file))) for file in self.exclude.intervals],
            "exclude_rows": [self.exclude.grace_seconds, self.exclude.label_column, list(self.exclude.normal_labels)],
            "drift": self.drift,
            "libraries": libraries,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def key(self, partitions: Sequence[Partition]) -> str:
        """Digest of the settings and of the bytes of all files of some series.

        Raises:
            OSError: a file cannot be read.
        """
        whole = hashlib.sha256(self.digest().encode())
        for partition in partitions:
            for file, path in zip(partition.files, partition.paths, strict=True):
                whole.update(f"\n{file}\n{digest(path)}".encode())
        return whole.hexdigest()

    def read(self, partition: Partition) -> Telemetry:
        """The confirmed-normal rows of a series. Raises `DataError` as `read_table` does."""
        return read_table(
            partition.paths, self.profile, on_bad_rows=self.on_bad_rows, exclude=self.exclude, normal_only=True
        )  # type: ignore[arg-type]  # on_bad_rows is checked by read_table


def link_profile(profile: Profile, by: str, partitions: Sequence[Partition]) -> Profile:
    """The profile for one series at a time: its files are one series, and its metrics are those of all series.

    Where the profile leaves the metrics to the data, they are the numeric columns that most series have.

    Raises:
        DataError: the profile is of run folders, or no series has a numeric column.
    """
    reader = profile.reader
    if reader.format == "runs":
        raise DataError("profile", "it describes run folders; a fleet is trained on Parquet.", "Name another one.")
    reader = reader.model_copy(
        update={"series": "joined", "series_column": None, "metadata": tuple(dict.fromkeys([*reader.metadata, by]))}
    )
    profile = profile.model_copy(update={"reader": reader})
    if reader.features == "listed":
        return profile
    found: dict[tuple[tuple[str, str], ...], int] = {}
    fault: DataError | None = None
    others = [name for name in (reader.label_column, profile.timestamp_column) if name is not None]
    step = -(-len(partitions) // MOST_LOOKED_AT)
    for partition in partitions[::step]:
        try:
            layout = layout_of(partition.paths[0], profile, others)
        except DataError as error:
            fault = error
            continue
        columns = tuple(zip(layout.schema.names, layout.columns, strict=True))
        found[columns] = found.get(columns, 0) + 1
    if not found:
        raise fault or DataError("data", "there is no series.")
    columns = max(found, key=lambda layout: found[layout])
    features = tuple(Feature(name=name, unit="") for name, _ in columns)
    return profile.model_copy(
        update={
            "feature_schema": profile.feature_schema.model_copy(update={"features": features}),
            "reader": reader.model_copy(update={"features": "listed", "columns": dict(columns)}),
        }
    )
