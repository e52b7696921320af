"""A bounded cache of what takes long to open: opened when first needed, once, the least recently used closed first."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True)
class Counts:
    """What a cache has done.

    Attributes:
        open: values that it holds now.
        opened: values opened so far.
        closed: values let go of so far.
        failed: times that opening failed.
        hits: times that a value was there already, or was being opened.
    """

    open: int
    opened: int
    closed: int
    failed: int
    hits: int


class LazyCache(Generic[V]):
    """At most `limit` values by their keys. Safe to call from several threads.

    To close a value is to let go of it: whoever still works with it keeps it, and the last one frees it. So closing
    waits for nobody.

    Args:
        limit: most values that are held, those included that are being opened.
        openers: most values that are opened at a time.
        patience: seconds for which a failure is remembered; until then it is raised again without another try.
        clock: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        limit: int,
        *,
        openers: int = 2,
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._patience = patience
        self._clock = clock
        self._openers = threading.Semaphore(openers)
        self._changed = threading.Condition()
        # What follows is guarded by _changed. The least recently used comes first.
        self._places: OrderedDict[str, Future[V]] = OrderedDict()
        self._failures: dict[str, tuple[float, Exception]] = {}
        self._opened = self._closed = self._failed = self._hits = 0

    def get(self, key: str, opening: Callable[[], V]) -> V:
        """The value of a key; `opening` makes it where it is not held. Callers that want the same one meanwhile wait.

        Raises:
            Exception: what `opening` raised, now or within `patience` seconds before.
        """
        place = self._places.get(key)  # without the lock: nearly all calls end here
        if place is None or not place.done():
            place, mine = self._place(key)
            if mine:
                self._open(key, place, opening)
            return place.result()
        with self._changed:
            self._hits += 1
            if key in self._places:  # it may have been closed meanwhile, which changes nothing for this caller
                self._places.move_to_end(key)
        return place.result()

    def retain(self, keys: Collection[str]) -> None:
        """Closes all others, and forgets all failures. What is being opened and is not among `keys` reaches those who
        wait for it, and is not held."""
        with self._changed:
            for key in [key for key in self._places if key not in keys]:
                self._close(key)
            self._failures.clear()
            self._changed.notify_all()

    def counts(self) -> Counts:
        """What was done so far."""
        with self._changed:
            held = sum(place.done() for place in self._places.values())
            return Counts(held, self._opened, self._closed, self._failed, self._hits)

    def keys(self) -> list[str]:
        """What is held now, the least recently used first; for tests and people."""
        with self._changed:
            return [key for key, place in self._places.items() if place.done()]

    def _place(self, key: str) -> tuple["Future[V]", bool]:
        """The place of a key, and whether the caller has to fill it."""
        with self._changed:
            while True:
                place = self._places.get(key)
                if place is not None:
                    self._hits += 1
                    self._places.move_to_end(key)
                    return place, False
                until, failure = self._failures.get(key, (0.0, None))
                if failure is not None:
                    if self._clock() < until:
                        # A copy: each raise would add its trace to one that is shared.
                        raise type(failure)(*_arguments(failure))
                    del self._failures[key]
                if len(self._places) < self.limit or self._make_room():
                    place = self._places[key] = Future()
                    return place, True
                self._changed.wait()  # all places are taken by values that are being opened

    def _make_room(self) -> bool:
        """Closes the value that was not used for longest; those that are being opened stay."""
        for key, place in self._places.items():
            if place.done():
                self._close(key)
                return True
        return False

    def _close(self, key: str) -> None:
        if self._places.pop(key).done():
            self._closed += 1

    def _open(self, key: str, place: "Future[V]", opening: Callable[[], V]) -> None:
        try:
            with self._openers:
                value = opening()
        except BaseException as error:
            with self._changed:
                self._failed += 1
                if self._places.get(key) is place:
                    del self._places[key]
                    if isinstance(error, Exception):
                        self._failures[key] = self._clock() + self._patience, error.with_traceback(None)
                self._changed.notify_all()
            place.set_exception(error)
            return
        with self._changed:
            self._opened += 1
            if self._places.get(key) is not place:
                self._closed += 1  # nobody wants it kept any more
            place.set_result(value)
            self._changed.notify_all()


def _arguments(error: Exception) -> tuple[object, ...]:
    """What the class of an error takes; ContractError says more than its text."""
    parts = tuple(getattr(error, name, None) for name in ("code", "field", "message"))
    return parts if None not in parts else error.args
