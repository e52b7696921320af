"""Sees that the folder of the model set changed, and has the change carried out (rules R1, R3, R5).

Knows neither gRPC nor ONNX Runtime: a process that serves carries a change out by itself, a supervisor has its workers
do it.
"""

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server.metrics import Metrics

_log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"  # MANIFEST of `model_set`, which brings ONNX Runtime along

_CURRENT = "current"  # link to the release in use

Signature = tuple[tuple[object, ...], ...]
"""What a look at a folder saw: two that are equal saw the same files."""


class TryAgainError(Exception):
    """A change could not be tried, for a reason that says nothing about the model set; the next look tries again."""


@dataclass(frozen=True)
class Outcome:
    """What a reload led to.

    Attributes:
        id: the model set in use after it.
        changed: whether that is another one than before.
    """

    id: str
    changed: bool


def signature(folder: Path) -> Signature:
    """Looks at a folder.

    The answer differs when a file of the model set was written, replaced, removed or got other rights, and when a link
    on the way to it points elsewhere. No file is read, and there is an answer whatever is there.
    """
    current = folder / _CURRENT
    try:
        # A set is read beside its resolved manifest (A6); a file put beside the links is refused, so it counts too.
        # So is a fleet beside the index that `current` leads to (FL1); its sets never change.
        index = (current if current.is_symlink() else folder).resolve()
        folders = dict.fromkeys((folder.resolve(), (folder / _MANIFEST).resolve().parent, index))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return (("unresolved", str(error)),)
    return tuple(row for each in folders for row in _rows(each))


def _rows(folder: Path) -> Iterator[tuple[object, ...]]:
    yield (str(folder),)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield "unreadable", error.errno
        return
    for name in names:
        try:
            found = os.stat(folder / name)
        except OSError as error:
            yield name, error.errno
            continue
        if not stat.S_ISDIR(found.st_mode):
            yield name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Reloader:
    """Carries out changes of a folder, one after the other, in a thread of its own.

    Args:
        folder: what to look at.
        seconds: between two looks (R1); 0 looks only when asked.
        change: opens what the folder holds and puts it into use. Raises ContractError when it is refused; after any
            other error the next look tries again.
        metrics: counts reloads and refused sets.
        seen: signature of the folder before the set in use was opened.
    """

    def __init__(
        self, folder: Path, seconds: float, change: Callable[[], Outcome], metrics: Metrics, seen: Signature
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._change = change
        self._metrics = metrics
        self._tried = seen  # what was last opened or refused
        self._looked = seen  # what the last look saw
        self._waiting: list[Future[Outcome]] = []
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        """Begins to look, and to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more. Requests that wait are cancelled; a change that goes on is not waited for."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def request(self) -> Future[Outcome]:
        """Asks for a look at once (R5): calls that wait for a look share its outcome.

        Returns:
            The outcome; ContractError where the set is refused.
        """
        future: Future[Outcome] = Future()
        with self._condition:
            if self._stopping:
                future.cancel()
            else:
                self._waiting.append(future)
                self._condition.notify()
        return future

    def reload(self) -> tuple[str, bool]:
        """What the Reload call answers: the id in use and whether it changed.

        Raises:
            ContractError: the set is refused; the one in use stays.
        """
        outcome = self.request().result()
        return outcome.id, outcome.changed

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting and not self._stopping:
                    self._condition.wait(self._seconds or None)
                asked, self._waiting = self._waiting, []
                if self._stopping:
                    break
            self._look(asked)
        for future in asked:
            future.cancel()

    def _look(self, asked: list[Future[Outcome]]) -> None:
        before, self._looked = self._looked, signature(self._folder)
        settled = self._looked == before  # nobody is copying at this moment (R1)
        if not asked and (self._looked == self._tried or not settled):
            return
        try:
            outcome = self._carry_out()
        except Exception as error:
            for future in asked:
                future.set_exception(error)
        else:
            for future in asked:
                future.set_result(outcome)

    def _carry_out(self) -> Outcome:
        trying = self._looked
        try:
            outcome = self._change()
        except ContractError as error:
            self._tried = trying  # not again before the folder changes (R3)
            self._metrics.reload("refused")
            self._metrics.set_refused(error.code)
            _log.error("the model set in %s is refused, the one in use stays: %s", self._folder, error)
            raise
        except TryAgainError as error:
            _log.warning("the model set in %s could not be tried: %s", self._folder, error)
            raise
        except Exception:
            _log.exception("the model set in %s could not be tried", self._folder)
            raise
        self._tried = trying
        self._metrics.reload("swapped" if outcome.changed else "unchanged")
        if outcome.changed:
            _log.info("model set %s is in use now", outcome.id)
        return outcome
