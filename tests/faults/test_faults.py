"""Faults that the sidecars survive: afterwards they answer, no score was wrong, memory has not grown by a tenth."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from tests.faults.endpoint import COMMANDS, REFERENCE, Endpoint, Load, known_cases, serving, surviving

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
WATCH = ("--watch", "0.1")
CALM = 1.0
"""Seconds in which a sidecar looks at its folder many times."""


@pytest.fixture(scope="module")
def cases():
    found = known_cases()
    assert len(found) > 200
    return found


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model set that a test may damage."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "models"))


@pytest.fixture(params=["python", "go"])
def kind(request) -> str:
    return request.param


def refused(endpoint: Endpoint) -> float:
    return endpoint.count("dwcp_model_sets_refused_total")


def eventually(condition, seconds: float = 20.0) -> None:
    """Waits until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.05)


def deleted(models: Path) -> None:
    shutil.rmtree(models)


def half_written(models: Path) -> None:
    """As a copy that goes on for long leaves it: all files are there, one is not whole."""
    graph = models / "lstm_autoencoder.onnx"
    graph.write_bytes(graph.read_bytes()[:100_000])


def corrupted(models: Path) -> None:
    graph = models / "isolation_forest.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)


def forged(models: Path) -> None:
    """Another threshold, without a new digest."""
    metadata = models / "model_metadata.json"
    metadata.write_bytes(metadata.read_bytes().replace(b'"threshold": 0.5', b'"threshold": 0.4'))


def disk_full(models: Path) -> None:
    """A copy of a new set ends in the middle, where the disk has no more room: here, where a file may not grow."""
    source = models.with_name("new")
    shutil.copytree(models, source)
    script = (
        "import resource, shutil, signal, sys;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
    )
    copy = subprocess.run([sys.executable, "-c", script, source, models], capture_output=True, text=True)
    assert "File too large" in copy.stderr
    shutil.rmtree(source)


DAMAGES = (deleted, half_written, corrupted, forged, disk_full)


def test_damaged_model_sets(kind, models, cases):
    """The set in use stays, each damage is counted and said once, and a repaired folder is taken again."""
    whole = models.with_name("whole")
    shutil.copytree(models, whole)
    with serving(kind, models, *WATCH, metrics=True) as sidecar, surviving(sidecar, cases):
        for number, damage in enumerate(DAMAGES, start=1):
            with Load(sidecar, cases) as load:
                damage(models)
                eventually(lambda number=number: refused(sidecar) >= number)
                time.sleep(CALM)
            assert (load.wrong, load.errors, load.ids) == (0, Counter(), {sidecar.model_set_id}), damage
            assert refused(sidecar) == number, "it is said once, not at every look"
            said = [line for line in sidecar.messages if "refuse" in line.lower()]
            assert len(said) >= number, sidecar.messages
            before = sidecar.count("dwcp_reloads_total")
            shutil.rmtree(models, ignore_errors=True)
            shutil.copytree(whole, models.with_name("repaired"))
            models.with_name("repaired").rename(models)
            eventually(lambda before=before: sidecar.count("dwcp_reloads_total") > before)
            assert refused(sidecar) == number


@pytest.mark.parametrize("kind", ["workers"])
def test_worker_killed_under_load(kind, models, cases):
    with serving(kind, models, metrics=True) as sidecar, surviving(sidecar, cases):
        for _ in range(2):
            workers = sidecar.processes()[1:]
            assert len(workers) >= 2
            with Load(sidecar, cases, clients=6, retries=40) as load:
                time.sleep(0.5)
                os.kill(workers[0], signal.SIGKILL)
                eventually(lambda workers=workers: len(set(sidecar.processes()[1:]) - set(workers)) >= 1)
                time.sleep(1.5)
            assert (load.wrong, load.errors) == (0, Counter())
            assert load.answers > 100
        eventually(lambda: sidecar.count("dwcp_worker_restarts_total") == 2)


def malformed(random_: random.Random) -> tuple[str, bytes]:
    """A method and bytes that are no good request for it."""
    good = scoring_pb2.ScoreRequest(detector=1, samples=[{"values": ROW}]).SerializeToString()
    method = random_.choice(["Score", "ScoreBatch", "GetModelSet"])
    how = random_.randrange(4)
    if how == 0:
        return method, random_.randbytes(random_.randrange(1, 300))
    if how == 1:
        flipped = bytearray(good)
        flipped[random_.randrange(len(flipped))] ^= 1 << random_.randrange(8)
        return "Score", bytes(flipped)
    if how == 2:
        return "Score", good[: random_.randrange(len(good))]
    return "Score", scoring_pb2.ScoreRequest(detector=1, samples=[{"values": [float("nan")] * 7}]).SerializeToString()


def test_malformed_requests(kind, cases):
    """10,000 of them: each gets an answer or a typed refusal, and none costs anything for good."""
    random_ = random.Random(7)
    codes: Counter[str] = Counter()
    with serving(kind, REFERENCE) as sidecar, surviving(sidecar, cases), sidecar.channel() as channel:
        for _ in range(100):
            calls = []
            for _ in range(100):
                method, data = malformed(random_)
                path = f"/dwcp.anomaly.v1.ScoringService/{method}"
                calls.append(channel.unary_unary(path).future(data, timeout=20))
            for call in calls:
                error = call.exception()
                codes[error.code().name if error else "OK"] += 1
                if error:
                    assert "/" not in error.details().replace("/s", ""), error.details()
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}, codes
    assert codes["INVALID_ARGUMENT"] > 3000
    assert codes.total() == 10_000


