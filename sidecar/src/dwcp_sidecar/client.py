"""A small client of the server: messages out, messages in, refusals as ContractError."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.client_connections import Connection, Connections, TlsFiles
from dwcp_sidecar.client_retries import RETRIES, Caller
from dwcp_sidecar.client_stream import Result, Sample, Stream, StreamError
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server.status import from_grpc
from dwcp_sidecar.verdicts import Explain, MemberVerdicts, Verdicts

__all__ = ["Client", "Result", "Sample", "Stream", "StreamError", "TlsFiles", "verdicts_of_batch", "verdicts_of_score"]


class Client:
    """Connects on first use. Safe to call from several threads.

    Args:
        address: `host:port` or `unix:/path`; several addresses of one sidecar, separated by commas, share the calls.
        timeout: seconds until a call fails with DEADLINE_EXCEEDED, attempts and pauses included; each method takes
            another one.
        connections: to each address. A call takes the one with the fewest calls in flight. A sidecar with several
            workers behind one TCP address needs several, as a connection stays with one worker.
        retries: how often a call that scored nothing is sent again at most (see `client_retries`); 0 for never.
        model_set_id: the set to insist on with every call; empty for whatever set is in use: every answer names it.
        tls: encrypts TCP connections; unix sockets stay plain.

    Every method raises ContractError when the server refuses, and grpc.RpcError when the call itself fails (no server,
    too many calls, deadline): that is never a score either (E3). Its `code()` says which.

    Example:
        >>> with Client("127.0.0.1:50051") as client:              # doctest: +SKIP
        ...     response = client.score("isolation_forest", [[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]])
        >>> response.verdict.is_anomaly                            # doctest: +SKIP
        False
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 0.25,
        connections: int = 1,
        retries: int = RETRIES,
        model_set_id: str = "",
        tls: TlsFiles | None = None,
    ) -> None:
        self._timeout = timeout
        self._connections = Connections(address, connections, tls)
        self._caller = Caller(self._connections, retries)
        self._pinned = model_set_id

    def score(
        self,
        detector: str,
        samples: Sequence[Sequence[float]],
        *,
        series: str = "",
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> scoring_pb2.ScoreResponse:
        """Scores one request.

        Args:
            detector: for example `isolation_forest`.
            samples: raw values in schema order, oldest first (W1, W2).
            series: whose they are: a fleet scores them with the set of this series (FL2).
            explain: when contributions and expected values are wanted.
            model_set_id: refuse unless this set is in use; empty for the client's.
            timeout: seconds, instead of the client's.
        """
        request = scoring_pb2.ScoreRequest(
            detector=_number(detector),
            explain=int(explain),
            model_set_id=model_set_id or self._pinned,
            series=series,
        )
        for sample in samples:
            request.samples.add().values.extend(sample)
        return self._score(lambda stub: stub.Score, request, timeout)

    def score_batch(
        self,
        detector: str,
        rows: Any,
        *,
        series: bool = False,
        series_name: str = "",
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> scoring_pb2.ScoreBatchResponse:
        """Scores many items to the same bits as `score` (W4).

        Args:
            rows: raw values `[n, features]` or `[items, timesteps, features]`.
            series: the rows are one series, oldest first; every full window is an item.
            series_name: whose rows they are: what `score` calls `series`.
        """
        request = scoring_pb2.ScoreBatchRequest(
            detector=_number(detector),
            rows=np.asarray(rows, "<f8").tobytes(),
            layout=scoring_pb2.BATCH_LAYOUT_SERIES if series else scoring_pb2.BATCH_LAYOUT_WINDOWS,
            explain=int(explain),
            model_set_id=model_set_id or self._pinned,
            series=series_name,
        )
        return self._score(lambda stub: stub.ScoreBatch, request, timeout)

    def model_set(self, *, series: str = "", timeout: float | None = None) -> scoring_pb2.GetModelSetResponse:
        """The model set in use: its id and the metadata of its models.

        Args:
            series: at a fleet: whose set; without one, the answer is the id of the fleet.
            timeout: seconds, instead of the client's.
        """
        return self._call(lambda stub: stub.GetModelSet, scoring_pb2.GetModelSetRequest(series=series), timeout)

    def pin(self, *, timeout: float | None = None) -> str:
        """Insists on the set that is in use now, with every further call and stream, and returns its id.

        After the server has loaded another one every call is MODEL_SET_MISMATCH, until `pin` is called again.

        Raises:
            ContractError: UNKNOWN_SERIES at a fleet, which has a set for each series: give `model_set_id` with calls.
        """
        used = self.model_set(timeout=timeout)
        if used.fleet_id:
            what = f"the server has the fleet {used.fleet_id[:16]}, with a set for each series: pin it call by call"
            raise ContractError("UNKNOWN_SERIES", "series", what)
        self._pinned = used.model_set_id
        return self._pinned

    def reload(self, *, timeout: float = 60.0) -> scoring_pb2.ReloadResponse:
        """Makes the server open the model set that its folder holds now (R1 to R6), and says which set is in use then
        and whether it is another one than before. All workers follow. A pinned client stays pinned.

        Never sent again by itself.

        Raises:
            ContractError: the new set is refused, with the code and the file; the old one stays in use.
            grpc.RpcError: PERMISSION_DENIED where the address may not be used for this.
        """
        connection = self._connections.take()
        try:
            return connection.operations.Reload(scoring_pb2.ReloadRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise _refusal(error) from None
        finally:
            self._connections.give_back(connection)

    def open_stream(
        self,
        detector_names: Sequence[str],
        *,
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> Stream:
        """Opens a stream, on which every sample is sent once and the server keeps the windows (ST1 to ST8).

        Args:
            detector_names: each of them scores every sample.
            model_set_id: the stream ends as soon as another set is in use; empty for the client's.
            timeout: seconds for opening it, and for any answer on it.

        Example:
            >>> with client.open_stream(["isolation_forest"]) as stream:        # doctest: +SKIP
            ...     (result,) = stream.score([Sample("link-7", [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001])])
        """
        settings = scoring_pb2.StreamSettings(
            detectors=map(_number, detector_names), explain=int(explain), model_set_id=model_set_id or self._pinned
        )
        patience = self._timeout if timeout is None else timeout

        def attempt(connection: Connection, seconds: float) -> Stream:
            hold = self._connections.hold(connection)
            return Stream.opened(connection.scoring.ScoreStream, settings, seconds, patience, hold)

        try:
            return self._caller.call(attempt, patience)
        except grpc.RpcError as error:
            raise _refusal(error) from None

    def stream(
        self,
        detector_names: Sequence[str],
        samples: Iterable[Sample],
        *,
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> Iterator[Result]:
        """Scores samples as they come from an iterator, which may be endless; see `open_stream` and `Stream.run`."""
        with self.open_stream(detector_names, explain=explain, model_set_id=model_set_id, timeout=timeout) as stream:
            yield from stream.run(samples)

    @property
    def attempts(self) -> int:
        """Calls sent so far, those included that were sent again."""
        return self._caller.attempts

    @property
    def retried(self) -> int:
        """Calls that were sent again."""
        return self._caller.retried

    def close(self) -> None:
        """Closes all connections; open streams end."""
        self._connections.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        try:
            return self._caller.call(
                lambda connection, seconds: method(connection.scoring)(request, timeout=seconds),
                self._timeout if timeout is None else timeout,
            )
        except grpc.RpcError as error:
            raise _refusal(error) from None

    def _score(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        response = self._call(method, request, timeout)
        if request.model_set_id and response.model_set_id != request.model_set_id:
            raise ContractError(
                "MODEL_SET_MISMATCH",
                "model_set_id",
                f"wanted {request.model_set_id}; the server answered with {response.model_set_id}",
            )
        return response


def _refusal(error: grpc.RpcError) -> Exception:
    """The refusal that a failed call carries, or else the failure."""
    return from_grpc(error) or error


def verdicts_of_score(response: scoring_pb2.ScoreResponse) -> Verdicts:
    """An answer of `Client.score` as Verdicts with `n = 1`, to the same bits."""
    verdict = response.verdict
    return Verdicts(
        scores=np.array([verdict.score], np.float32),
        is_anomaly=np.array([verdict.is_anomaly]),
        p_values=np.array([verdict.p_value]),
        levels=np.array([verdict.level]),
        contributions=np.array([verdict.contributions], np.float32),
        expected=np.array([verdict.expected], np.float32),
        explained=np.array([len(verdict.contributions) > 0]),
        depth_sums=np.array([verdict.depth_sum]) if verdict.HasField("depth_sum") else None,
        members=_members_of(verdict) if verdict.members else None,
    )


def _members_of(verdict: scoring_pb2.Verdict) -> MemberVerdicts:
    said = verdict.members
    members = MemberVerdicts.without_answers([m.detector for m in said], [m.missing for m in said], count=1)
    for k, member in enumerate(said):
        if not member.missing:
            members.weights[k] = member.weight
            members.scores[k], members.normalized[k] = member.score, member.normalized
    return members


def verdicts_of_batch(response: scoring_pb2.ScoreBatchResponse) -> Verdicts:
    """An answer of `Client.score_batch` with Explain.ALWAYS as Verdicts, to the same bits. It names no members."""
    count = len(response.scores)
    return Verdicts(
        scores=np.array(response.scores, np.float32),
        is_anomaly=np.array(response.is_anomaly, bool),
        p_values=np.array(response.p_values, np.float64),
        levels=np.array(response.levels, np.int64),
        contributions=np.array(response.contributions, np.float32).reshape(count, -1),
        expected=np.array(response.expected, np.float32).reshape(count, -1),
        explained=np.ones(count, bool),
        depth_sums=np.array(response.depth_sums, np.float64) if response.depth_sums else None,
    )


def _number(detector: str) -> int:
    if detector not in detectors.BY_NAME:
        raise ContractError(
            "UNKNOWN_DETECTOR", "detector", f"{detector!r} is no detector; there are {', '.join(detectors.BY_NAME)}"
        )
    return detectors.BY_NAME[detector]
