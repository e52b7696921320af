"""Arrays from people: checked, named, and made into telemetry."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from dwcp_training.data.advice import warnings_about
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.layout import completed, guessed_limits
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


def items_of(values: NDArray[np.float64], length: int) -> Iterator[NDArray[np.float64]]:
    """What is scored, float64 `[n, length, features]`, in parts: sequences as they are, of rows every full sequence.

    Raises:
        DataError: fewer rows than a sequence has.
    """
    if values.ndim == 2:
        if len(values) < length:
            raise DataError("X", f"{len(values)} rows hold no sequence of {length}.", f"Give at least {length} rows.")
        values = sliding_window_view(values, length, axis=0).transpose(0, 2, 1)
    for start in range(0, len(values), _ITEMS_AT_ONCE):
        yield np.ascontiguousarray(values[start : start + _ITEMS_AT_ONCE])


def labels_for(y: ArrayLike | None, argument: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """`y` as bool `[n]`, one label for each row or sequence of `values`: 1 for an anomaly, 0 for normal.

    Raises:
        DataError: there are none, more or fewer than items, others than 0 and 1, or all are of one class.
    """
    if y is None:
        raise DataError(
            argument,
            "this detector learns from labels, and none are given.",
            "Give one label for each item, 1 for an anomaly and 0 for normal: train_model(X_seq, y_seq).",
            code=DataErrorCode.NO_LABELS,
        )
    labels = np.asarray(y)
    what = "rows" if values.ndim == 2 else "sequences"
    if labels.shape != (len(values),):
        raise DataError(
            argument,
            f"labels of shape {list(labels.shape)} for {len(values):,} {what}.",
            f"Give one label for each of the {what}; create_sequences(X, y) gives both.",
        )
    known = np.isin(labels, (0, 1)) if labels.dtype.kind in "biuf" else np.zeros(len(labels), bool)
    if not known.all():
        first = int(np.argmin(known))
        raise DataError(
            argument, f"label {first} is {labels[first]!s}.", "Give 1 (or True) for an anomaly and 0 for normal."
        )
    anomalous = labels.astype(bool)
    if anomalous.all() or not anomalous.any():
        raise DataError(
            argument,
            f"all {len(labels):,} labels are {int(labels[0])}: a single class. A classifier learns from both.",
            "Give data with normal operation and anomalies, or use a detector that learns from normal data alone.",
            code=DataErrorCode.SINGLE_CLASS,
        )
    return anomalous


def telemetry_of(
    rows: NDArray[np.float64],
    segments: Segments,
    schema: FeatureSchema,
    profile: Profile,
    labels: NDArray[np.bool_] | None = None,
) -> Telemetry:
    """Rows as training wants them, with the usual warnings about them; without labels they are confirmed normal."""
    telemetry = Telemetry(
        schema=completed(schema, rows),
        guessed_limits=guessed_limits(schema),
        values=rows + 0.0,  # no negative zeros (F5)
        timestamps=None,
        timestamp_column=None,
        cadence_seconds=None,
        segments=segments,
        source="array",
        report=Report(rows_read=len(rows), rows_used=len(rows)),
        scaling=profile.scaling,
        drift=profile.drift,
        labels=labels,
    )
    warnings = warnings_about(telemetry, profile, longest_gap_seconds=0.0, asked_to_exclude=False)
    return replace(telemetry, report=replace(telemetry.report, warnings=warnings))
