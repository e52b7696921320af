"""Both sidecars as processes that a test may torment, and what is known about their answers."""

import contextlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dwcp.anomaly.v1 import golden_pb2, scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar import protojson
from dwcp_sidecar.calibration import Calibration
from dwcp_sidecar.model_set import identify
from tests.conformance import go_program
from tests.conformance.edited_set import with_metadata

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "models/reference/v1"
PYTHON = Path(sys.executable).with_name("dwcp-sidecar")
DETECTORS = ("isolation_forest", "lstm_autoencoder")
START_SECONDS = 60
CALL_SECONDS = 20
MAY_GROW = 1.10
"""Resident memory after a fault, as a multiple of that before it."""

CHANCE = 5 << 20
"""Bytes that a garbage collector may hold more or less by chance: more than a tenth of the Go sidecar alone."""


COMMANDS: dict[str, Callable[[], list[str | Path]]] = {
    "python": lambda: [PYTHON, "serve"],
    "workers": lambda: [PYTHON, "serve", "--workers", "2"],
    "go": lambda: [go_program.sidecar()],
}
"""Kinds of sidecar: the Python one as one process and as several, and the Go one."""


@dataclass(frozen=True)
class Known:
    """A golden case: a request, and the answer that the contract wants."""

    request: scoring_pb2.ScoreRequest
    score: float
    is_anomaly: bool
    p_values: dict[str, float]
    """Of each model set that may answer, by its id."""


def variant(models: Path, to: Path) -> str:
    """A second good set with other p-values: without the lowest held-out score. Returns its id."""

    def change(metadata: dict[str, Any]) -> None:
        del metadata["calibration"]["scores"][0]

    return identify(with_metadata(models, to, change))


def known_cases(*sets: Path) -> list[Known]:
    """The golden cases of the reference set that have a score, with the p-values of all sets (the reference set's)."""
    cases = []
    for number, name in enumerate(DETECTORS, start=1):
        path = REFERENCE / f"{name}.golden.json"
        calibrations = {identify(models): _calibration(models, name) for models in sets or (REFERENCE,)}
        file = protojson.parse(path.read_bytes(), golden_pb2.GoldenFile(), path.name)
        for case in file.cases:
            if case.HasField("score"):
                request = scoring_pb2.ScoreRequest(detector=number, samples=case.samples)
                score, is_anomaly = case.score.score, case.score.is_anomaly
                p_values = {id: held_out.single(score, is_anomaly)[0] for id, held_out in calibrations.items()}
                cases.append(Known(request, score, is_anomaly, p_values))
    return cases


def _calibration(models: Path, name: str) -> Calibration:
    manifest = json.loads((models / "manifest.json").read_bytes())
    entry = next(entry for entry in manifest["models"] if entry["graph"] == f"{name}.onnx")
    metadata = json.loads((models / entry["metadata"]).read_bytes())
    return Calibration(np.array(metadata["calibration"]["scores"], np.float32))


def wrong(known: Known, answer: scoring_pb2.ScoreResponse) -> bool:
    """Whether an answer is not the contract's, to the bit, or mixes model sets."""
    verdict = answer.verdict
    wanted = (known.score, known.is_anomaly, known.p_values.get(answer.model_set_id))
    return (verdict.score, verdict.is_anomaly, verdict.p_value) != wanted


@dataclass
class Endpoint:
    """A running sidecar.

    Attributes:
        kind: a key of COMMANDS.
        process: of the sidecar, or of the supervisor of its workers.
        addresses: for gRPC.
        metrics: `host:port` of its page; empty for none.
        messages: what it wrote to standard error so far.
    """

    kind: str
    process: subprocess.Popen[str]
    addresses: list[str]
    model_set_id: str
    metrics: str = ""
    messages: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.addresses[0]

    def processes(self) -> list[int]:
        """Ids of the process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def memory(self) -> int:
        """Resident bytes of all its processes; what they share is counted for each."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                total += 1024 * int((re.search(r"VmRSS:\s+(\d+)", status) or [0, 0])[1])
        return total

    def count(self, metric: str) -> float:
        """Sum of the series of a metric on its page."""
        page = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10).read().decode()
        lines = re.findall(rf"^{re.escape(metric)}(?:\{{[^}}]*\}})? (\S+)$", page, re.M)
        return sum(map(float, lines))

    def channel(self, address: str = "", **options: int) -> grpc.Channel:
        """A connection of its own: gRPC shares one between channels otherwise."""
        # The number makes the options differ, so that no two channels share a connection.
        arguments = [("grpc.use_local_subchannel_pool", 1), ("dwcp.test", next(_numbers))]
        # As our clients: back in a moment after a worker died, where gRPC on its own waits a second and longer.
        arguments += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500)]
        arguments += [(f"grpc.{key}", value) for key, value in options.items()]
        return grpc.insecure_channel(address or self.address, options=arguments)

    def serving(self) -> bool:
        """Whether health says so, within a second."""
        with self.channel() as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def check(self, cases: Sequence[Known]) -> None:
        """Every case gets the contract's answer."""
        with self.channel() as channel:
            stub = scoring_pb2_grpc.ScoringServiceStub(channel)
            for known in cases:
                answer = stub.Score(known.request, timeout=CALL_SECONDS)
                assert not wrong(known, answer), (known, answer)


