"""Which files to read: single ones, folders of them, and run folders with their labels and intervals."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.cells import epoch_times, parse_times, text_column
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Intervals
from dwcp_training.data.raw import read_bytes
from dwcp_training.profiles import Profile, Reader

SUFFIXES = (".csv", ".parquet", ".pq", ".npy")
"""Suffixes of the files that can be read."""

TELEMETRY, META, INTERVALS = "telemetry.csv", "meta.json", "trojan_intervals.csv"
"""The files of a run folder; only the first must be there."""

_RUN = re.compile(r"^[0-9][0-9A-Za-z.:+-]*(?:_[0-9][0-9A-Za-z.:+-]*)*_(?P<label>[A-Za-z].*)$")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder says besides its telemetry.

    Attributes:
        name: name of the folder.
        label: from `meta.json`, else from the folder's name; empty when neither has one.
        intervals: when something was wrong; None without such a file.
    """

    name: str
    label: str
    intervals: Intervals | None


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read, and the run that it belongs to, if any."""

    path: Path
    run: Run | None = None

    @property
    def name(self) -> str:
        """What messages call the file: its name, with that of the run's folder where all are called the same."""
        return self.path.name if self.run is None else f"{self.run.name}/{self.path.name}"


def find_sources(paths: str | Path | Sequence[str | Path], profile: Profile) -> list[Source]:
    """The files that `paths` mean: files as given, those of a folder by name.

    Raises:
        DataError: nothing is given or found, a suffix is unknown, or a run's `meta.json` or intervals cannot be read.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not given:
        raise DataError("paths", "no file is given.")
    if profile.reader.format == "runs":
        folders = [folder for path in given for folder in _run_folders(path)]
        return [Source(folder / TELEMETRY, _run(folder, profile)) for folder in folders]
    return [Source(file) for path in given for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not found:
            raise DataError(
                "file",
                f"cannot read {path}: it is a folder without a file to read.",
                f"Known suffixes: {', '.join(SUFFIXES)}.",
                code=DataErrorCode.UNREADABLE,
            )
        return found
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            "file",
            f"{path} has the suffix {path.suffix!r}.",
            f"Known suffixes: {', '.join(SUFFIXES)}.",
            code=DataErrorCode.UNKNOWN_FORMAT,
        )
    return [path]


def _run_folders(path: Path) -> list[Path]:
    if path.name == TELEMETRY:
        path = path.parent
    if (path / TELEMETRY).is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise DataError(
            "file", f"cannot read {path}: it is no run folder.", f"A run folder holds {TELEMETRY}.",
            code=DataErrorCode.UNREADABLE,
        )  # fmt: skip
    found = sorted(folder for folder in path.iterdir() if (folder / TELEMETRY).is_file())
    if not found:
        raise DataError(
            "file",
            f"{path} has no run folder.",
            f"Runs are folders <stamp>_<label>/{TELEMETRY}.",
            code=DataErrorCode.EMPTY,
        )
    return found


def _run(folder: Path, profile: Profile) -> Run:
    label = ""
    if (folder / META).is_file():
        try:
            meta = json.loads(read_bytes(folder / META))
        except ValueError as error:
            raise DataError(
                "meta", f"{folder.name}/{META} is not JSON: {error}.", code=DataErrorCode.NOT_A_TABLE
            ) from None
        if isinstance(meta, dict):
            label = str(meta.get("label", "")).strip()
    named = _RUN.match(folder.name)
    label = label or (named["label"] if named else "")
    intervals = None
    if (folder / INTERVALS).is_file():
        intervals = _intervals(folder, label or "interval", profile.reader)
    return Run(folder.name, label, intervals)


def _intervals(folder: Path, kind: str, reader: Reader) -> Intervals:
    """A file `start,end` without header, in the times of the telemetry; blank lines are skipped."""
    name = f"{folder.name}/{INTERVALS}"
    text = read_bytes(folder / INTERVALS).decode("utf-8", errors="replace")
    lines = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if any(map(str.strip, row))]
    for number, row in lines:
        if len(row) < 2:
            raise DataError(
                "intervals", f"{name} line {number}: wanted start,end, found {','.join(row)!r}.",
                code=DataErrorCode.BAD_INTERVALS,
            )  # fmt: skip
    start, end = (_times(name, [row[k] for _, row in lines], reader) for k in (0, 1))
    for at in np.flatnonzero(~(end >= start))[:1]:  # a comparison with NaT is false
        number, row = lines[int(at)]
        raise DataError(
            "intervals",
            f"{name} line {number}: {row[0]!r} to {row[1]!r} is not an interval of times that ends after it starts.",
            f"Write start,end without a header, in the unit of the telemetry's times ({reader.timestamp_format}).",
            code=DataErrorCode.BAD_INTERVALS,
        )
    return Intervals(start, end, (kind,) * len(start))


def _times(name: str, cells: list[str], reader: Reader) -> NDArray[np.datetime64]:
    column = text_column(cells)
    if reader.timestamp_format == "iso":
        return parse_times(name, "interval", column).values
    return epoch_times(name, "interval", column, reader.timestamp_format).values


def series_names(sources: Sequence[Source]) -> list[str]:
    """A name for the series of each file: that of its run or of the file, with its folders where two would be alike."""
    names = [source.run.name if source.run is not None else source.path.name for source in sources]
    return [name if names.count(name) == 1 else str(source.path) for name, source in zip(names, sources, strict=True)]
