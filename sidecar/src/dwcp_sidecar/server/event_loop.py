"""The thread that serves: takes in whatever came, and scores small requests itself.

gRPC's own server gives a call to a thread of a pool, which asks for the request and sleeps until the thread that reads
events wakes it: each call changes threads four times, and that takes longer than most scores. It also keeps that thread
for as long as a slow client takes to send. Here the request is read first. Then the thread that reads events answers
small requests, one after the other, whenever no event waits; a pool answers large ones. Events go first, so a call too
many is still refused at once (L2), and a call whose client has gone is not scored (L6).

What gRPC offers no way to do is done with its internals, of the one version in `requirements/`. With another version,
which may have others, calls go the way of gRPC's own server: `event_loop_fits` says which.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from grpc import _server as internals
from grpc._cython import cygrpc

_KNOWN_VERSION = "1.85."

SMALL_BYTES = 4_096
"""Requests up to this size are answered by the thread that reads events: some 70 rows, at most a millisecond."""

ALONE_BYTES = 32_768
"""So are those up to this size when no other call waits. With others about, a thread of the pool scores them while this
one goes on reading and writing: that uses a second core, where changing threads costs less than it gains."""

_PERIOD = 1.0
"""Seconds after which the thread looks whether its server is still there."""

_local = threading.local()


def event_loop_fits() -> bool:
    """Whether the installed grpcio has the internals that are known here."""
    return bool(grpc.__version__.startswith(_KNOWN_VERSION))


def arrived() -> float:
    """`time.perf_counter()` at which the call that this thread handles came in."""
    return float(_local.arrived)


class EventLoop:
    """Runs a server's events, and between them the calls that `CallPool` left here.

    Args:
        server: not started yet.
    """

    def __init__(self, server: grpc.Server) -> None:
        self.ready: deque[Callable[[], None]] = deque()
        self._state = server._state

    def start(self) -> None:
        """Starts the server with this loop in the place of its own."""
        state = self._state
        with state.lock:
            state.server.start()
            state.stage = internals._ServerStage.STARTED
            for method in state.registered_method_handlers:
                internals._request_registered_call(state, method)
            internals._request_call(state)
        threading.Thread(target=self._serve, name="events", daemon=True).start()

    def _serve(self) -> None:
        state = self._state
        while True:
            event = state.completion_queue.poll(0.0 if self.ready else time.time() + _PERIOD)
            if state.server_deallocated:
                internals._begin_shutdown_once(state)
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                if self.ready:
                    self.ready.popleft()()
            elif not internals._process_event_and_continue(state, event):
                return
            event = None  # an event that lives on keeps its call alive


class _Answered:
    """Takes the place of the Future of a call: gRPC wants to hear that it ended, and nothing else."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def tell(self) -> None:
        for callback in self._callbacks:
            callback(self)


class CallPool(ThreadPoolExecutor):
    """Threads of calls, which knows how many calls it has: gRPC hands each one to `submit` as soon as its head came.

    Args:
        threads: how many.
        name: of the threads.

    Attributes:
        pending: calls taken and not answered yet.
        running: those of them that are being answered.
        loop: answers small unary calls; None where a thread of the pool answers everything.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._counts = threading.Lock()
        self.pending = 0
        self.running = 0
        self.loop: EventLoop | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        came = time.perf_counter()
        with self._counts:
            self.pending += 1
        if self.loop is not None and args[0] is internals._unary_response_in_pool:
            # As much of a Future as gRPC uses.
            return self._receive(self.loop.ready, came, fn, *args)  # type: ignore[return-value]
        return super().submit(self._run, came, fn, *args, **kwargs)

    def _receive(
        self,
        ready: deque[Callable[[], None]],
        came: float,
        in_context: Callable[..., Any],
        respond: Callable[..., Any],
        head: Any,
        state: Any,
        behavior: Callable[..., Any],
        _wait: Callable[[], Any],
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
    ) -> _Answered:
        """Asks for the request of a call; when it is there, or the client has gone, the call is answered."""
        answered = _Answered()
        take = internals._receive_message(state, head.call, decode)

        def received(event: Any) -> Any:
            size = len(internals._serialized_request(event) or b"")
            outcome = take(event)
            request = partial(_request, state, head)
            run = partial(
                self._run, came, in_context, respond, head, state, behavior, request, decode, encode, then=answered.tell
            )
            if size <= SMALL_BYTES or (size <= ALONE_BYTES and self.pending == 1):
                ready.append(run)
            else:
                super(CallPool, self).submit(run)
            return outcome

        head.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), received)
        state.due.add(internals._RECEIVE_MESSAGE_TOKEN)
        return answered

    def _run(self, came: float, fn: Callable[..., Any], *args: Any, then: Callable[[], None] | None = None) -> Any:
        with self._counts:
            self.running += 1
        _local.arrived = came
        try:
            return fn(*args)
        finally:
            with self._counts:
                self.running -= 1
                self.pending -= 1
            if then is not None:
                then()


def _request(state: Any, head: Any) -> Any:
    """The request of a call, or None when there is nothing to answer: the client has gone, or sent none."""
    with state.condition:
        request, state.request = state.request, None
        if request is None and state.client is internals._CLOSED:
            details = f'"{head.call_details.method}" requires exactly one request message.'
            internals._abort(state, head.call, cygrpc.StatusCode.unimplemented, details.encode())
        return request
