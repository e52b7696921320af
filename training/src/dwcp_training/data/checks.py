"""Row validation: every fault of every row, found column by column before anything is trained.

The rules for values are pandera checks, built from the ranges of the feature schema. Order in time is a rule about
several rows at once and comes from `time_order`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.report import ProblemKind
from dwcp_training.profiles import FeatureSchema

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

KINDS: tuple[ProblemKind, ...] = tuple(ProblemKind)
"""Problem kinds by the code that `Faults.kinds` uses."""

WHOLE_ROW = -1
"""Column code of a fault of the whole row."""
TIMESTAMP = 0
"""Column code of the timestamp; feature ``j`` has the code ``1 + j``."""


_SENTENCES: Mapping[ProblemKind, str] = {
    ProblemKind.TEXT: "{quoted} is not a number",
    ProblemKind.EMPTY: "the cell is empty",
    ProblemKind.NOT_FINITE: "{value} is not a finite number",
    ProblemKind.BAD_TIMESTAMP: "{quoted} is not an ISO-8601 time such as 2024-01-01T00:00:00Z",
    ProblemKind.DUPLICATE_TIMESTAMP: "{value} is there more than once",
    ProblemKind.UNORDERED_TIMESTAMP: "{value} is out of order",
}


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults as parallel arrays ``[k]``, sorted by row, then column: row index, column code, index into `KINDS`."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    kinds: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Problem kind to number of faults, without zeros."""
        return _by_kind(self.kinds)

    def counts_by_first(self) -> dict[str, int]:
        """Problem kind to number of rows whose first fault it is."""
        _, first = np.unique(self.rows, return_index=True)
        return _by_kind(self.kinds[first])

    def where(self, keep: NDArray[np.bool_]) -> Faults:
        """The faults that `keep`, bool ``[k]``, marks."""
        return Faults(self.rows[keep], self.columns[keep], self.kinds[keep])


def value_faults(
    schema: FeatureSchema, values: NDArray[np.float64], text: NDArray[np.bool_], empty: NDArray[np.bool_]
) -> Faults:
    """Faults of the values ``[n, F]``; `text` and `empty`, bool ``[n, F]``, mark the cells that hold no number."""
    import pandas as pd  # here, and below: commands that read no rows start without, in half the time
    import pandera.pandas as pa

    frame = pd.DataFrame(values, columns=list(schema.names), copy=False)
    try:
        _rules(schema).validate(frame, lazy=True)
        nothing = np.zeros(0, dtype=np.intp)
        return Faults(nothing, nothing, nothing)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
    rows = cases["index"].to_numpy().astype(np.intp)
    features = pd.Index(schema.names).get_indexer(cases["column"]).astype(np.intp)
    kinds = np.where(
        cases["check"].to_numpy() == ProblemKind.OUT_OF_RANGE.value,
        KINDS.index(ProblemKind.OUT_OF_RANGE),
        KINDS.index(ProblemKind.NOT_FINITE),
    )
    kinds[text[rows, features]] = KINDS.index(ProblemKind.TEXT)
    kinds[empty[rows, features]] = KINDS.index(ProblemKind.EMPTY)
    return collect([Faults(rows, 1 + features, kinds.astype(np.intp))])


def fault(rows: NDArray[np.intp], column: int, kind: ProblemKind) -> Faults:
    """The same fault in each of the ascending `rows`."""
    return Faults(rows, np.full(len(rows), column, dtype=np.intp), np.full(len(rows), KINDS.index(kind), dtype=np.intp))


def collect(parts: Sequence[Faults]) -> Faults:
    """All faults, sorted by row, then column."""
    rows = np.concatenate([part.rows for part in parts])
    columns = np.concatenate([part.columns for part in parts])
    kinds = np.concatenate([part.kinds for part in parts])
    order = np.lexsort((kinds, columns, rows))
    return Faults(rows[order], columns[order], kinds[order])


def describe(kind: ProblemKind, value: str, schema: FeatureSchema, column: int) -> str:
    """What is wrong with a cell that holds `value`, for people."""
    if kind is ProblemKind.OUT_OF_RANGE:
        feature = schema.features[column - 1]
        if feature.minimum is None or feature.maximum is None:
            at_least = feature.maximum is None
            limit = feature.minimum if at_least else feature.maximum
            return f"{value} must be at {'least' if at_least else 'most'} {limit:g} {feature.unit}".rstrip()
        return f"{value} is outside the plausible range {feature.minimum:g} to {feature.maximum:g} {feature.unit}"
    return _SENTENCES[kind].format(value=value, quoted=repr(value))


@cache
def _rules(schema: FeatureSchema) -> pa.DataFrameSchema:
    """Every value is a number, and a finite one lies in the plausible range of its feature."""

    import pandas as pd
    import pandera.pandas as pa

    def finite(values: pd.Series) -> pd.Series:
        return pd.Series(np.isfinite(values.to_numpy()), index=values.index)

    def in_range(minimum: float | None, maximum: float | None) -> pa.Check:
        lowest, highest = -np.inf if minimum is None else minimum, np.inf if maximum is None else maximum

        def check(values: pd.Series) -> pd.Series:
            numbers = values.to_numpy()
            plausible = (numbers >= lowest) & (numbers <= highest)
            return pd.Series(plausible | ~np.isfinite(numbers), index=values.index)

        return pa.Check(check, name=ProblemKind.OUT_OF_RANGE.value, ignore_na=False)

    return pa.DataFrameSchema(
        {
            feature.name: pa.Column(
                float,
                [
                    pa.Check(finite, name=ProblemKind.NOT_FINITE.value, ignore_na=False),
                    in_range(feature.minimum, feature.maximum),
                ],
                nullable=True,  # so that an absent number is reported by the check, under one name
            )
            for feature in schema.features
        }
    )


def _by_kind(kinds: NDArray[np.intp]) -> dict[str, int]:
    counts: Mapping[int, int] = dict(enumerate(np.bincount(kinds, minlength=len(KINDS)).tolist()))
    return {KINDS[kind].value: count for kind, count in counts.items() if count}
