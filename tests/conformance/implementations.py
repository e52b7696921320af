"""One small adapter per implementation: a file of request lines in, a file of answer lines out (rule E5)."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.features import check_samples
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.requests import RequestError, answer, answer_error, parse_request
from dwcp_sidecar.verdicts import Explain
from tests.conformance.go_program import GO_FOLDER, ROOT, contract_score
from tests.conformance.server import COMMAND
from tests.conformance.streams import StreamingSidecar

_START_SECONDS = 120
_LINE_SECONDS = 0.02
"""Longest time that an implementation may take per line before it counts as hanging."""


class RunError(RuntimeError):
    """An implementation did not run to its end. That is a failure, never a reason to skip it."""


class Implementation(Protocol):
    """Something that answers request lines.

    Attributes:
        name: as on the command line of the judge.
        has_threads: whether a number of threads can be asked for.
    """

    name: str
    has_threads: bool

    def run(self, requests: Path, answers: Path, lines: int, batch: int, threads: int) -> None:
        """Answers every line of a file, `batch` at a time. Raises RunError."""
        ...


class PythonCore:
    """The scoring core in this process through its API: `Model.score` for one request, `Model.score_batch` for many."""

    name = "python-core"
    has_threads = True

    def __init__(self, models: Path) -> None:
        self._models = models
        self._open: dict[int, ModelSet] = {}

    def run(self, requests: Path, answers: Path, lines: int, batch: int, threads: int) -> None:
        if threads not in self._open:
            self._open[threads] = ModelSet.open(self._models, threads=threads)
        models = self._open[threads]
        score = _singly if batch == 1 else _together
        with requests.open("rb") as source, answers.open("w", encoding="utf-8") as out:
            for group in _groups(source, batch):
                out.writelines(line + "\n" for line in score(models, group))


def _groups(source: Any, size: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for line in source:
        group.append(line.rstrip(b"\n"))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _singly(models: ModelSet, lines: Sequence[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            request = parse_request(line)
        except RequestError as error:
            yield answer_error(error.id, error.error)
            continue
        try:
            yield answer(request.id, models.model(request.detector).score(request.samples))
        except ContractError as error:
            yield answer_error(request.id, error)


def _together(models: ModelSet, lines: Sequence[bytes]) -> list[str]:
    """Answers lines of several detectors: the good ones of each detector are one batch."""
    answers = [""] * len(lines)
    batches: dict[str, list[tuple[int, Any, np.ndarray]]] = {}
    for i, line in enumerate(lines):
        try:
            request = parse_request(line)
        except RequestError as error:
            answers[i] = answer_error(error.id, error.error)
            continue
        try:
            model = models.model(request.detector)
            window = check_samples(request.samples, model.feature_names, model.timesteps)
            batches.setdefault(request.detector, []).append((i, request.id, window))
        except ContractError as error:
            answers[i] = answer_error(request.id, error)
    for detector, members in batches.items():
        verdicts = models.model(detector).score_batch(np.stack([window for _, _, window in members]), Explain.ALWAYS)
        for k, (i, id, _) in enumerate(members):
            answers[i] = answer(id, verdicts, k)
    return answers


@dataclass(frozen=True)
class Program:
    """A program that reads JSON lines from standard input and writes them to standard output.

    Attributes:
        command: without the options of a run.
        folder: where it runs.
    """

    name: str
    has_threads: bool
    command: tuple[str | Path, ...]
    folder: Path = ROOT

    def run(self, requests: Path, answers: Path, lines: int, batch: int, threads: int) -> None:
        options = ["--batch", str(batch)] + (["--threads", str(threads)] if self.has_threads else [])
        with requests.open("rb") as source, answers.open("wb") as out:
            try:
                done = subprocess.run(
                    [*self.command, *options],
                    stdin=source,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    cwd=self.folder,
                    env={**os.environ, "NO_PROXY": "*"},
                    timeout=_START_SECONDS + lines * _LINE_SECONDS,
                )
            except subprocess.TimeoutExpired as error:
                raise RunError(f"{self.name}: no end after {error.timeout:.0f} s") from None
            except OSError as error:
                raise RunError(f"{self.name}: cannot be started: {error}") from None
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip()
            raise RunError(f"{self.name}: exit status {done.returncode}: {why}")


def _go(backend: str, models: Path, *, threads: bool, extra: tuple[str, ...] = ()) -> Program:
    command = (contract_score(backend), "--models", models, "--backend", backend, *extra)
    return Program(f"go-{backend}", threads, command, GO_FOLDER)


BUILDERS: dict[str, Callable[[Path, Mapping[str, str]], Implementation]] = {
    "python-core": lambda models, servers: PythonCore(models),
    "python-lines": lambda models, servers: Program("python-lines", True, (COMMAND, "score", "--models", models)),
    "sidecar": lambda models, servers: _asked("sidecar", models, servers["python"]),
    "sidecar-stream": lambda models, servers: StreamingSidecar("sidecar-stream", models, servers["python"]),
    "sidecar-go": lambda models, servers: _asked("sidecar-go", models, servers["go"]),
    "sidecar-go-stream": lambda models, servers: StreamingSidecar("sidecar-go-stream", models, servers["go"]),
    "go-native": lambda models, servers: _go("native", models, threads=True),
    "go-onnxruntime": lambda models, servers: _go("onnxruntime", models, threads=True),
    "go-sidecar": lambda models, servers: _go("sidecar", models, threads=True, extra=("--address", servers["python"])),
}
"""Name to what makes the adapter from the folder of the models and the addresses of running sidecars (`python`, `go`).
The `sidecar` ones call Score at batch 1 and ScoreBatch above, or ScoreStream; `go-sidecar` is the Go client."""

NEEDS_SERVER = {
    "sidecar": "python",
    "sidecar-stream": "python",
    "sidecar-go": "go",
    "sidecar-go-stream": "go",
    "go-sidecar": "python",
}
"""Name to the sidecar that has to run."""


def _asked(name: str, models: Path, address: str) -> Program:
    """A running sidecar through the Python client."""
    return Program(name, False, (COMMAND, "score", "--models", models, "--address", address))


def build(names: Sequence[str], models: Path, servers: Mapping[str, str]) -> list[Implementation]:
    """Adapters by name.

    Raises:
        RunError: for an unknown name. BuildError: when a Go program does not build.
    """
    unknown = [name for name in names if name not in BUILDERS]
    if unknown or not names:
        named = ", ".join(unknown) or "nothing"
        raise RunError(f"no implementation is called {named}; there are {', '.join(BUILDERS)}")
    return [BUILDERS[name](models.resolve(), servers) for name in names]
