"""Keeps several workers on the same addresses: starts them, starts them anew, reloads and stops them together."""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dwcp_sidecar.server import metrics as shared
from dwcp_sidecar.server import tcp
from dwcp_sidecar.server.announce import announced
from dwcp_sidecar.server.control import ChannelClosedError
from dwcp_sidecar.server.metrics import Metrics, NoMetrics
from dwcp_sidecar.server.reload import Outcome, Reloader, TryAgainError, signature
from dwcp_sidecar.server.settings import Settings, StartError
from dwcp_sidecar.server.signals import RELOAD, STOP, Signals
from dwcp_sidecar.server.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

YOUNG = 5.0
"""A worker that answered for fewer seconds, or never, ended soon; then the next one waits."""

MAX_YOUNG = 6
"""Workers in a row, in one place, that may end soon before the supervisor gives up."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_PREPARE_SECONDS, _COMMIT_SECONDS = 60.0, 10.0
_OVERTIME = 5.0
"""Seconds beyond the grace after which a worker that still runs is killed."""


@dataclass
class Place:
    """One of the workers, whichever process it is at the moment.

    Attributes:
        index: its number, from 0.
        process: the process; None between two.
        ready: what the process said when it began to answer: addresses, id and path of its model set; None before.
        since: when it began to answer, on the monotonic clock.
        failure: why the last process could not begin to answer; empty where it did.
        young: processes in a row that ended soon.
    """

    index: int
    process: WorkerProcess | None = None
    ready: dict[str, Any] | None = None
    since: float = 0.0
    failure: str = ""
    young: int = 0


class Supervisor:
    """Runs `settings.workers` workers.

    Args:
        settings: what to serve; `listen` with the port that is held for the workers.
        flags: the same as flags, for the workers.
        metrics: counts restarts and reloads.
        signals: woken when all workers are ready for the first time, and when the supervisor gives up.
    """

    def __init__(self, settings: Settings, flags: dict[str, Any], metrics: Metrics, signals: Signals) -> None:
        self.failure = ""
        self._settings = settings
        self._flags = flags
        self._metrics = metrics
        self._signals = signals
        self._stopping = threading.Event()
        self._lock = threading.RLock()  # guards the places and the live set; held through a whole reload
        self._live: dict[str, Any] | None = None
        self._complete = False
        self._begun = threading.Event()  # the first worker answers, or it ended before it could
        self._places = [Place(index) for index in range(settings.workers)]
        self._threads = [threading.Thread(target=self._keep, args=(place,)) for place in self._places]
        self._reloader = Reloader(
            settings.models, settings.watch, self._change, metrics, seen=signature(settings.models)
        )
        self.request_reload = self._reloader.request

    @property
    def complete(self) -> bool:
        """Whether all workers have been ready once."""
        return self._complete

    @property
    def addresses(self) -> list[str]:
        """Addresses of all workers, without repetition."""
        return list(dict.fromkeys(a for place in self._places if place.ready for a in place.ready["addresses"]))

    @property
    def live_id(self) -> str:
        """Id of the model set in use."""
        return "" if self._live is None else str(self._live["id"])

    def start(self) -> None:
        """Starts the workers."""
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float) -> None:
        """Lets the workers drain (L7); may be called again with a shorter grace."""
        self._stopping.set()
        self._begun.set()
        self._reloader.stop()
        for place in self._places:
            if place.process is not None:
                place.process.tell("stop", grace=grace)

    def wait(self, seconds: float) -> bool:
        """Waits for the workers to end; gives whether all have."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def kill(self) -> None:
        """Ends workers that are still there."""
        for place in self._places:
            if place.process is not None:
                place.process.kill()

    def _keep(self, place: Place) -> None:
        """Keeps one place taken: the thread of that place.

        The first worker has the machine to itself until it answers: workers that start at the same time share the
        cores, and then the first answer is as late as the last.
        """
        if place.index > 0:
            self._begun.wait()
        while not self._stopping.is_set():
            place.failure = ""
            try:
                place.process = WorkerProcess(self._order(place.index))
                if self._stopping.is_set():  # `stop` may have missed it
                    place.process.tell("stop", grace=0.0)
                end = place.process.run(lambda name, fields: self._hear(place, name, fields))
            except OSError as error:  # the system has no room for another process
                end = f"before it began ({error.strerror})"
            answered = 0.0 if place.ready is None else time.monotonic() - place.since
            self._begun.set()
            with self._lock:
                place.process = place.ready = None
                self._count()
            if self._settings.metrics is not None:
                shared.forget(_identity(place.index))
            if not self._stopping.is_set():
                self._stopping.wait(self._ended(place, end, answered))

    def _order(self, index: int) -> dict[str, Any]:
        folders = [str(self._settings.models)]
        if self._live is not None and self._live["path"] not in folders:
            folders.insert(0, self._live["path"])  # what the others use (R4)
        unix, keys = self._settings.unix, self._settings.public_keys
        return {
            "flags": self._flags,
            "identity": _identity(index),
            "listen": self._settings.listen,
            "unix": None if unix is None else str(unix if index == 0 else unix.with_name(f"{unix.name}.{index}")),
            "folders": folders,
            # As they were read at the start, not the files: all workers, also later ones, accept the same sets.
            "public_keys": None if keys is None else [key.hex() for key in keys.raw],
        }

    def _hear(self, place: Place, name: str, fields: dict[str, Any]) -> "Future[dict[str, Any]] | None":
        if name == "reload":
            return _as_fields(self._reloader.request())
        if name == "failed":
            place.failure = fields["why"]
        elif name == "ready":
            self._welcome(place, fields)
        return None

    def _welcome(self, place: Place, ready: dict[str, Any]) -> None:
        with self._lock:  # after a reload that goes on: the worker does not take part in it
            place.ready, place.since = ready, time.monotonic()
            self._begun.set()
            self._live = self._live or ready
            self._count()
            if not self._complete and all(each.ready for each in self._places):
                self._complete = True
                self._reloader.start()
                self._signals.wake()
            if ready["id"] != self._live["id"]:
                self._reloader.request()  # the others follow (R4)

    def _ended(self, place: Place, end: str, answered: float) -> float:
        """Judges the end of a process that answered for some seconds; gives those to wait before the next one."""
        place.young = place.young + 1 if answered < YOUNG else 0
        if place.failure:
            if not self._complete or not any(each.ready for each in self._places):
                self._give_up(place.failure)
                return 0.0
            # The others answer: it is tried again, for as long as they do.
            _log.error("worker %d cannot start: %s", place.index, place.failure)
        else:
            _log.error("worker %d ended %s, %.1f s after it began to answer", place.index, end, answered)
            if place.young >= MAX_YOUNG:
                self._give_up(
                    f"worker {place.index} ended {end}, {MAX_YOUNG} times in a row before it had answered for "
                    f"{YOUNG:.0f} s; look for the cause in what it logged before"
                )
                return 0.0
        self._metrics.worker_restart()
        return min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (place.young - 2)) if place.young > 1 else 0.0

    def _give_up(self, why: str) -> None:
        self.failure = self.failure or why
        self._stopping.set()
        self._begun.set()
        self._signals.wake()

    def _count(self) -> None:
        self._metrics.workers(sum(place.ready is not None for place in self._places))

    def _change(self) -> Outcome:
        """Has all workers open what the folder holds, then all put it into use (R4)."""
        with self._lock:
            processes = [place.process for place in self._places if place.ready and place.process]
            id, path = self._prepare(processes)
            changed = id != self.live_id
            self._live = {"id": id, "path": path}  # before they swap: one that is started meanwhile begins with it
            for answer in [process.ask("commit") for process in processes]:
                _answer(answer, _COMMIT_SECONDS)
            return Outcome(id, changed)

    def _prepare(self, processes: list[WorkerProcess]) -> tuple[str, str]:
        """Id and path of the set that all of them have opened.

        Raises:
            ContractError: one refuses it.
            TryAgainError: they saw different sets, or one does not answer.
        """
        folder = str(self._settings.models)
        answers: list[dict[str, Any]] = []
        try:
            # The first one judges, so that a bad set costs the time of one worker; then all others open it at once.
            for group in (processes[:1], processes[1:]):
                asked = [process.ask("prepare", folder=folder) for process in group]
                answers += filter(None, [_answer(each, _PREPARE_SECONDS) for each in asked])
            sets = {(answer["id"], answer["path"]) for answer in answers}
            if len(sets) != 1:
                raise TryAgainError("the folder changed while the workers opened it, or no worker is there")
        except Exception:
            for each in [process.ask("abort") for process in processes]:
                with contextlib.suppress(Exception):
                    _answer(each, _COMMIT_SECONDS)
            raise
        return sets.pop()


