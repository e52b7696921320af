"""Arrays from people: checked, named, and made into telemetry."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from dwcp_training.data.advice import warnings_about
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.layout import completed
from dwcp_training.data.report import Report
from dwcp_training.data.telemetry import Segments, Telemetry
from dwcp_training.profiles import Feature, FeatureSchema, Profile

_ITEMS_AT_ONCE = 4096
"""Rows or sequences that are checked at once: overlapping sequences share their memory, what is computed does not."""


def table(X: ArrayLike, argument: str, sequence_length: int | None, names: Sequence[str] = ()) -> NDArray[np.float64]:
    """`X` as float64, without a copy where it is that already.

    Args:
        X: rows `[n, features]`, or sequences `[n, sequence_length, features]` where `sequence_length` is given.
        argument: its name, for errors.
        names: of the features, where they are known.

    Raises:
        DataError: it is no such array, is empty, has another width, or holds a number that is not finite (F3).
    """
    try:
        values = np.asarray(X, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            argument, f"it is no array of numbers: {error}.", "Give numbers, in rows of one length."
        ) from None
    wanted = "[n, features]" if sequence_length is None else f"[n, features] or [n, {sequence_length}, features]"
    if values.ndim != 2 and not (values.ndim == 3 and sequence_length is not None):
        remedy = "A single row is X.reshape(1, -1)." if values.ndim == 1 else "Give one array with all rows."
        raise DataError(argument, f"its shape is {list(values.shape)}; wanted is {wanted}.", remedy)
    if values.size == 0:
        raise DataError(argument, "it is empty.", "Give at least one row.", code=DataErrorCode.EMPTY)
    if names and values.shape[-1] != len(names):
        raise DataError(
            argument,
            f"{values.shape[-1]} columns; the detector has {len(names)} features: {', '.join(names[:8])}"
            + (", ..." if len(names) > 8 else "."),
            "Give the columns of training, in their order.",
            code=DataErrorCode.WRONG_COLUMN,
        )
    if values.ndim == 3 and values.shape[1] != sequence_length:
        raise DataError(
            argument,
            f"sequences of {values.shape[1]} rows; the detector's have {sequence_length}.",
            f"Make them with create_sequences(X, y, sequence_length={sequence_length}).",
        )
    _check_finite(values, argument, names)
    return values


def _check_finite(values: NDArray[np.float64], argument: str, names: Sequence[str]) -> None:
    parts = (values[start : start + _ITEMS_AT_ONCE] for start in range(0, len(values), _ITEMS_AT_ONCE))
    if all(np.isfinite(part).all() for part in parts):
        return
    finite = np.isfinite(values)
    *where, column = (int(index) for index in np.argwhere(~finite)[0])
    name = names[column] if names else f"column {column}"
    if not finite[..., column].any():
        message, remedy = f"{name} has no finite number at all.", "Leave the column out."
    else:
        place = ", ".join(map(str, where))
        bad = int((~finite).sum())
        message = f"{name} is {values[(*where, column)]} in row {place}; {bad:,} numbers are not finite."
        remedy = "Leave these rows out: a gap is no value."
    raise DataError(argument, message, remedy, code=DataErrorCode.BAD_ROWS)


def schema_for(width: int, feature_names: Sequence[str] | None, profile: Profile) -> FeatureSchema:
    """The features of rows with `width` columns: those named, or those of the profile, or `x0`, `x1` and so on.

    Raises:
        DataError: there are more or fewer names than columns, or a name cannot be one.
    """
    schema = profile.feature_schema
    if feature_names is None and schema.features:
        feature_names = schema.names
    if feature_names is None:
        feature_names = [f"x{j}" for j in range(width)]
    if len(feature_names) != width:
        raise DataError(
            "feature_names",
            f"{len(feature_names)} names ({', '.join(list(feature_names)[:8])}) for {width} columns.",
            "Name every column, or choose the profile of the data.",
        )
    if tuple(feature_names) == schema.names:
        return schema
    try:
        return FeatureSchema(
            name=schema.name,
            version=schema.version,
            features=tuple(Feature(name=name, unit="") for name in feature_names),
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(
            "feature_names",
            f"{fault['input']!r}: {fault['msg']}." if isinstance(fault["input"], str) else f"{fault['msg']}.",
            "A name has letters, digits and underscores, and is there once.",
        ) from None


def telemetry_of(rows: NDArray[np.float64], segments: Segments, schema: FeatureSchema, profile: Profile) -> Telemetry:
    """Rows that are confirmed normal as training wants them, with the usual warnings about them."""
    telemetry = Telemetry(
        schema=completed(schema, rows),
        values=rows + 0.0,  # no negative zeros (F5)
        timestamps=None,
        timestamp_column=None,
        cadence_seconds=None,
        segments=segments,
        source="array",
        report=Report(rows_read=len(rows), rows_used=len(rows)),
        scaling=profile.scaling,
    )
    warnings = warnings_about(telemetry, profile, longest_gap_seconds=0.0, asked_to_exclude=False)
    return replace(telemetry, report=replace(telemetry.report, warnings=warnings))
