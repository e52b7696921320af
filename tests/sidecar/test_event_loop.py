"""The thread that serves: small requests are answered by it, large ones by a pool, slow senders hold nobody."""

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from dwcp_sidecar.server import event_loop
from dwcp_sidecar.server.event_loop import ALONE_BYTES, SMALL_BYTES, CallPool, EventLoop

SECONDS = 20
THREADS = 2


def test_this_grpcio_is_known():
    """Of another version calls go the slower way: whoever moves the pin looks at event_loop.py and at its figures."""
    assert event_loop.event_loop_fits(), grpc.__version__


class Echo:
    """A server with one method, which answers with the name of its thread; with or without the loop."""

    def __init__(self, *, loop: bool = True) -> None:
        self.pool = CallPool(THREADS, "score")
        self.go = threading.Event()
        self.go.set()
        self.answered: list[bytes] = []
        server = grpc.server(self.pool)
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Call": handler}),))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        if loop:
            self.pool.loop = EventLoop(server)
            self.pool.loop.start()
        else:
            server.start()
        self._server = server

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert time.perf_counter() - event_loop.arrived() < SECONDS
        if request == b"fail":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as asked")
        assert self.go.wait(SECONDS)
        self.answered.append(request[:8])
        return threading.current_thread().name.encode()

    def stop(self) -> None:
        self.go.set()
        assert self._server.stop(1).wait(SECONDS), "the server does not stop"


@pytest.fixture(params=[True, False], ids=["loop", "pool"])
def echo(request) -> Iterator[Echo]:
    echo = Echo(loop=request.param)
    yield echo
    echo.stop()


@pytest.fixture
def looped() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.stop()


@pytest.fixture
def channel() -> Iterator[Callable[[Echo], grpc.Channel]]:
    opened = []

    def connect(echo: Echo) -> grpc.Channel:
        opened.append(grpc.insecure_channel(echo.address))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_small_requests_are_answered_by_the_thread_of_events(looped, channel):
    call = channel(looped).unary_unary("/t.T/Call")
    assert call(b"x", timeout=SECONDS) == b"events"
    for size in (SMALL_BYTES, SMALL_BYTES + 1, ALONE_BYTES):
        assert until(lambda: looped.pool.pending == 0)
        assert call(b"x" * size, timeout=SECONDS) == b"events"
    assert call(b"x" * (ALONE_BYTES + 1), timeout=SECONDS).startswith(b"score")
    assert until(lambda: looped.pool.pending == looped.pool.running == 0)


def test_requests_of_some_size_are_answered_by_the_pool_while_others_wait(looped, channel):
    call = channel(looped).unary_unary("/t.T/Call")
    looped.go.clear()
    large = call.future(b"x" * (ALONE_BYTES + 1), timeout=SECONDS)
    assert until(lambda: looped.pool.running == 1)
    medium = call.future(b"x" * (SMALL_BYTES + 1), timeout=SECONDS)
    assert until(lambda: looped.pool.running == 2)
    small = call.future(b"x", timeout=SECONDS)
    assert until(lambda: looped.pool.running == 3)
    looped.go.set()
    assert large.result().startswith(b"score")
    assert medium.result().startswith(b"score")
    assert small.result() == b"events"


def test_many_calls_at_once_are_all_answered(echo, channel):
    call = channel(echo).unary_unary("/t.T/Call")
    sizes = [1, SMALL_BYTES + 1, ALONE_BYTES + 1] * 70
    futures = [call.future(b"x" * size, timeout=SECONDS) for size in sizes]
    assert all(future.result() for future in futures)
    assert until(lambda: echo.pool.pending == echo.pool.running == 0)


def test_an_aborted_call_ends_with_its_status(echo, channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel(echo).unary_unary("/t.T/Call")(b"fail", timeout=SECONDS)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "as asked"


def test_a_call_without_a_request_is_refused(echo, channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel(echo).stream_unary("/t.T/Call")(iter(()), timeout=SECONDS)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert echo.answered == []
    assert until(lambda: echo.pool.pending == 0)


def test_senders_that_never_send_hold_no_thread(looped, channel):
    opened = channel(looped)
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(SECONDS)
        yield from ()

    slow = [opened.stream_unary("/t.T/Call").future(nothing(), timeout=SECONDS) for _ in range(4 * THREADS)]
    assert until(lambda: looped.pool.pending == len(slow))
    assert opened.unary_unary("/t.T/Call")(b"x" * (ALONE_BYTES + 1), timeout=SECONDS).startswith(b"score")
    for one in slow:
        one.cancel()
    assert until(lambda: looped.pool.pending == 0), "what was cancelled still counts"
    assert len(looped.answered) == 1, "a call whose client had gone was answered"
    never.set()


def test_calls_are_counted_before_any_is_answered(looped, channel):
    """Events go first: a server at its limit sees that it is, however long the answers take (L2)."""
    call = channel(looped).unary_unary("/t.T/Call")
    looped.go.clear()
    first = call.future(b"large" * ALONE_BYTES, timeout=SECONDS)
    assert until(lambda: looped.pool.running == 1)
    others = [call.future(b"large" * ALONE_BYTES, timeout=SECONDS) for _ in range(9)]
    assert until(lambda: looped.pool.pending == 10)
    assert looped.pool.running == THREADS
    looped.go.set()
    assert all(future.result() for future in [first, *others])


def test_a_call_that_was_cancelled_while_it_waited_is_not_answered(looped, channel):
    call = channel(looped).unary_unary("/t.T/Call")
    looped.go.clear()
    blocking = call.future(b"blocking", timeout=SECONDS)  # holds the thread of events
    assert until(lambda: looped.pool.running == 1)
    waiting = [call.future(b"waiting", timeout=SECONDS) for _ in range(5)]
    time.sleep(0.2)  # they reach the server's socket, at which nobody looks now
    for one in waiting:
        one.cancel()
    time.sleep(0.2)
    looped.go.set()
    assert blocking.result()
    assert until(lambda: looped.pool.pending == 0)
    assert looped.answered == [b"blocking"]