_numbers = itertools.count()


@contextlib.contextmanager
def serving(kind: str, models: Path, *flags: str | Path, metrics: bool = False) -> Iterator[Endpoint]:
    """A sidecar of a kind; all its processes are gone when the block ends."""
    command = [*COMMANDS[kind](), "--models", models, *flags]
    if not any(flag in flags for flag in ("--listen", "--unix")):
        command += ["--listen", "127.0.0.1:0"]
    page = ""
    if metrics:
        page = f"127.0.0.1:{free_port()}"
        command += ["--metrics", page]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    endpoint = Endpoint(kind, process, [], "", page)
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True),
        threading.Thread(target=lambda: endpoint.messages.extend(process.stderr or ()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    pids = [process.pid]
    try:
        try:
            word, *endpoint.addresses, last = lines.get(timeout=START_SECONDS).split()
        except (queue.Empty, ValueError):
            raise AssertionError(f"{kind} did not start: {''.join(endpoint.messages)}") from None
        assert word == "ready"
        endpoint.model_set_id = last.removeprefix("model_set=")
        yield endpoint
        pids = endpoint.processes()
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)
        for pid in pids[1:]:
            with contextlib.suppress(OSError):  # a worker goes with its supervisor; nothing may stay in any case
                os.kill(pid, signal.SIGKILL)
        for reader in readers:
            reader.join(5)


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Clients that ask for known answers without a pause, and count what they get.

    Args:
        endpoint: whom they ask.
        cases: what they ask, in turn.
        clients: threads, each with a connection of its own.
        retries: tries of a call that was not taken (UNAVAILABLE, CANCELLED, RESOURCE_EXHAUSTED), as our clients do.

    Attributes:
        answers: calls that were answered.
        wrong: of them, with another score or decision than the contract's.
        errors: calls that failed after all tries, by status.
        ids: model sets that answered.
    """

    def __init__(self, endpoint: Endpoint, cases: Sequence[Known], clients: int = 4, retries: int = 0) -> None:
        self.answers = 0
        self.wrong = 0
        self.errors: Counter[str] = Counter()
        self.ids: set[str] = set()
        self._endpoint = endpoint
        self._cases = cases
        self._retries = retries
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * CALL_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def _ask(self, offset: int) -> None:
        address = self._endpoint.addresses[offset % len(self._endpoint.addresses)]
        with self._endpoint.channel(address) as channel:
            stub = scoring_pb2_grpc.ScoringServiceStub(channel)
            for turn in range(1_000_000):
                if self._stop.is_set():
                    return
                known = self._cases[(offset * 37 + turn) % len(self._cases)]
                self._one(stub, known)

    def _one(self, stub: scoring_pb2_grpc.ScoringServiceStub, known: Known) -> None:
        for tries_left in range(self._retries, -1, -1):
            try:
                answer = stub.Score(known.request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                if tries_left and error.code().name in ("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"):
                    time.sleep(0.05)
                    continue
                with self._lock:
                    self.errors[error.code().name] += 1
                return
            with self._lock:
                self.answers += 1
                self.wrong += wrong(known, answer)
                self.ids.add(answer.model_set_id)
            return


def loaded(endpoint: Endpoint, cases: Sequence[Known], seconds: float) -> int:
    """Most resident memory while clients ask without a pause; every answer is the contract's, and none is missing.

    Under load on both sides of a comparison: what a garbage collector happens to hold at rest is chance.
    """
    most = 0
    until = time.monotonic() + seconds
    with Load(endpoint, cases) as load:
        while time.monotonic() < until:
            most = max(most, endpoint.memory())
            time.sleep(0.1)
    assert load.answers > 50, load.errors
    assert (load.wrong, load.errors) == (0, Counter())
    return most


@contextlib.contextmanager
def surviving(endpoint: Endpoint, cases: Sequence[Known]) -> Iterator[None]:
    """A fault: after it the sidecar answers, no score is wrong, and its memory has not grown by more than a tenth."""
    before = loaded(endpoint, cases, 2)
    yield
    until = time.monotonic() + 20
    while not endpoint.serving() and time.monotonic() < until:
        time.sleep(0.1)
    endpoint.check(cases[::5])
    # Memory goes back to the system a while after it is let go.
    most = max(MAY_GROW * before, before + CHANCE)
    while (after := loaded(endpoint, cases, 1)) > most and time.monotonic() < until:
        time.sleep(0.5)
    assert after <= most, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"