def supervise(settings: Settings, flags: dict[str, Any]) -> int:
    """Serves with several workers until a signal says to stop, and returns the exit status.

    Raises:
        StartError: an address or a file cannot be had, or the workers cannot start.
    """
    with _held(settings.listen) as listen, _metrics(settings) as metrics:
        signals = Signals(*STOP, RELOAD)
        supervisor = Supervisor(replace(settings, listen=listen), flags, metrics, signals)
        supervisor.start()
        try:
            number: int | None = None
            while not supervisor.complete and not supervisor.failure and number not in STOP:
                number = signals.wait()
            if supervisor.complete and number not in STOP:
                with announced(supervisor.addresses, supervisor.live_id, settings.ready_file):
                    _until_told(supervisor, signals)
        finally:
            _drain(supervisor, signals, 0.0 if supervisor.failure else settings.grace)
        if supervisor.failure:
            raise StartError(supervisor.failure)
    return 0


def _until_told(supervisor: Supervisor, signals: Signals) -> None:
    while not supervisor.failure:
        number = signals.wait()
        if number in STOP:
            return
        if number == RELOAD:
            supervisor.request_reload()


def _drain(supervisor: Supervisor, signals: Signals, grace: float) -> None:
    supervisor.stop(grace)
    until = time.monotonic() + grace + _OVERTIME
    while not supervisor.wait(0.05):
        if signals.wait(0) in STOP:
            supervisor.stop(0.0)
            until = time.monotonic() + _OVERTIME
        if time.monotonic() > until:
            _log.error("workers still run %.0f s after their grace; they are killed", _OVERTIME)
            supervisor.kill()
            until += _OVERTIME