def hang(address: str, data: bytes, count: int) -> list[socket.socket]:
    """TCP connections that send some bytes and then nothing."""
    host, port = address.rsplit(":", 1)
    sockets = [socket.create_connection((host, int(port)), timeout=5) for _ in range(count)]
    for one in sockets:
        with contextlib.suppress(OSError):
            one.sendall(data)
    return sockets


NONSENSE = (b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40)


def test_clients_that_send_slowly_or_nonsense(kind, cases):
    with serving(kind, REFERENCE) as sidecar, surviving(sidecar, cases):
        for data in NONSENSE:
            sockets = hang(sidecar.address, data, 200)
            sidecar.check(cases[::20])
            time.sleep(0.2)
            for one in sockets:
                one.close()


def test_a_thousand_streams(kind, cases):
    """Those above the limit are refused at once; unary calls go on; closed ones make room again."""
    settings = scoring_pb2.StreamSettings(detectors=[1])
    first = scoring_pb2.ScoreStreamRequest(settings=settings, samples=[{"series": "a", "values": ROW}])
    limit = 50
    with serving(kind, REFERENCE, "--max-streams", str(limit)) as sidecar, surviving(sidecar, cases):
        done = threading.Event()

        def requests():
            yield first
            done.wait(60)

        channels = [sidecar.channel() for _ in range(20)]
        stubs = [scoring_pb2_grpc.ScoringServiceStub(channel) for channel in channels]
        streams = [stubs[i % len(stubs)].ScoreStream(requests(), timeout=60) for i in range(1000)]
        outcomes: Counter[str] = Counter()
        for stream in streams:
            try:
                outcomes["answered" if next(stream).results[0].verdicts[0].HasField("verdict") else "wrong"] += 1
            except grpc.RpcError as error:
                outcomes[error.code().name] += 1
        assert outcomes == {"answered": limit, "RESOURCE_EXHAUSTED": 1000 - limit}
        sidecar.check(cases[::20])
        done.set()
        for stream in streams:
            stream.cancel()
        for channel in channels:
            channel.close()

        def answered_again() -> bool:
            with sidecar.channel() as channel:
                try:
                    next(scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(iter([first]), timeout=10))
                except grpc.RpcError:
                    return False
                return True

        eventually(answered_again)


def test_a_client_that_never_reads(kind, cases):
    """The server stops reading from it: what is not taken does not pile up, and the stream ends when nothing moves."""
    settings = scoring_pb2.StreamSettings(detectors=[1], explain=scoring_pb2.EXPLAIN_ALWAYS)
    first = scoring_pb2.ScoreStreamRequest(settings=settings)
    many = scoring_pb2.ScoreStreamRequest(samples=[{"series": "a", "values": ROW}] * 2000)
    with serving(kind, REFERENCE, "--stream-idle", "2", metrics=True) as sidecar, surviving(sidecar, cases):
        sent = [0]

        def requests():
            yield first
            for _ in range(2_000):  # 4 million samples, some gigabyte of answers
                sent[0] += 1
                yield many

        # gRPC reads ahead for a client only as far as its window goes.
        with sidecar.channel(**{"http2.bdp_probe": 0, "http2.lookahead_bytes": 65536}) as channel:
            stream = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(requests(), timeout=120)
            eventually(lambda: sidecar.count("dwcp_streams") == 1)
            sidecar.check(cases[::20])
            eventually(lambda: sidecar.count("dwcp_streams") == 0, 60)
            assert sent[0] < 2_000
            stream.cancel()


def test_clock_stepped(tmp_path, cases):
    """A day forward, then two back: deadlines, idle times and looks at the folder go by a clock that is never set. The
    Go sidecar's time is monotonic by the language."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "_time = time.time\n"
        f"time.time = lambda: _time() + float(open({str(offset)!r}).read() or 0)\n"
        "time.time_ns = lambda: int(time.time() * 1e9)\n"
    )
    models = Path(shutil.copytree(REFERENCE, tmp_path / "models"))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        with (
            serving("python", models, *WATCH, "--stream-idle", "3600", metrics=True) as sidecar,
            surviving(sidecar, cases),
        ):
            streaming = threading.Event()
            settings = scoring_pb2.StreamSettings(detectors=[1])
            with sidecar.channel() as channel, Load(sidecar, cases) as load:

                def requests():
                    yield scoring_pb2.ScoreStreamRequest(settings=settings)
                    streaming.wait(60)
                    yield scoring_pb2.ScoreStreamRequest(samples=[{"series": "a", "values": ROW}])

                stream = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(requests(), timeout=100)
                next(stream)
                for seconds in ("86400", "-172800"):
                    offset.write_text(seconds)
                    time.sleep(CALM)
                streaming.set()
                assert next(stream).results[0].verdicts[0].verdict.score > 0
            assert (load.wrong, load.errors) == (0, Counter())
            corrupted(models)
            eventually(lambda: refused(sidecar) == 1)
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def test_every_kind_is_known():
    assert set(COMMANDS) == {"python", "workers", "go"}
