"""The bounded cache of open sets (FL4, FL5, FL7), against a model and under threads."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.lazy_cache import LazyCache

WAIT = 20
KEYS = st.sampled_from("abcdefg")


class AgainstAModel(RuleBasedStateMachine):
    """Every sequence of uses, failures, reloads and waits does what a dictionary in order of use would do."""

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit):
        self.now = 0.0
        self.limit = limit
        self.cache = LazyCache(limit, patience=60.0, clock=lambda: self.now)
        self.held: OrderedDict[str, object] = OrderedDict()
        self.failed: dict[str, float] = {}
        self.broken: set[str] = set()
        self.opened = self.closed = self.failures = 0

    def opening(self, key):
        self.tried = True
        if key in self.broken:
            raise ContractError("GOLDEN_MISMATCH", key, "broken")
        self.made = object()
        return self.made

    def make_room(self):
        if len(self.held) >= self.limit:
            self.held.popitem(last=False)
            self.closed += 1

    @rule(key=KEYS)
    def use(self, key):
        self.tried = False
        if key in self.held:
            assert self.cache.get(key, lambda: self.opening(key)) is self.held[key]
            assert not self.tried
            self.held.move_to_end(key)
            return
        remembered = self.failed.get(key, -1.0) > self.now
        if not remembered:
            self.make_room()
        if remembered or key in self.broken:
            with pytest.raises(ContractError) as error:
                self.cache.get(key, lambda: self.opening(key))
            assert (error.value.code, error.value.field) == ("GOLDEN_MISMATCH", key)
            assert self.tried != remembered
            if not remembered:
                self.failed[key] = self.now + 60.0
                self.failures += 1
            return
        self.failed.pop(key, None)
        self.held[key] = self.cache.get(key, lambda: self.opening(key))
        assert self.tried
        assert self.held[key] is self.made
        self.opened += 1

    @rule(key=KEYS)
    def breaks(self, key):
        self.broken.add(key)

    @rule(key=KEYS)
    def is_repaired(self, key):
        self.broken.discard(key)

    @rule(seconds=st.sampled_from([1.0, 59.0, 60.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(keys=st.sets(KEYS))
    def reload(self, keys):
        self.cache.retain(keys)
        self.closed += len(self.held.keys() - keys)
        self.held = OrderedDict((key, value) for key, value in self.held.items() if key in keys)
        self.failed.clear()

    @invariant()
    def agrees(self):
        if not hasattr(self, "cache"):
            return
        counts = self.cache.counts()
        assert self.cache.keys() == list(self.held)
        assert counts.open == len(self.held) <= self.limit
        assert (counts.opened, counts.closed, counts.failed) == (self.opened, self.closed, self.failures)


AgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase


def test_concurrent_calls_open_a_value_once():
    cache, opened, gate = LazyCache(2), [], threading.Event()

    def opening():
        opened.append(threading.current_thread())
        assert gate.wait(WAIT)
        return object()

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get, "a", opening) for _ in range(8)]
        gate.set()
        values = {id(one.result(WAIT)) for one in asked}
    assert len(values) == len(opened) == 1


def test_a_failure_reaches_all_who_wait_and_is_tried_once():
    cache, tries, gate = LazyCache(2), [], threading.Event()

    def opening():
        tries.append(1)
        assert gate.wait(WAIT)
        raise ContractError("FILE_MISSING", "x.onnx", "gone")

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(cache.get, "a", opening) for _ in range(6)]
        gate.set()
        assert [type(one.exception(WAIT)) for one in asked] == [ContractError] * 6
    assert len(tries) == 1


def test_one_that_opens_slowly_keeps_no_other_waiting():
    cache, gate = LazyCache(3, openers=2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.get, "slow", lambda: gate.wait(WAIT))
        assert cache.get("quick", lambda: "open") == "open"
        gate.set()
        assert slow.result(WAIT)


def test_a_call_waits_for_a_place_while_all_are_being_opened():
    cache, gate = LazyCache(1), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", lambda: gate.wait(WAIT) and "a")
        while not cache._places:
            time.sleep(0.001)
        second = pool.submit(cache.get, "b", lambda: "b")
        time.sleep(0.05)
        assert not second.done()
        gate.set()
        assert (first.result(WAIT), second.result(WAIT)) == ("a", "b")
    assert cache.keys() == ["b"]


def test_what_is_closed_while_it_is_used_stays_usable():
    cache = LazyCache(1)
    used = cache.get("a", lambda: ["value"])
    cache.get("b", list)
    assert (used, cache.keys()) == (["value"], ["b"])


def test_what_a_reload_drops_while_it_is_opened_reaches_who_waits_and_is_not_held():
    cache, gate = LazyCache(2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(cache.get, "old", lambda: gate.wait(WAIT) and "value")
        while not cache._places:
            time.sleep(0.001)
        cache.retain({"new"})
        gate.set()
        assert old.result(WAIT) == "value"
    counts = cache.counts()
    assert (cache.keys(), counts.opened, counts.closed) == ([], 1, 1)


def test_many_threads_on_few_places():
    """Whatever threads do, a value is of its key, and no more are held than fit."""
    cache = LazyCache(3, openers=2)

    def work(seed):
        for step in range(200):
            key = "abcdef"[(seed * 7 + step * step) % 6]
            assert cache.get(key, lambda key=key: [key]) == [key]
            assert cache.counts().open <= 3
            if step % 50 == seed:
                cache.retain(set("abc"))

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(work, seed) for seed in range(6)]:
            each.result(WAIT)
    counts = cache.counts()
    assert counts.opened - counts.closed == counts.open
