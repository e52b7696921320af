"""Which calls are taken: limits and stopping (L2, L3, L7)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from dwcp_sidecar.server.event_loop import CallPool
from dwcp_sidecar.server.settings import Limits


class Refusal:
    """The answer to a call that is not taken.

    Attributes:
        code: its status.
        handler: gives it. It waits for nothing, not even the request, so two threads refuse thousands a second.
    """

    def __init__(self, pool: ThreadPoolExecutor, code: grpc.StatusCode, message: str) -> None:
        def refuse(_: Any, context: grpc.ServicerContext) -> None:
            context.abort(code, message)

        self.code = code
        # As a stream whatever the method: a unary handler would wait for the request.
        self.handler: grpc.RpcMethodHandler = grpc.stream_stream_rpc_method_handler(in_pool(refuse, pool))


class Gate:
    """Threads for each kind of call, their counts, and the handlers of calls that are not taken.

    Attributes:
        unary: threads of scoring calls.
        streams: threads of streams, one each while they are open.
        other: threads of everything that is not counted (L2), so that a probe is answered whatever else goes on.
        draining: whether the server is stopping.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self._sending: set[object] = set()
        self.unary = CallPool(limits.threads, "score")
        self.streams = CallPool(limits.streams, "stream")
        self.other = ThreadPoolExecutor(16, thread_name_prefix="other")
        refusals = ThreadPoolExecutor(2, thread_name_prefix="refuse")
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        self._unary_full = Refusal(
            refusals, exhausted, f"{limits.in_flight} calls are in flight already; try again later"
        )
        self._streams_full = Refusal(refusals, exhausted, f"{limits.streams} streams are open already; try later")
        self._stopping = Refusal(refusals, grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    @property
    def in_flight(self) -> int:
        """Unary scoring calls taken and not answered yet."""
        return self.unary.pending

    @property
    def queued(self) -> int:
        """Those of them that wait for a thread."""
        return max(0, self.unary.pending - self.unary.running)

    @property
    def open_streams(self) -> int:
        """Streams that are open."""
        return self.streams.pending

    @property
    def busy(self) -> bool:
        """Whether a call is in flight, or its answer on its way."""
        return bool(self.in_flight or self.open_streams or self._sending)

    def sends(self, context: grpc.ServicerContext) -> None:
        """Says that the answer of a call is on its way. A large one takes longer than the call itself when its client
        reads slowly; until gRPC is through with it, a server that stops has to wait."""
        token = object()
        self._sending.add(token)
        if not context.add_callback(lambda: self._sending.discard(token)):
            self._sending.discard(token)

    def refuse(self, *, counted: bool, stream: bool) -> Refusal | None:
        """What answers a call that is not taken; None when there is room. Called before anything is read."""
        if self.draining:
            return self._stopping
        if not counted:
            return None
        if stream:
            return self._streams_full if self.streams.pending >= self.limits.streams else None
        return self._unary_full if self.unary.pending >= self.limits.in_flight else None


def in_pool(behavior: Callable[..., Any], pool: ThreadPoolExecutor) -> Callable[..., Any]:
    """Makes gRPC run a method's behavior in a pool of its own, by the attribute that it looks for."""
    behavior.experimental_thread_pool = pool  # type: ignore[attr-defined]  # gRPC takes it from any function
    return behavior
