"""A running sidecar asked by ScoreStream: each line is a series, and the verdict of its last sample the answer."""

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar import detectors
from dwcp_sidecar.client import verdicts_of_score
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.limits import MAX_SAMPLES, MAX_STREAM_SAMPLES
from dwcp_sidecar.model_set import identify
from dwcp_sidecar.requests import Request, RequestError, answer, answer_error, parse_request
from dwcp_sidecar.server.status import from_grpc

_SECONDS = 600


class StreamingSidecar:
    """Lines to ScoreStream, `batch` lines together in as few requests as they fit in.

    A stream cannot carry a request without samples, nor more than the 256 of W3 as one: those are refused here, as a
    client of streams would do.
    """

    has_threads = False

    def __init__(self, name: str, models: Path, address: str) -> None:
        self.name = name
        self._id = identify(models)
        self._address = address

    def run(self, requests: Path, answers: Path, lines: int, batch: int, threads: int) -> None:
        """Answers every line of a file."""
        with (
            requests.open("rb") as source,
            answers.open("w", encoding="utf-8") as out,
            grpc.insecure_channel(self._address) as channel,
        ):
            streams: dict[str, _Stream] = {}
            group: list[bytes] = []
            for line in source:
                group.append(line)
                if len(group) == batch:
                    out.writelines(self._answers(group, streams, channel))
                    group = []
            out.writelines(self._answers(group, streams, channel))
            for stream in streams.values():
                stream.close()

    def _answers(self, group: Sequence[bytes], streams: dict[str, "_Stream"], channel: grpc.Channel) -> list[str]:
        parsed: list[Request | RequestError] = []
        for line in group:
            try:
                parsed.append(parse_request(line.rstrip(b"\n")))
            except RequestError as error:
                parsed.append(error)
        waiting: dict[str, list[int]] = {}
        answers: dict[int, str] = {}
        for index, request in enumerate(parsed):
            if isinstance(request, RequestError):
                answers[index] = answer_error(request.id, request.error)
                continue
            try:
                stream = streams.get(request.detector)
                if stream is None:
                    stream = streams[request.detector] = _Stream(channel, request.detector, self._id)
                _check_count(request)
            except ContractError as error:
                answers[index] = answer_error(request.id, error)
                continue
            waiting.setdefault(request.detector, []).append(index)
        for detector, indices in waiting.items():
            asked = [parsed[index] for index in indices]
            for index, request, result in zip(indices, asked, streams[detector].score(asked), strict=True):
                answers[index] = _line(request.id, result)
        return [answers[index] + "\n" for index in range(len(group))]


def _check_count(request: Request) -> None:
    count = len(request.samples)
    if count == 0:
        raise ContractError("NO_SAMPLES", "samples", "no sample given")
    if count > MAX_SAMPLES:
        raise ContractError("TOO_MANY_SAMPLES", "samples", f"{count} samples given")


def _line(id: Any, verdicts: list[scoring_pb2.StreamVerdict]) -> str:
    """The answer to a line from the verdicts of its samples: the first fault of one, or the last verdict."""
    for index, verdict in enumerate(verdicts):
        error = verdict.error
        if verdict.HasField("error") and code_name(error.code) != "WINDOW_TOO_SHORT":
            field = error.field.replace("values", f"samples[{index}]", 1)
            return answer_error(id, ContractError(code_name(error.code), field, error.message))
    if verdicts[-1].HasField("error"):
        return answer_error(id, ContractError("WINDOW_TOO_SHORT", "samples", verdicts[-1].error.message))
    return answer(id, verdicts_of_score(scoring_pb2.ScoreResponse(verdict=verdicts[-1].verdict)))


class _Stream:
    """One open stream of one detector.

    Raises:
        ContractError: when its settings are refused.
    """

    def __init__(self, channel: grpc.Channel, detector: str, id: str) -> None:
        self._requests: queue.SimpleQueue[scoring_pb2.ScoreStreamRequest | None] = queue.SimpleQueue()
        self._answers = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(
            iter(self._requests.get, None), timeout=_SECONDS
        )
        number = detectors.BY_NAME.get(detector, 77)
        settings = scoring_pb2.StreamSettings(detectors=[number], explain=2, model_set_id=id)
        self._requests.put(scoring_pb2.ScoreStreamRequest(settings=settings))
        try:
            next(self._answers)
        except grpc.RpcError as error:
            refusal = from_grpc(error)
            if refusal is None:
                raise
            field = {"settings.detectors[0]": "detector", "settings.model_set_id": "model_set_id"}[refusal.field]
            raise ContractError(refusal.code, field, refusal.message) from None

    def score(self, requests: Sequence[Request]) -> Iterator[list[scoring_pb2.StreamVerdict]]:
        """The verdicts of the samples of each request."""
        samples = [
            scoring_pb2.StreamSample(series=str(number), values=values, restart=index == 0)
            for number, request in enumerate(requests)
            for index, values in enumerate(request.samples)
        ]
        verdicts: list[scoring_pb2.StreamVerdict] = []
        for start in range(0, len(samples), MAX_STREAM_SAMPLES):
            part = samples[start : start + MAX_STREAM_SAMPLES]
            self._requests.put(scoring_pb2.ScoreStreamRequest(samples=part))
            results = next(self._answers).results
            assert len(results) == len(part)
            verdicts += [result.verdicts[0] for result in results]
        rest = iter(verdicts)
        for request in requests:
            yield [next(rest) for _ in request.samples]

    def close(self) -> None:
        """Ends the stream as a client does that has nothing more to say."""
        self._requests.put(None)
        assert list(self._answers) == []
