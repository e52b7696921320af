"""What a worker does with the history of one series: its files in the order of time, scored with its set.

Rows are judged and windows are made as `dwcp score` does it, by the same code, and scores are those of the code that
serves: the same bits (W4). Of each file there is one with scores, whole or not at all, which knows what it was made of.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.data.chunks import first_rows
from dwcp_training.data.errors import DataError
from dwcp_training.data.pieces import pieces
from dwcp_training.data.row_judge import Chunk, RowJudge
from dwcp_training.data.writers import whole_file
from dwcp_training.fleet.index import set_path
from dwcp_training.fleet.partitions import Partition, digest, first_line
from dwcp_training.profiles import Profile
from dwcp_training.score import chosen
from dwcp_training.series_scores import Scored, SeriesScorer, check_listed, features_of

KEY = b"dwcp.scored"
"""Metadata of a file of scores: digest of all that it depends on."""

_OPEN_SETS = 4
_REPEATED = ["detector", "level", "p_value", "top_feature", "expected"]
"""Columns with few different values. In scores and times there are none to be found, and looking takes time."""

_LEVELS = pa.array([scoring_pb2.Level.Name(number).removeprefix("LEVEL_") for number in range(4)])


@dataclass(frozen=True)
class ScoringRecipe:
    """What does not depend on the series.

    Attributes:
        fleet: folder of the fleet.
        output: folder of the scores.
        profile: of `link_profile`.
        detectors: which of each set; empty means all.
        on_bad_rows: `fail` or `drop`.
        only_alarms: write nothing about normal rows.
    """

    fleet: Path
    output: Path
    profile: Profile
    detectors: tuple[str, ...] = ()
    on_bad_rows: str = "fail"
    only_alarms: bool = False

    def digest(self, set_id: str) -> str:
        """Digest of what decides the scores of some rows by a set."""
        said = [self.profile.model_dump(mode="json"), self.detectors, self.on_bad_rows, self.only_alarms, set_id]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """One series.

    Attributes:
        partition: its files.
        set_id: of the set that scores it.
    """

    partition: Partition
    set_id: str


@dataclass(frozen=True, slots=True)
class ScoringOutcome:
    """What came of a series.

    Attributes:
        rows: that were scored now, once for each detector that scored them.
        alarms: among these.
        written, kept: files of scores that were written, and that were there already.
        failures: files, or the series itself, with the reason why there are no scores.
        cpu_seconds: of this job.
    """

    rows: int
    alarms: int
    written: int
    kept: int
    failures: tuple[tuple[str, str], ...]
    cpu_seconds: float


@dataclass(slots=True)
class _Count:
    rows: int = 0
    alarms: int = 0
    written: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A file, the first time in it (nanoseconds), and the digest of all that its scores depend on."""

    name: str
    path: Path
    first: int | None
    key: str


def score_series(recipe: ScoringRecipe, job: ScoringJob) -> ScoringOutcome:
    """Scores the files of a series of which there are no scores yet. Whatever is wrong with one is in the outcome."""
    began = time.process_time()
    count, failures = _Count(), []
    try:
        failures = list(_scored(recipe, job, count))
    except (ContractError, DataError) as error:
        failures.append((job.partition.name, first_line(error)))
    except Exception as error:  # a library's own; the other series go on
        failures.append((job.partition.name, first_line(f"{type(error).__name__}: {error}")))
    return ScoringOutcome(
        count.rows, count.alarms, count.written, count.kept, tuple(failures), time.process_time() - began
    )


def _scored(recipe: ScoringRecipe, job: ScoringJob, count: _Count) -> Iterator[tuple[str, str]]:
    """Scores a series; the files that failed, each with the reason."""
    models = _opened(str(set_path(recipe.fleet, job.set_id)))
    if models.id != job.set_id:
        raise ContractError("MODEL_SET_MISMATCH", "fleet.json", f"the set of {job.partition.name} is another one.")
    scorable = chosen(models, recipe.detectors)
    features = features_of(scorable)
    check_listed(features, recipe.profile)
    found, cadence, failed = _in_time_order(recipe, job, features)
    yield from failed
    for name, _ in failed:  # scores of what the file was before would be taken for its own
        (recipe.output / name).unlink(missing_ok=True)
    files = [file for file in found if not _is_done(recipe.output / file.name, file.key)]
    count.kept += len(found) - len(files)
    if not files:
        return
    judge = RowJudge(
        features, recipe.profile, drop=recipe.on_bad_rows == "drop", cadences={} if cadence is None else {None: cadence}
    )
    scorers = [SeriesScorer(model, features) for model in scorable]
    last = found.index(files[-1])
    for file in found[: last + 1]:
        if recipe.profile.timestamp_column is None:
            judge.cut()  # nothing says that the rows of two files are neighbours
        chunks = _chunks(recipe.profile, file.path, features, judge)
        try:
            if file in files:
                _write(recipe, file, chunks, scorers, count)
            elif any(scorer.model.timesteps > 1 for scorer in scorers) or recipe.profile.timestamp_column is not None:
                for chunk in chunks:
                    for scorer in scorers:
                        scorer.pass_over(chunk)
        except (DataError, pa.ArrowException) as error:
            judge.cut()  # no window holds rows from before and after what could not be read
            (recipe.output / file.name).unlink(missing_ok=True)
            yield file.name, first_line(error)


