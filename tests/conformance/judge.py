"""The judge: every implementation against scikit-learn, Keras and numpy in float64, case by case (rules P1 to P4).

    python -m tests.conformance.judge --inputs 100000
    python -m tests.conformance.judge --models models/reference/more-v1 --inputs 20000
    python -m tests.conformance.judge --models models --inputs 2000 --implementations python-core,go-native

All detectors that the set has are judged; asking for one that it does not have must be refused.

Nothing is skipped: an implementation that is not there, a case without answer and a run without cases fail.
"""

import argparse
import contextlib
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dwcp_sidecar.errors import ContractError
from tests.conformance import implementations as adapters
from tests.conformance.answers import read_answers
from tests.conformance.cases import Case, write_lines
from tests.conformance.compare import Tally, compare
from tests.conformance.go_program import BuildError
from tests.conformance.inputs import generate
from tests.conformance.reference import MissingByproductError, Reference, Wanted, joined_evaluation, references_of
from tests.conformance.server import StartError, serving
from tests.conformance.sets import REFERENCE_SET, detectors_of

BATCHES = (1, 7, 64, 4096)
THREADS = (1, 2)
VARIANT_INPUTS = 5_000
"""Inputs of the runs at the other batch sizes and thread counts, when there are more for the full run."""

_NUMBERS = (
    "cases", "equal", "score bits differ", "decisions differ", "explanations differ", "errors differ", "in P2's gap"
)  # fmt: skip

err = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Run:
    """How an implementation is run: all cases, or the first `VARIANT_INPUTS` of them."""

    batch: int
    threads: int
    full: bool


@dataclass
class Question:
    """The cases of one detector with the reference's answers, and the same as files."""

    reference: Reference
    cases: list[Case]
    wanted: Wanted
    requests: Path
    some_requests: Path
    some: int

    def part(self, full: bool) -> tuple[Path, list[Case], Wanted]:
        """File, cases and answers of a run."""
        if full:
            return self.requests, self.cases, self.wanted
        return self.some_requests, self.cases[: self.some], first(self.wanted, self.some)


@dataclass
class Result:
    """How one implementation did on one detector."""

    implementation: str
    detector: str
    runs: str
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0


def first(wanted: Wanted, count: int) -> Wanted:
    """The reference's answers to the first cases."""
    kept = wanted.scored < count
    return Wanted(wanted.faults[:count], wanted.scored[kept], joined_evaluation([wanted.evaluation], kept))


def runs_of(has_threads: bool, batches: Sequence[int], threads: Sequence[int]) -> list[Run]:
    """The full run at the largest batch, the other batch sizes, and the other thread counts at the largest batch."""
    largest, *others = sorted(batches, reverse=True)
    runs = [Run(largest, threads[0], True)] + [Run(batch, threads[0], False) for batch in others]
    return runs + ([Run(largest, count, False) for count in threads[1:]] if has_threads else [])


def prepare(
    reference: Reference, cases: list[Case], wanted: Wanted, folder: Path, some: int = VARIANT_INPUTS
) -> Question:
    """Writes cases as request lines: all of them, and the first `some`."""
    name = reference.detector
    files = folder / f"{name}.jsonl", folder / f"{name}.some.jsonl"
    question = Question(reference, cases, wanted, *files, min(some, len(cases)))
    write_lines(cases, question.requests)
    write_lines(cases[: question.some], question.some_requests)
    return question


def judge_some(
    implementation: adapters.Implementation, questions: Sequence[Question], run: Run, folder: Path
) -> list[Tally]:
    """Runs one implementation on the requests of some detectors, one after the other in one file, and compares.

    Returns:
        A tally for each question. What cannot run is a fault of each.
    """
    parts = [question.part(run.full) for question in questions]
    name = f"{implementation.name}.{'+'.join(q.reference.detector for q in questions)}.{run.batch}.{run.threads}"
    requests, answers = folder / f"{name}.requests.jsonl", folder / f"{name}.jsonl"
    with requests.open("wb") as file:
        for part, _, _ in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    try:
        implementation.run(requests, answers, sum(len(cases) for _, cases, _ in parts), run.batch, run.threads)
    except (adapters.RunError, ContractError) as error:
        return [Tally(faults=[str(error)]) for _ in questions]
    tallies = []
    with answers.open("rb") as lines:
        for k, (question, (_, cases, wanted)) in enumerate(zip(questions, parts, strict=True)):
            # Its share of the answers, and the last one everything that is left: an answer too many is a fault.
            own = folder / f"{name}.{k}.jsonl"
            with own.open("wb") as file:
                file.writelines(lines if k == len(questions) - 1 else itertools.islice(lines, len(cases)))
            reference = question.reference
            ids = [case.answer_id for case in cases]
            depth = reference.detector == "isolation_forest"
            tallies.append(compare(cases, reference, wanted, read_answers(own, ids, len(reference.names), depth)))
            own.unlink()
    requests.unlink()
    answers.unlink()
    return tallies


