"""Clients of a running server: one that asks, and some that call without a pause and check every answer."""

import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dwcp.anomaly.v1 import features_pb2, golden_pb2, scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.server import status
from dwcp_sidecar.server.app import health_name
from dwcp_sidecar.verdicts import Verdicts

ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
FOREST, LSTM = 1, 2
WAIT = 30
"""Seconds that anything may take before a test fails."""


def windows_of(file: golden_pb2.GoldenFile, timesteps: int) -> np.ndarray:
    """The scored part of every golden case that has a score, float64 `[items, timesteps, features]`."""
    cases = [case for case in file.cases if case.HasField("score")]
    return np.array([[sample.values for sample in case.samples][-timesteps:] for case in cases])


def assert_same_bits(got: Verdicts, wanted: Verdicts, *, but: Collection[str] = ()) -> None:
    """The same values to the last bit in all columns but those named."""
    assert got.members is None  # a batch says nothing of the members of an ensemble: test_ensemble.py has them
    for name in set(Verdicts.__dataclass_fields__).difference(but, {"members"}):
        one, other = getattr(got, name), getattr(wanted, name)
        if other is None:
            assert one is None, name
        else:
            assert one.shape == other.shape, name
            assert one.astype(other.dtype).tobytes() == other.tobytes(), name


class Caller:
    """One client of a server, on a connection of its own."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.scoring = scoring_pb2_grpc.ScoringServiceStub(self.channel)
        self.operations = scoring_pb2_grpc.OperationsServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def reload(self):
        return self.operations.Reload(scoring_pb2.ReloadRequest(), timeout=WAIT)

    def refusal(self):
        """Code and field with which Reload refuses."""
        with pytest.raises(grpc.RpcError) as caught:
            self.reload()
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        error = status.from_grpc(caught.value)
        return error.code, error.field

    def id(self):
        return self.scoring.GetModelSet(scoring_pb2.GetModelSetRequest(), timeout=WAIT).model_set_id

    def until(self, id):
        """Waits for a set to be in use."""
        end = time.monotonic() + WAIT
        while self.id() != id:
            assert time.monotonic() < end, f"{id} did not come into use; {self.id()} is"
            time.sleep(0.02)

    def health(self, detector):
        request = health_pb2.HealthCheckRequest(service=health_name(detector))
        answer = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=WAIT)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def one(detector=FOREST):
    samples = [features_pb2.Sample(values=ROW)] * (1 if detector == FOREST else 10)
    return scoring_pb2.ScoreRequest(detector=detector, samples=samples)


class Load:
    """Clients that call without a pause, and what went wrong: a failed call, or a score that is not of the set named.

    Args:
        address: of the server.
        sets: model sets that may answer.
    """

    def __init__(self, address, sets):
        self._address = address
        self._stop = threading.Event()
        self.answers = 0
        self.seen = set()
        self.faults = []
        rows = np.tile(ROW, (64, 1)) * np.linspace(0.5, 2, 64)[:, None]
        self._batch = scoring_pb2.ScoreBatchRequest(detector=FOREST, rows=rows.tobytes())
        self._wanted = {
            models.id: (
                float(models.model("isolation_forest").score([ROW]).scores[0]),
                models.model("isolation_forest").score_batch(rows).scores.tolist(),
            )
            for models in sets
        }
        self._pool = ThreadPoolExecutor(3)

    def __enter__(self):
        for client in (self._unary, self._batches, self._stream):
            self._pool.submit(self._guard, client)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown()

    def _guard(self, client):
        try:
            with Caller(self._address) as caller:
                client(caller)
        except BaseException as error:
            self.faults.append(repr(error))

    def _check(self, id, single=None, batch=None):
        wanted = self._wanted[id]
        if (single is not None and single != wanted[0]) or (batch is not None and batch != wanted[1]):
            self.faults.append(f"{id} gave {single or batch}")
        self.seen.add(id)
        self.answers += 1

    def _unary(self, caller):
        while not self._stop.is_set():
            answer = caller.scoring.Score(one(), timeout=WAIT)
            self._check(answer.model_set_id, single=answer.verdict.score)

    def _batches(self, caller):
        while not self._stop.is_set():
            answer = caller.scoring.ScoreBatch(self._batch, timeout=WAIT)
            self._check(answer.model_set_id, batch=list(answer.scores))

    def _stream(self, caller):
        answered = threading.Semaphore(1)

        def requests():
            settings = scoring_pb2.StreamSettings(detectors=[FOREST])
            yield scoring_pb2.ScoreStreamRequest(settings=settings)
            while answered.acquire() and not self._stop.is_set():
                yield scoring_pb2.ScoreStreamRequest(samples=[scoring_pb2.StreamSample(series="a", values=ROW)])

        for answer in caller.scoring.ScoreStream(requests(), timeout=200):
            for result in answer.results:
                self._check(answer.model_set_id, single=result.verdicts[0].verdict.score)
                answered.release()


def at_work(*pids, seconds=0.1):
    """Waits until each process has computed for so long from now on: the long call that it was sent is in flight."""
    ticks = os.sysconf("SC_CLK_TCK")
    before = {pid: _ticks(pid) for pid in pids}
    end = time.monotonic() + WAIT
    while any(_ticks(pid) - before[pid] < seconds * ticks for pid in pids):
        assert time.monotonic() < end, "no call reaches the server"
        time.sleep(0.01)


def _ticks(pid):
    """Processor time of a process in clock ticks, its own and the system's for it."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def resident(pid):
    """Resident memory in kB."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmRSS"))
