"""A small client of the server: messages out, messages in, refusals as ContractError."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar import detectors
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server.settings import MAX_MESSAGE_BYTES
from dwcp_sidecar.server.status import from_grpc
from dwcp_sidecar.verdicts import Explain, Verdicts

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # a sidecar is on this machine: a proxy of the environment is not for it
]


class Client:
    """Connects on first use. Safe to call from several threads.

    Args:
        address: `host:port` or `unix:/path`.
        timeout: seconds until a call fails with DEADLINE_EXCEEDED; each method takes another one.

    Every method raises ContractError when the server refuses, and grpc.RpcError when the call itself fails (no server,
    deadline): that is never a score either (E3).

    Example:
        >>> with Client("127.0.0.1:50051") as client:              # doctest: +SKIP
        ...     response = client.score("isolation_forest", [[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]])
        >>> response.verdict.is_anomaly                            # doctest: +SKIP
        False
    """

    def __init__(self, address: str, *, timeout: float = 0.25) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = scoring_pb2_grpc.ScoringServiceStub(self._channel)

    def score(
        self,
        detector: str,
        samples: Sequence[Sequence[float]],
        *,
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> scoring_pb2.ScoreResponse:
        """Scores one request.

        Args:
            detector: for example `isolation_forest`.
            samples: raw values in schema order, oldest first (W1, W2).
            explain: when contributions and expected values are wanted.
            model_set_id: refuse unless this set is in use; empty for any.
            timeout: seconds, instead of the client's.
        """
        request = scoring_pb2.ScoreRequest(detector=_number(detector), explain=int(explain), model_set_id=model_set_id)
        for sample in samples:
            request.samples.add().values.extend(sample)
        return self._call(self._stub.Score, request, timeout)

    def score_batch(
        self,
        detector: str,
        rows: Any,
        *,
        series: bool = False,
        explain: Explain = Explain.ALARMS,
        model_set_id: str = "",
        timeout: float | None = None,
    ) -> scoring_pb2.ScoreBatchResponse:
        """Scores many items to the same bits as `score` (W4).

        Args:
            rows: raw values `[n, features]` or `[items, timesteps, features]`.
            series: the rows are one series, oldest first; every full window is an item.
        """
        request = scoring_pb2.ScoreBatchRequest(
            detector=_number(detector),
            rows=np.asarray(rows, "<f8").tobytes(),
            layout=scoring_pb2.BATCH_LAYOUT_SERIES if series else scoring_pb2.BATCH_LAYOUT_WINDOWS,
            explain=int(explain),
            model_set_id=model_set_id,
        )
        return self._call(self._stub.ScoreBatch, request, timeout)

    def model_set(self, *, timeout: float | None = None) -> scoring_pb2.GetModelSetResponse:
        """The model set in use: its id and the metadata of its models."""
        return self._call(self._stub.GetModelSet, scoring_pb2.GetModelSetRequest(), timeout)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        try:
            return method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            refusal = from_grpc(error)
            if refusal is None:
                raise
            raise refusal from None


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
    )


def verdicts_of_batch(response: scoring_pb2.ScoreBatchResponse) -> Verdicts:
    """An answer of `Client.score_batch` with Explain.ALWAYS as Verdicts, to the same bits."""
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
