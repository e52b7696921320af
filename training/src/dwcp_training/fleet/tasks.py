"""What a worker does: one series, one cluster or the sample of all in; a proven set among those of the fleet out."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dwcp_sidecar.errors import ContractError
from dwcp_training.data import DataError, Telemetry
from dwcp_training.fleet.index import has_set, put_set
from dwcp_training.fleet.journal import Record
from dwcp_training.fleet.partitions import Partition, first_line
from dwcp_training.fleet.pool import pooled
from dwcp_training.fleet.recipe import Recipe
from dwcp_training.pipeline import export, fit
from dwcp_training.signing import SigningKey

log = logging.getLogger("dwcp.training")


@dataclass(frozen=True, slots=True)
class Job:
    """What to train a set on.

    Attributes:
        task: its name in the journal.
        partitions: one series, or several that share a set.
        alone: the set is that of a single series, which must have enough rows.
        thorough: compare the graph with that of another converter, too.
        known: what the journal says about it, if anything.
    """

    task: str
    partitions: Sequence[Partition]
    alone: bool = True
    thorough: bool = False
    known: Record | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        record: for the journal.
        kept: it was finished before, and nothing was done.
        failed: there is no set for another reason than too few rows.
        cpu_seconds: of this job.
        peak_mb: most memory of the worker so far, in MiB.
    """

    record: Record
    kept: bool
    failed: bool
    cpu_seconds: float
    peak_mb: float


class TrainingError(RuntimeError):
    """A model that cannot be scored; the message says why."""


def train_job(recipe: Recipe, job: Job) -> Outcome:
    """Trains, exports and proves a set, unless that was done before on the same data with the same settings.

    Whatever is wrong with the data of a job is its outcome, and raises nothing.
    """
    began = time.process_time()
    record, kept, failed = _outcome(recipe, job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Outcome(record, kept, failed, time.process_time() - began, peak)


def _outcome(recipe: Recipe, job: Job) -> tuple[Record, bool, bool]:
    key, rows = "", 0
    try:
        key = recipe.key(job.partitions)
        known = job.known
        if known is not None and known.key == key and known.set_id and has_set(recipe.fleet, known.set_id):
            return known, True, False
        telemetry = recipe.read(job.partitions[0]) if job.alone else pooled(recipe, job.partitions)
        rows = len(telemetry)
        if job.alone and rows < recipe.min_rows:
            reason = f"{rows:,} rows; a set of its own takes {recipe.min_rows:,}"
            return Record(job.task, key, "", rows, reason), False, False
        set_id = train_set(recipe, telemetry, thorough=job.thorough)
        return Record(job.task, key, set_id, rows, ""), False, False
    except DataError as error:
        reason = f"{error.field}: {error.message}"
    except (ContractError, OSError, TrainingError) as error:
        reason = str(error)
    except Exception as error:  # a library's own; the other links go on
        log.debug("%s", job.task, exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    return Record(job.task, key, "", rows, first_line(reason)), False, True


def train_set(recipe: Recipe, telemetry: Telemetry, *, thorough: bool = False) -> str:
    """The id of a set with all detectors, trained on these rows, among those of the fleet.

    Raises:
        DataError, ContractError: as of `pipeline.train`.
        TrainingError: a detector has no graph.
    """
    candidates = []
    for detector in recipe.detectors:
        settings = recipe.settings[detector]
        fitted = fit(detector, telemetry, settings, alarm_budget=recipe.alarm_budget, drift=recipe.drift)
        candidate, warning = export(detector, fitted, settings.seed, quick=not thorough)
        if warning:
            raise TrainingError(f"{detector}: {warning}")
        candidates.append(replace(candidate, byproducts={}))
    signer = None if recipe.sign_key is None else SigningKey.read(recipe.sign_key)
    return put_set(recipe.fleet, candidates, signer)


@dataclass(frozen=True, slots=True)
class Summary:
    """How the rows of a series are distributed.

    Attributes:
        rows: that were read; 0 where it could not be read.
        numbers: median and interquartile range of each metric, `2 F`; empty where there are too few rows.
        reason: why there are none.
        failed: for another reason than too few rows.
    """

    rows: int
    numbers: tuple[float, ...]
    reason: str
    failed: bool


def summarise(recipe: Recipe, partition: Partition) -> Summary:
    """The robust summary of a series. Whatever is wrong with its data is its outcome, and raises nothing."""
    try:
        values = recipe.read(partition).values
    except DataError as error:
        return Summary(0, (), first_line(f"{error.field}: {error.message}"), True)
    except Exception as error:  # as in `train_job`
        return Summary(0, (), first_line(f"{type(error).__name__}: {error}"), True)
    if len(values) < recipe.min_rows:
        return Summary(len(values), (), f"{len(values):,} rows; a cluster takes {recipe.min_rows:,}", False)
    low, middle, high = np.percentile(values, [25, 50, 75], axis=0)
    return Summary(len(values), (*middle.tolist(), *(high - low).tolist()), "", False)