@lru_cache(_OPEN_SETS)
def _opened(path: str) -> ModelSet:
    """A set, opened and proven once by a worker however many series it scores."""
    return ModelSet.open(path)


def _in_time_order(
    recipe: ScoringRecipe, job: ScoringJob, features: Sequence[str]
) -> tuple[list[_File], float | None, list[tuple[str, str]]]:
    """The files that can be read, by their first times; the cadence of the series; files that failed, and why."""
    found: list[tuple[int | None, str, Path, float | None]] = []
    failed = []
    for name, path in zip(job.partition.files, job.partition.paths, strict=True):
        try:
            first, cadences = first_rows(path, "", features, recipe.profile)
        except (DataError, pa.ArrowException) as error:
            failed.append((name, first_line(error)))
            continue
        found.append((first, name, path, cadences.get("")))
    found.sort(key=lambda file: (file[0] is None, file[0] or 0, file[1]))
    cadence = next((seconds for *_, seconds in found if seconds), None)
    # A window may begin in an earlier file, so the scores of a file depend on all before it.
    key = f"{recipe.digest(job.set_id)} {cadence} {[name for name, _ in failed]}"
    files = []
    for first, name, path, _ in found:
        key = hashlib.sha256(f"{key} {name} {digest(path)}".encode()).hexdigest()
        files.append(_File(name, path, first, key))
    return files, cadence, failed


def _is_done(scores: Path, key: str) -> bool:
    """Whether there are these scores already: a file is whole when it is there."""
    with suppress(OSError, pa.ArrowException):
        return (pq.read_schema(scores).metadata or {}).get(KEY) == key.encode()
    return False


def _chunks(profile: Profile, path: Path, features: Sequence[str], judge: RowJudge) -> Iterator[Chunk]:
    for table, columns, _ in pieces(path, features, profile):
        yield judge.judge(table, columns)


def _write(
    recipe: ScoringRecipe, file: _File, chunks: Iterator[Chunk], scorers: Sequence[SeriesScorer], count: _Count
) -> None:
    target = recipe.output / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    form = scores_schema(times=recipe.profile.timestamp_column is not None).with_metadata({KEY: file.key})
    rows = alarms = 0
    with whole_file(target) as whole, pq.ParquetWriter(whole, form, use_dictionary=_REPEATED) as writer:
        for chunk in chunks:
            for scorer in scorers:
                for scored in scorer.score(chunk):
                    rows += len(scored.rows)
                    alarms += int(scored.verdicts.is_anomaly.sum())
                    writer.write_table(_table(chunk, scorer, scored, form, only_alarms=recipe.only_alarms))
    count.rows, count.alarms, count.written = count.rows + rows, count.alarms + alarms, count.written + 1


def scores_schema(*, times: bool) -> pa.Schema:
    """The columns of a file of scores; the series is in its path.

    Args:
        times: the data has times; else rows are known by their number in the file.
    """
    where = ("timestamp", pa.timestamp("ns", "UTC")) if times else ("row", pa.int64())
    return pa.schema(
        [
            where,
            ("detector", pa.dictionary(pa.int32(), pa.string())),
            ("score", pa.float32()),
            ("is_anomaly", pa.bool_()),
            ("level", pa.dictionary(pa.int32(), pa.string())),
            ("p_value", pa.float64()),
            ("top_feature", pa.dictionary(pa.int32(), pa.string())),
            ("top_value", pa.float64()),
            ("expected", pa.float32()),
        ]
    )


def _table(chunk: Chunk, scorer: SeriesScorer, scored: Scored, form: pa.Schema, *, only_alarms: bool) -> pa.Table:
    """The verdicts on some rows; of an alarm the feature that contributes most, its value and what was expected."""
    verdicts, model = scored.verdicts, scorer.model
    kept = np.flatnonzero(verdicts.is_anomaly) if only_alarms else np.arange(len(scored.rows))
    rows, contributions, anomalous = scored.rows[kept], verdicts.contributions[kept], verdicts.is_anomaly[kept]
    at = np.arange(len(rows))
    top = contributions.argmax(axis=1)
    unnamed = ~anomalous | ~(contributions[at, top] > 0)
    moments = chunk.rows[rows] if chunk.times is None else chunk.times[rows]
    columns = [
        pa.array(moments).cast(form.field(0).type),
        pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), [model.name]),
        pa.array(verdicts.scores[kept]),
        pa.array(anomalous),
        pa.DictionaryArray.from_arrays(np.asarray(verdicts.levels[kept], np.int32), _LEVELS),
        pa.array(verdicts.p_values[kept]),
        pa.DictionaryArray.from_arrays(pa.array(top.astype(np.int32), mask=unnamed), _names(model)),
        pa.array(chunk.values[rows, np.asarray(scorer.columns)[top]], mask=unnamed),
        pa.array(verdicts.expected[kept][at, top], mask=unnamed),
    ]
    return pa.Table.from_arrays(columns, schema=form)


def _names(model: Scorer) -> pa.Array:
    return pa.array(model.feature_names, pa.string())
