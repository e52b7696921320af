"""The client's side of a stream (rules ST1 to ST8)."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import grpc

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.limits import MAX_SERIES_BYTES, MAX_STREAM_SAMPLES
from dwcp_sidecar.server.status import from_grpc

_REQUESTS_AHEAD = 2
"""Requests without an answer: one that the server works on and one that waits there, so that it is never idle. What
comes meanwhile travels in the next request together."""

_SAMPLES_AHEAD = 4 * MAX_STREAM_SAMPLES


class Sample(NamedTuple):
    """One sample of one series.

    Attributes:
        series: its name, at most 256 bytes in UTF-8; each series has a window of its own.
        values: raw values in schema order (F1).
        restart: forget the window of the series first: there is a gap before this sample (ST4).
    """

    series: str
    values: Sequence[float]
    restart: bool = False


class Result(NamedTuple):
    """The answer to one sample.

    Attributes:
        sample: the sample.
        verdicts: one per detector of the stream, in their order; a ContractError where there is none: WINDOW_TOO_SHORT
            until the window is full, or a fault of the sample (ST5).
        model_set_id: the set that gave all of them.
    """

    sample: Sample
    verdicts: tuple[scoring_pb2.Verdict | ContractError, ...]
    model_set_id: str


class StreamError(Exception):
    """A stream ended before all samples were answered. Its windows are gone (ST3).

    To go on, open another stream and send, before `unanswered`, the window that came before them: the last
    `timesteps - 1` samples of each series, oldest first. Their results have been seen and are thrown away.

    Attributes:
        code: status of gRPC; DEADLINE_EXCEEDED when an answer did not come in time.
        refusal: what the server refused, such as MODEL_SET_MISMATCH after a reload; None when the connection or the
            server failed.
        unanswered: all samples handed to the stream that have no result, oldest first.
        results: of the call to `score` that failed, those that came.
    """

    def __init__(self, code: grpc.StatusCode, message: str, refusal: ContractError | None) -> None:
        super().__init__(str(refusal) if refusal else f"{code.name}: {message}")
        self.code = code
        self.refusal = refusal
        self.unanswered: list[Sample] = []
        self.results: list[Result] = []


class Stream:
    """An open stream, made by `Client.open_stream`. `score` may be called from several threads, which take turns; `run`
    has the stream for itself.

    Attributes:
        model_set_id: the set that gave the last answer.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        settings: scoring_pb2.StreamSettings,
        timeout: float,
        ended: Callable[[], None],
    ) -> None:
        self.model_set_id = ""
        self._settings = settings
        self._timeout = timeout
        self._ended = ended
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        # Samples without a result, oldest first; the first of them are on their way, in requests of these lengths.
        self._samples: deque[Sample] = deque()
        self._waiting: deque[scoring_pb2.StreamSample] = deque()
        self._requests: deque[int] = deque([0])  # the one with the settings
        self._ending = self._over = self._late = self._receiving = False
        self._failure: StreamError | None = None
        self._call = method(self._send())
        self._watch = _Watch(self._give_up)
        if not self._call.add_callback(self._stop):
            self._stop()

    @classmethod
    def opened(
        cls,
        method: Callable[..., Any],
        settings: scoring_pb2.StreamSettings,
        patience: float,
        timeout: float,
        ended: Callable[[], None],
    ) -> "Stream":
        """A stream whose settings the server has accepted.

        Args:
            method: of the stub.
            settings: of the stream.
            patience: seconds for the opening.
            timeout: seconds for every answer after that.
            ended: called once when the stream is over.

        Raises:
            grpc.RpcError: the server refuses, or the call fails.
        """
        stream = cls(method, settings, timeout, ended)
        stream._watch.arm(patience)
        try:
            stream._take(next(stream._call))
        except StopIteration:
            stream.close()
            raise _Failed(grpc.StatusCode.UNAVAILABLE, "the server ended the stream") from None
        except grpc.RpcError:
            stream.close()
            if stream._late:
                raise _Failed(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {patience:g} s") from None
            raise
        finally:
            stream._watch.disarm()
        return stream

    def score(self, samples: Iterable[Sample]) -> list[Result]:
        """Sends samples and waits for their results, in order.

        Raises:
            ContractError: INVALID_REQUEST, with the field `samples[i].series`, for a name that would end the stream.
            StreamError: the stream ended, or an answer took longer than the timeout, which ends it.
        """
        given = list(samples)
        with self._turn:
            self._put(given)
            results: list[Result] = []
            while len(results) < len(given):
                try:
                    results += self._receive() or []
                except StreamError as broken:
                    broken.results = results
                    raise
        return results

    def run(self, samples: Iterable[Sample]) -> Iterator[Result]:
        """Gives the result of each sample, in order, as they come. Samples are taken from their iterator by another
        thread, and those that wait while the server is busy travel together. Ends the stream. That thread may take one
        sample more after the stream broke; `unanswered` gets it too.

        Raises:
            StreamError: the stream ended early.
            ContractError: as `score`.
            Exception: whatever the iterator of samples raises, after the results that came before.
        """
        wrong: list[Exception] = []

        def feed() -> None:
            try:
                for sample in samples:
                    if not self._put([sample], wait=True):
                        return
            except Exception as error:  # raised again where the results are taken
                wrong.append(error)
            self._end()

        with self._turn:
            feeder = threading.Thread(target=feed, name="stream-samples", daemon=True)
            feeder.start()
            try:
                while True:
                    results = self._receive()
                    if results is None:
                        break
                    yield from results
            finally:
                self.close()
        if wrong:
            raise wrong[0]

    def close(self) -> None:
        """Ends the stream at once; may be called again."""
        self._call.cancel()
        self._stop()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- sending ---

    def _put(self, samples: list[Sample], *, wait: bool = False) -> bool:
        """Queues samples; False when the stream is over. With `wait`, waits for room first."""
        messages = [_message(i, sample) for i, sample in enumerate(samples)]
        with self._changed:
            while wait and not self._over and len(self._samples) >= _SAMPLES_AHEAD:
                self._changed.wait()
            self._samples.extend(samples)
            if self._over:
                if self._failure is not None:
                    self._failure.unanswered.extend(samples)
                return False
            self._waiting.extend(messages)
            if self._receiving:
                self._watch.arm(self._timeout)
            self._changed.notify_all()
        return True

    def _end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def _stop(self) -> None:
        """Nothing can be sent any more."""
        with self._changed:
            first, self._over = not self._over, True
            self._changed.notify_all()
        if first:
            self._watch.close()
            self._ended()

    def _send(self) -> Iterator[scoring_pb2.ScoreStreamRequest]:
        """The requests; gRPC takes them in a thread of its own."""
        yield scoring_pb2.ScoreStreamRequest(settings=self._settings)
        while True:
            with self._changed:
                while not self._over and not (self._waiting and len(self._requests) < _REQUESTS_AHEAD):
                    if self._ending and not self._waiting:
                        return
                    self._changed.wait()
                if self._over:
                    return
                count = min(len(self._waiting), MAX_STREAM_SAMPLES)
                batch = [self._waiting.popleft() for _ in range(count)]
                self._requests.append(count)
            yield scoring_pb2.ScoreStreamRequest(samples=batch)

    # --- receiving ---

    def _receive(self) -> list[Result] | None:
        """The results of the oldest request; None at the end after `_end`."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._receiving = True
            if self._samples:
                self._watch.arm(self._timeout)
        try:
            return self._take(next(self._call))
        except StopIteration:
            with self._changed:
                if self._ending and not self._samples:
                    return None
            raise self._broken(grpc.StatusCode.UNAVAILABLE, "the server ended the stream", None) from None
        except grpc.RpcError as error:
            if self._late:
                text = f"no answer within {self._timeout:g} s"
                raise self._broken(grpc.StatusCode.DEADLINE_EXCEEDED, text, None) from None
            raise self._broken(error.code(), error.details(), from_grpc(error)) from error
        finally:
            with self._changed:
                self._receiving = False
            self._watch.disarm()

    def _take(self, response: scoring_pb2.ScoreStreamResponse) -> list[Result]:
        with self._changed:
            wanted = self._settings.model_set_id
            if wanted and response.model_set_id != wanted:
                text = f"wanted {wanted}; the server answered with {response.model_set_id}"
                refusal = ContractError("MODEL_SET_MISMATCH", "model_set_id", text)
                raise self._broken(grpc.StatusCode.FAILED_PRECONDITION, text, refusal)
            count = self._requests.popleft() if self._requests else -1
            if count != len(response.results):
                text = f"the server answered {len(response.results)} samples instead of {count}"
                raise self._broken(grpc.StatusCode.INTERNAL, text, None)
            samples = [self._samples.popleft() for _ in range(count)]
            self._changed.notify_all()
        self.model_set_id = response.model_set_id
        return [
            Result(sample, tuple(map(_outcome, result.verdicts)), response.model_set_id)
            for sample, result in zip(samples, response.results, strict=True)
        ]

    def _broken(self, code: grpc.StatusCode, message: str, refusal: ContractError | None) -> StreamError:
        failure = StreamError(code, message, refusal)
        with self._changed:
            failure.unanswered = list(self._samples)
            self._failure = failure
        self.close()
        return failure

    def _give_up(self) -> None:
        self._late = True
        self._call.cancel()


class _Failed(grpc.RpcError):
    """A failure that gRPC does not know of, in its shape."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> tuple[()]:
        return ()


class _Watch:
    """Calls a function when an answer does not come in time. It has a thread of its own, since reading from a stream of
    gRPC takes no timeout; arming it costs nothing while that thread sleeps to an earlier time."""

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._deadline: float | None = None
        self._wakes = float("inf")
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="stream-watch", daemon=True).start()

    def arm(self, seconds: float) -> None:
        with self._changed:
            self._deadline = time.monotonic() + seconds
            if self._deadline < self._wakes:
                self._changed.notify()

    def disarm(self) -> None:
        with self._changed:
            self._deadline = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._deadline = None
                    self._late()
                    continue
                self._wakes = float("inf") if left is None else time.monotonic() + left
                self._changed.wait(left)


def _message(index: int, sample: Sample) -> scoring_pb2.StreamSample:
    try:
        fits = len(sample.series.encode()) <= MAX_SERIES_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ContractError(
            "INVALID_REQUEST",
            f"samples[{index}].series",
            f"{sample.series[:60]!r} is no name of a series; give at most {MAX_SERIES_BYTES} bytes of UTF-8",
        )
    return scoring_pb2.StreamSample(series=sample.series, values=sample.values, restart=sample.restart)


def _outcome(verdict: scoring_pb2.StreamVerdict) -> scoring_pb2.Verdict | ContractError:
    if verdict.WhichOneof("outcome") == "verdict":
        return verdict.verdict
    error = verdict.error
    return ContractError(code_name(error.code) if error.code else "INTERNAL", error.field, error.message)
