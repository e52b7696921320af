"""JSON lines in, JSON lines out: one answer per line, in order (rule E5)."""

import os
import select
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.features import check_samples
from dwcp_sidecar.requests import Request, RequestError, answer, answer_error, parse_request
from dwcp_sidecar.verdicts import Explain, Verdicts

if TYPE_CHECKING:  # a caller that scores on a server does not load ONNX Runtime
    from dwcp_sidecar.model_set import ModelSet

_CHUNK = 1 << 20


class Backend(Protocol):
    """What scores the lines: models in this process, or a server."""

    def check(self, request: Request) -> Any:
        """The item of a request, or ContractError (E2)."""

    def score(self, detector: str, items: list[Any]) -> Verdicts:
        """Scores items of one detector, explained; an error is that of every item."""


class InProcess:
    """Scores with an open model set."""

    def __init__(self, models: "ModelSet") -> None:
        self._models = models

    def check(self, request: Request) -> np.ndarray:
        model = self._models.model(request.detector)
        return check_samples(request.samples, model.feature_names, model.timesteps)

    def score(self, detector: str, items: list[np.ndarray]) -> Verdicts:
        return self._models.model(detector).run(np.stack(items), Explain.ALWAYS)


def read_lines(file: int) -> Iterator[bytes | None]:
    """Lines of a file descriptor without their newline, and None whenever the next one would have to be waited for."""
    rest: list[bytes] = []
    while True:
        if not select.select([file], [], [], 0)[0]:
            yield None
        chunk = os.read(file, _CHUNK)
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest)
            rest = [others.pop()]
            yield from others
    if last := b"".join(rest):
        yield last


def execute(lines: Iterable[bytes | None], out: BinaryIO, backend: Backend, batch: int) -> None:
    """Answers every line.

    Args:
        lines: requests; None says that the next one is not there yet, so what is pending is answered and flushed.
        out: where answers go, one line each.
        backend: scores them.
        batch: most lines scored at once: consecutive valid lines of one detector. No answer depends on it (W4).
    """
    group = _Group(backend, batch)
    for line in lines:
        if line is None:
            out.write(group.finish())
            out.flush()
        elif ready := group.add(line):
            out.write(ready)
    out.write(group.finish())
    out.flush()


class _Group:
    """Lines that wait to be scored together, and the answers of refused lines between them."""

    def __init__(self, backend: Backend, batch: int) -> None:
        self._backend = backend
        self._batch = batch
        self._detector = ""
        self._ids: list[Any] = []
        self._items: list[Any] = []
        self._answers: list[str | None] = []  # None: the next of the items

    def add(self, line: bytes) -> bytes:
        """Takes one line and returns the answers that are due."""
        try:
            request = parse_request(line)
        except RequestError as error:
            return self._refuse(error.id, error.error)
        try:
            item = self._backend.check(request)
        except ContractError as error:
            return self._refuse(request.id, error)
        due = self.finish() if request.detector != self._detector else b""
        self._detector = request.detector
        self._ids.append(request.id)
        self._items.append(item)
        self._answers.append(None)
        return due + self.finish() if len(self._items) >= self._batch else due

    def _refuse(self, id: Any, error: ContractError) -> bytes:
        self._answers.append(answer_error(id, error))
        # Without an item before it nothing is waited for; and a long run of refusals must not pile up.
        return self.finish() if not self._items or len(self._answers) >= 2 * self._batch else b""

    def finish(self) -> bytes:
        """Scores what is pending and returns all answers, each with its newline."""
        if not self._answers:
            return b""
        scored = iter(self._scored())
        lines = [next(scored) if line is None else line for line in self._answers]
        self._ids, self._items, self._answers = [], [], []
        return ("\n".join(lines) + "\n").encode()

    def _scored(self) -> list[str]:
        if not self._items:
            return []
        try:
            verdicts = self._backend.score(self._detector, self._items)
        except ContractError as error:
            return [answer_error(id, error) for id in self._ids]
        return [answer(id, verdicts, index) for index, id in enumerate(self._ids)]