@contextlib.contextmanager
def _held(listen: str | None) -> Iterator[str | None]:
    """The TCP address with its port, held while the block lasts; None for none."""
    if listen is None:
        yield None
        return
    held, address = tcp.hold(listen)
    with held:
        yield address


@contextlib.contextmanager
def _metrics(settings: Settings) -> Iterator[Metrics]:
    """Metrics of all workers, served at their address; the folder in which they meet is gone after the block."""
    if settings.metrics is None:
        yield NoMetrics()
        return
    memory = Path("/dev/shm")
    folder = shared.shared_folder(memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir()))
    try:
        metrics = Metrics(identity="supervisor")
        if settings.feedback is not None:
            metrics.feedback(settings.feedback)
        _log.info("metrics are at http://%s/metrics", metrics.serve_metrics(settings.metrics))
        yield metrics
        metrics.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(asked: "Future[dict[str, Any]]", seconds: float) -> dict[str, Any] | None:
    """What a worker answers; None where it has ended: the next process in its place opens the live set.

    Raises:
        ContractError: it refuses the set.
        TryAgainError: it does not answer.
    """
    try:
        return asked.result(seconds)
    except ChannelClosedError:
        return None
    except Late:
        raise TryAgainError(f"a worker does not answer within {seconds:.0f} s") from None


def _as_fields(outcome: "Future[Outcome]") -> "Future[dict[str, Any]]":
    """An outcome as the fields of an answer."""
    answer: Future[dict[str, Any]] = Future()

    def done(outcome: "Future[Outcome]") -> None:
        if outcome.cancelled():
            answer.cancel()
        elif error := outcome.exception():
            answer.set_exception(error)
        else:
            answer.set_result({"id": outcome.result().id, "changed": outcome.result().changed})

    outcome.add_done_callback(done)
    return answer


def _identity(index: int) -> str:
    return f"worker-{index}"