def judge(
    questions: Sequence[Question],
    models: Path,
    names: Sequence[str] = tuple(adapters.BUILDERS),
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] = THREADS,
    workers: int = 2,
) -> list[Result]:
    """Judges implementations on all questions: the full run, and the other batch sizes and thread counts.

    Raises:
        RunError, BuildError, StartError: when an implementation is not there.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dwcp-judge-")))
        kinds = {adapters.NEEDS_SERVER[name] for name in names if name in adapters.NEEDS_SERVER}
        servers = {kind: stack.enter_context(serving(models, kind)) for kind in sorted(kinds)}
        built = adapters.build(names, models, servers)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        started: list[tuple[list[Result], list[Future[tuple[list[Tally], float]]]]] = []
        for implementation in built:
            runs = runs_of(implementation.has_threads, batches, threads)
            # A program begins by opening the set with all its detectors: once for all questions, not for each.
            together = [list(questions)] if isinstance(implementation, adapters.Program) else [[q] for q in questions]
            for some in filter(None, together):
                for part in filter(None, (runs[:1], runs[1:])):
                    described = [Result(implementation.name, q.reference.detector, _describe(part, q)) for q in some]
                    started.append(
                        (described, [pool.submit(_timed, implementation, some, run, folder) for run in part])
                    )
        results = []
        for described, jobs in started:
            for job in jobs:
                tallies, seconds = job.result()
                for result, tally in zip(described, tallies, strict=True):
                    result.tally.add(tally)
                    result.seconds += seconds
            for result in described:
                among = f", with {len(described) - 1} others" if len(described) > 1 else ""
                err.print(
                    f"  {result.seconds:6.1f} s  {result.detector}  {result.implementation}  {result.runs}{among}"
                )
            results += described
    detectors = [question.reference.detector for question in questions]
    return sorted(results, key=lambda result: detectors.index(result.detector))


def _timed(implementation, questions: Sequence[Question], run: Run, folder: Path) -> tuple[list[Tally], float]:
    began = time.monotonic()
    tallies = judge_some(implementation, questions, run, folder)
    return tallies, time.monotonic() - began


def _describe(runs: Sequence[Run], question: Question) -> str:
    """Batch sizes, thread counts and size of some runs, in words."""
    if runs[0].full:
        return f"batch {runs[0].batch}, {runs[0].threads} thread, all {len(question.cases):,}"
    listed = ", ".join(f"{run.batch}/{run.threads}" for run in runs)
    return f"batch/threads {listed}: {question.some:,} each"


def passed(results: Sequence[Result], names: Sequence[str], detectors: Sequence[str]) -> bool:
    """Whether every implementation was judged on every detector and nothing differs."""
    judged = {(result.implementation, result.detector) for result in results}
    complete = judged == {(name, detector) for name in names for detector in detectors}
    return complete and bool(judged) and all(result.tally.passed for result in results)


def show(results: Sequence[Result], out: Console) -> None:
    """The table, then the first mismatches of each implementation."""
    table = Table(title="Every implementation against scikit-learn, Keras and numpy in float64", title_justify="left")
    for column in ("implementation", "detector", "runs"):
        table.add_column(column, overflow="fold")
    for column in _NUMBERS:
        table.add_column(column, justify="right", overflow="fold")
    for result in results:
        t = result.tally
        numbers = (t.cases, t.equal, t.score_bits, t.decisions, t.explanations, t.errors, t.in_gap)
        style = None if t.passed else "red"
        table.add_row(result.implementation, result.detector, result.runs, *(f"{n:,}" for n in numbers), style=style)
    out.print(table)
    seen = set()
    for result in results:
        for fault in result.tally.faults[:3]:
            out.print(f"FAULT {result.implementation} {result.detector} ({result.runs}): {fault}", markup=False)
        for mismatch in result.tally.mismatches[:5]:
            key = (result.implementation, mismatch.case, mismatch.what)
            if key not in seen:  # several runs find the same
                out.print(f"MISMATCH {result.implementation} {mismatch}", markup=False)
            seen.add(key)


def questions_for(models: Path, count: int, seed: int, folder: Path) -> Iterator[Question]:
    """Generated inputs for every detector of a set, answered by the reference."""
    for detector, reference in references_of(models).items():
        began = time.monotonic()
        cases = generate(reference.source(), count, seed)
        question = prepare(reference, cases, reference.answer(cases), folder)
        kinds, counts = np.unique([case.kind.split("/")[0] for case in cases], return_counts=True)
        listed = ", ".join(f"{n:,} {kind}" for kind, n in zip(kinds.tolist(), counts.tolist(), strict=True))
        err.print(f"{detector}: {len(cases):,} inputs ({listed}), answered in {time.monotonic() - began:.1f} s")
        yield question


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line: 0 when everything is equal, 1 when not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.judge", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--inputs", type=int, default=2_000, metavar="N", help="inputs a detector")
    parser.add_argument("--models", type=Path, default=REFERENCE_SET, metavar="DIR", help="model set with by-products")
    parser.add_argument("--seed", type=int, default=20_260, metavar="S", help="of the inputs (default: %(default)s)")
    parser.add_argument("--implementations", default=",".join(adapters.BUILDERS), metavar="A,B")
    parser.add_argument("--batches", type=_numbers, default=BATCHES, metavar="N,M", help="default: 1,7,64,4096")
    parser.add_argument("--threads", type=_numbers, default=THREADS, metavar="N,M", help="default: 1,2")
    arguments = parser.parse_args(argv)
    names = [name for name in arguments.implementations.split(",") if name]
    began = time.monotonic()
    try:
        detectors = detectors_of(arguments.models)
        with tempfile.TemporaryDirectory(prefix="dwcp-inputs-") as folder:
            questions = list(questions_for(arguments.models, arguments.inputs, arguments.seed, Path(folder)))
            results = judge(questions, arguments.models, names, arguments.batches, arguments.threads)
    except (adapters.RunError, BuildError, StartError, ContractError, MissingByproductError, ValueError) as error:
        err.print(f"judge: {error}", markup=False)
        return 1
    out = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    show(results, out)
    good = passed(results, names, detectors)
    inputs = f"{arguments.inputs:,} inputs a detector, seed {arguments.seed}, {time.monotonic() - began:.0f} s"
    out.print(f"{'PASSED' if good else 'FAILED'}: {len(names)} implementations, {inputs}")
    return 0 if good else 1


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
