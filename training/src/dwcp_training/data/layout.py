"""Which columns of the data are the features: those that the profile lists, or every one that holds numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dwcp_training.data.cells import parse_numbers
from dwcp_training.data.csv_table import csv_columns, read_csv_table
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.npy_table import npy_width
from dwcp_training.data.parquet_table import parquet_schema
from dwcp_training.profiles import Feature, FeatureSchema, Profile

_FAR = 1e300
"""Largest limit that is derived from data, so that doubling it stays finite."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The features of some data: `schema`, and for each feature its column in the files."""

    schema: FeatureSchema
    columns: tuple[str, ...]


def layout_of(path: Path, profile: Profile, others: Sequence[str]) -> Layout:
    """The features of the profile, or, where it leaves them to the data, the numeric columns of the file `path`.

    A column of text counts as numeric when at least half of its cells that are not empty are numbers, so that a few
    bad cells are reported as such. An empty column counts too, and is refused later (`read_table`).

    Args:
        path: the first file.
        profile: says which columns are never features.
        others: further columns that are none: labels, series and the like.

    Raises:
        DataError: the file cannot be read, has no numeric column, or has two whose names differ in punctuation only.
    """
    schema, reader = profile.feature_schema, profile.reader
    if reader.features == "listed":
        return Layout(schema, tuple(reader.column(name) for name in schema.names))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        columns = [f"x{j}" for j in range(npy_width(path))]
    else:
        never = [*others, *reader.metadata, *([profile.timestamp_column] if profile.timestamp_column else [])]

        def candidates(names: Sequence[str]) -> list[str]:
            return [name for name in names if not any(name == item or fnmatchcase(name, item) for item in never)]

        if suffix == ".csv":
            columns = candidates(csv_columns(path, reader.delimiter))
            table = read_csv_table(path, columns, delimiter=reader.delimiter) if columns else None
            columns = [name for name in columns if table is not None and _mostly_numbers(path, name, table.cells[name])]
        else:
            fields = parquet_schema(path)
            columns = [name for name in candidates(fields.names) if _is_number(fields.field(name).type)]
    if not columns:
        raise DataError(
            "features",
            f"{path.name} has no column of numbers besides {', '.join(reader.metadata) or 'times and labels'}.",
            f"Correct reader.metadata of the profile, or reader.delimiter, which is {reader.delimiter!r}.",
            code=DataErrorCode.MISSING_COLUMN,
        )
    renamed = {column: feature for feature, column in reader.columns.items()}
    names = [renamed.get(column) or feature_name(column) for column in columns]
    for name in names:
        alike = [column for column, other in zip(columns, names, strict=True) if other == name]
        if len(alike) > 1:
            raise DataError(
                name,
                f"the columns {', '.join(map(repr, alike))} of {path.name} would all be the feature {name!r}.",
                "Name them in reader.columns of the profile.",
                code=DataErrorCode.WRONG_COLUMN,
            )
    features = tuple(Feature(name=name, unit="") for name in names)
    return Layout(schema.model_copy(update={"features": features}), tuple(columns))


def completed(schema: FeatureSchema, values: NDArray[np.float64]) -> FeatureSchema:
    """`schema` with the limits that it lacks taken from normal data, float64 ``[n, F]`` with at least one row.

    Warning and critical lie 4 and 8 standard deviations above the mean, or halfway and all the way to a given maximum
    that is nearer. The plausible range is that of the data, widened on both sides by ten times its width.
    """
    if all(None not in (f.minimum, f.maximum, f.warning, f.critical) for f in schema.features):
        return schema
    features = tuple(_completed(feature, values[:, j]) for j, feature in enumerate(schema.features))
    return schema.model_copy(update={"features": features})


def guessed_limits(schema: FeatureSchema) -> frozenset[str]:
    """Metrics whose warning and critical values `completed` takes from the data, because one of them is not given."""
    return frozenset(f.name for f in schema.features if f.warning is None or f.critical is None)


def _completed(feature: Feature, column: NDArray[np.float64]) -> Feature:
    column = np.clip(column, -_FAR, _FAR)
    low, high = float(column.min()), float(column.max())
    size = max(abs(low), abs(high)) or 1.0  # mean and deviation of numbers up to 1: their squares do not overflow
    mean, spread = float((column / size).mean()) * size, float((column / size).std()) * size
    spread = spread or max(abs(mean), 1.0)
    warning, critical = feature.warning, feature.critical
    if warning is None or critical is None:
        room = np.inf if feature.maximum is None else feature.maximum - mean
        if room > 0:
            warning, critical = mean + min(4 * spread, room / 2), mean + min(8 * spread, room)
        else:  # always at its maximum: only less can be bad
            room = np.inf if feature.minimum is None else mean - feature.minimum
            warning, critical = mean - min(4 * spread, room / 2), mean - min(8 * spread, room)
    reach = 10 * ((high - low) or max(abs(high), 1.0))
    minimum = feature.minimum if feature.minimum is not None else min(low - reach, warning, critical)
    maximum = feature.maximum if feature.maximum is not None else max(high + reach, warning, critical)
    return Feature(
        name=feature.name, unit=feature.unit, minimum=minimum, maximum=maximum, warning=warning, critical=critical
    )


def feature_name(column: str) -> str:
    """A column as the name of a feature: letters, digits and underscores."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_") or "column"
    return f"_{name}" if name[0].isdigit() else name


def _mostly_numbers(path: Path, name: str, column: pa.ChunkedArray) -> bool:
    numbers = parse_numbers(path.name, name, column)
    filled = ~numbers.empty
    return bool(2 * (filled & ~numbers.text).sum() >= filled.sum())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
