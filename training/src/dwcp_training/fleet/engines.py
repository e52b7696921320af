"""Where tasks are run: in a loop, in processes of this machine, or on Ray (`engine_ray.py`). Results are the same."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

ATTEMPTS = 3
"""How often a task is begun whose process was killed."""

Item = TypeVar("Item")

Task = Callable[[Any, Any], Any]
"""What is done with the settings that all tasks share and an item; a function of a module, which processes find."""


@dataclass(frozen=True, slots=True)
class Lost:
    """In the place of a result: the task's process was killed each time."""

    reason: str


class Engine(Protocol):
    """Runs tasks."""

    def run(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Each item with its result or `Lost`, as they are finished; what a task raises is raised."""
        ...

    def stream(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """As `run`, in the way that the engine has for large data."""
        ...

    def close(self) -> None:
        """Ends the processes."""
        ...


class Loop:
    """One task after the other, here."""

    def run(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        for item in items:
            yield item, task(shared, item)

    stream = run

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Begun:
    """A task, how often its process was killed while it was the only one, and whether it is the only one now."""

    item: Any
    deaths: int = 0
    alone: bool = False


def _alone(running: dict[Future[Any], _Begun]) -> bool:
    return any(begun.alone for begun in running.values())


class Processes:
    """Processes of this machine.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def run(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        waiting = iter(items)
        suspects: deque[_Begun] = deque()
        running: dict[Future[Any], _Begun] = {}
        more = True
        while more or running or suspects:
            # When a process dies, all tasks that were begun are lost with it. They are begun again one by one, so that
            # the one that kills its process is found.
            if suspects and not running:
                self._begin(task, shared, replace(suspects.popleft(), alone=True), running)
            while more and not suspects and len(running) < 2 * self._workers and not _alone(running):
                try:
                    item = next(waiting)
                except StopIteration:
                    more = False
                    break
                self._begin(task, shared, _Begun(item), running)
            if not running:
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                begun = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    self.close()
                    deaths = begun.deaths + begun.alone
                    if deaths < ATTEMPTS:
                        suspects.append(replace(begun, deaths=deaths))
                        continue
                    result = Lost(f"its process was killed {ATTEMPTS} times; was there too little memory?")
                yield begun.item, result

    stream = run

    def _begin(self, task: Task, shared: Any, begun: _Begun, running: dict[Future[Any], _Begun]) -> None:
        for _ in range(ATTEMPTS):
            if self._pool is None:
                context = multiprocessing.get_context("spawn")  # this process has threads, of Arrow for one
                self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=end_with_parent)
            try:
                running[self._pool.submit(task, shared, begun.item)] = begun
                return
            except BrokenProcessPool:  # it died before this task; the others of it are found when they are waited for
                self._pool = None
        raise RuntimeError("processes of this machine die at once: is there any memory left?")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def end_with_parent() -> None:
    """Makes this process end when the one that started it is killed: it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def engine_of(name: str, workers: int | None) -> contextlib.AbstractContextManager[Engine]:
    """An engine by its name, closed at the end of the block.

    Args:
        name: `local` or `ray`.
        workers: processes; None for one a core that this process may use.

    Raises:
        MissingLibraryError: Ray is not installed.
    """
    count = workers or len(os.sched_getaffinity(0))
    if name == "ray":
        from dwcp_training.fleet.engine_ray import Ray

        return contextlib.closing(Ray(count))
    engine: Engine = Loop() if count == 1 else Processes(count)
    return contextlib.closing(engine)
