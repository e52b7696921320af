"""What is measured at a time, a series or the single critical values, and the processes that measure it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from dwcp_training.console import progress_bar
from dwcp_training.profiles import load_profile
from tests.bench import quality_critical
from tests.bench.quality_figures import figures
from tests.bench.quality_kept import Found, Kept
from tests.bench.quality_scorers import BASELINES, OURS, Answer, Trained, baseline
from tests.bench.quality_sets import Series

CRITICAL = "single critical values"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What one process measures at a time: a series, or, without one, single critical values.

    Attributes:
        data_set, profile, only: of the set.
        series: raw rows and where the faults are.
        without: detectors of ours that are not measured, nor members of the ensemble.
        most_window_rows: as of `Trained`.
    """

    data_set: str
    profile: str
    only: tuple[str, ...] | None
    series: Series | None
    without: tuple[str, ...]
    most_window_rows: int | None

    @property
    def ours(self) -> list[str]:
        """Detectors of ours that are measured, the ensemble last."""
        return [name for name in OURS if name not in self.without and (self.only is None or name in self.only)]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Those that are no members of the ensemble either."""
        return tuple(name for name in OURS if name not in self.ours)

    @property
    def asked(self) -> dict[str, Any]:
        """What the ensemble depends on: with something else it is another one."""
        weights = load_profile(self.profile).detectors.ensemble.weights
        return {"without": sorted(self.left_out), "weights": weights, "most_window_rows": self.most_window_rows}

    @property
    def size(self) -> int:
        """How much there is to do, roughly."""
        return self.series.train.size if self.series is not None else 70_000


def measure(job: Job, root: Path, say: Say) -> None:
    """Measures every scorer that nothing is kept of."""
    series = job.series
    name = CRITICAL if series is None else series.name
    kept = Kept.of(root, job.data_set, name)
    if kept.found.get("asked") != job.asked:
        kept.forget("ensemble", "asked")
    if series is None:
        trained = Trained(quality_critical.rows(), job.profile, job.without, job.most_window_rows)
        quality_critical.measure(kept, trained, job.ours, say)
    else:
        trained = Trained(series.train, job.profile, job.left_out, job.most_window_rows)
        for scorer, answer in _answers(job, series, trained, kept.found):
            say(f"{job.data_set}, {series.name}: {scorer}")
            kept.answer(scorer, answer(), lambda scores: figures(series, scores))
        kept.keep("prevalence", float(series.faulty[series.counted].mean()))
    kept.keep("asked", job.asked)


def _answers(job: Job, series: Series, trained: Trained, known: Found) -> Iterator[tuple[str, Callable[[], Answer]]]:
    for name in BASELINES:
        if name not in known:
            yield name, lambda name=name: baseline(name, series)
    for name in job.ours:
        if name not in known:
            yield name, lambda name=name: trained.answer(name, series)


def measure_all(jobs: Sequence[Job], root: Path, processes: int, say: Say) -> None:
    """Measures in so many processes, the largest first, so that none is left over at the end. Shows how far it is."""
    ordered = sorted(jobs, key=lambda job: -job.size)
    with progress_bar() as bar:
        task = bar.add_task("detection quality", total=len(jobs))

        def told(text: str) -> None:
            bar.update(task, description=text)
            say(text)

        if processes == 1:
            for job in ordered:
                measure(job, root, told)
                bar.advance(task)
            return
        with Workers(processes) as (pool, said):
            waiting: set[Future[None]] = {pool.submit(_in_worker, job, root) for job in ordered}
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                while (text := _next(said)) is not None:
                    told(text)
                for future in done:
                    future.result()
                    bar.advance(task)


class Workers:
    """Processes that measure, and the queue of what they say. They are not forked: TensorFlow's threads would be lost.

    One thread each: two processes with two threads each on two processors stand in each other's way.
    """

    def __init__(self, processes: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        context = multiprocessing.get_context("spawn")
        self._said: Any = context.Queue()
        self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(self._said,))

    def __enter__(self) -> tuple[ProcessPoolExecutor, Any]:
        return self._pool, self._said

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_SAID: Any = None


def _begin(said: Any) -> None:
    global _SAID  # a worker has one queue, for as long as it lives
    _SAID = said


def _in_worker(job: Job, root: Path) -> None:
    measure(job, root, _SAID.put)


def _next(said: Any) -> str | None:
    try:
        return str(said.get_nowait())
    except Empty:
        return None
