"""Streams of the Python client: against servers that fail as told, and against the real one."""

import contextlib
import itertools
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.client import Client, Sample, StreamError
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import status
from dwcp_sidecar.verdicts import Explain

pytestmark = pytest.mark.timeout(120)
PATIENT = 20.0
FOREST = ["isolation_forest"]
BOTH = ["isolation_forest", "lstm_autoencoder"]


class Streamer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers every sample with its first value as score.

    Attributes:
        refuse_openings: how many openings end with RESOURCE_EXHAUSTED.
        before: asked before request n of a stream is answered, the one with the settings being 0.
        sizes: samples of each request.
    """

    def __init__(self):
        self.id = "first"
        self.refuse_openings = 0
        self.openings = 0
        self.before = lambda n, request, context: None
        self.sizes = []

    def ScoreStream(self, requests, context):  # noqa: N802
        self.openings += 1
        if self.openings <= self.refuse_openings:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        settings = None
        for n, request in enumerate(requests):
            settings = settings or request.settings
            if settings.model_set_id not in ("", self.id):
                context.abort_with_status(
                    status.to_grpc(ContractError("MODEL_SET_MISMATCH", "model_set_id", "another one"))
                )
            if n:
                self.sizes.append(len(request.samples))
            self.before(n, request, context)
            response = scoring_pb2.ScoreStreamResponse(model_set_id=self.id)
            for sample in request.samples:
                verdicts = response.results.add().verdicts
                for _ in settings.detectors:
                    verdicts.add().verdict.score = sample.values[0]
            yield response


@contextlib.contextmanager
def client_of(servicer, tmp_path, **options):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    try:
        with Client(f"unix:{tmp_path}/s", **{"timeout": PATIENT, **options}) as client:
            yield client
    finally:
        server.stop(0).wait(10)


def numbered(count, start=0):
    return [Sample("a", [float(i)] * 7) for i in range(start, start + count)]


def scores(results):
    return [result.verdicts[0].score for result in results]


def no_threads_of_streams_are_left():
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("stream-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_score_gives_the_results_of_its_samples(tmp_path):
    with client_of(Streamer(), tmp_path) as client, client.open_stream(FOREST) as stream:
        for i in range(20):
            (result,) = stream.score(numbered(1, i))
            assert result.sample == numbered(1, i)[0]
            assert result.verdicts[0].score == i
            assert result.model_set_id == stream.model_set_id == "first"
        assert stream.score([]) == []
    no_threads_of_streams_are_left()


def test_many_samples_are_split(tmp_path):
    servicer = Streamer()
    with client_of(servicer, tmp_path) as client, client.open_stream(FOREST) as stream:
        assert scores(stream.score(numbered(2 * 4096 + 1))) == list(range(2 * 4096 + 1))
    assert servicer.sizes == [4096, 4096, 1]


def test_threads_take_turns(tmp_path):
    with client_of(Streamer(), tmp_path) as client, client.open_stream(FOREST) as stream:

        def ask(start):
            for i in range(start, start + 50, 2):
                assert scores(stream.score(numbered(2, i))) == [i, i + 1]
            return True

        with futures.ThreadPoolExecutor(6) as pool:
            assert all(pool.map(ask, range(0, 6000, 1000)))


def test_samples_that_wait_travel_together(tmp_path):
    servicer = Streamer()
    release = threading.Event()
    servicer.before = lambda n, request, context: n != 1 or release.wait(10)

    def source():
        yield from numbered(3000)
        release.set()

    with client_of(servicer, tmp_path) as client:
        results = list(client.stream(FOREST, source()))
    assert scores(results) == list(range(3000))
    assert len(servicer.sizes) <= 4, servicer.sizes
    no_threads_of_streams_are_left()


def test_results_come_while_samples_do(tmp_path):
    """The next sample is made from the last result: nothing may wait for more samples."""
    results = []

    def source():
        for i in range(20):
            yield numbered(1, i)[0]
            deadline = time.monotonic() + 10
            while len(results) <= i:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    with client_of(Streamer(), tmp_path) as client:
        for result in client.stream(FOREST, source()):
            results.append(result)
    assert scores(results) == list(range(20))


def test_an_endless_source_waits_for_its_results(tmp_path):
    taken = itertools.count()

    def source():
        for i in taken:
            yield Sample("a", [float(i)] * 7)

    with client_of(Streamer(), tmp_path) as client:
        results = client.stream(FOREST, source())
        assert next(results).verdicts[0].score == 0
        time.sleep(0.5)
        assert next(taken) <= 6 * 4096, "samples are taken only as results are"
        assert scores(itertools.islice(results, 100)) == list(range(1, 101))
        results.close()
    no_threads_of_streams_are_left()


def test_an_error_of_the_source_is_raised_after_the_results(tmp_path):
    def source():
        yield from numbered(5)
        raise OSError("the feed is gone")

    results = []
    with client_of(Streamer(), tmp_path) as client, pytest.raises(OSError, match="the feed is gone"):
        results.extend(client.stream(FOREST, source()))
    assert scores(results) == list(range(5))


def test_a_broken_stream_names_what_was_not_answered(tmp_path):
    servicer = Streamer()
    seen = itertools.count()

    def before(n, request, context):
        if n and next(seen) == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "killed")

    servicer.before = before
    with client_of(servicer, tmp_path) as client:
        with client.open_stream(FOREST) as stream:
            stream.score(numbered(3))
            stream.score(numbered(3, 3))
            with pytest.raises(StreamError) as caught:
                stream.score(numbered(3, 6))
            assert caught.value.code == grpc.StatusCode.UNAVAILABLE
            assert caught.value.refusal is None
            assert caught.value.unanswered == numbered(3, 6)
            with pytest.raises(StreamError):
                stream.score(numbered(1))
        assert scores(client.stream(FOREST, numbered(10))) == list(range(10))  # another one goes on


def test_a_broken_iteration_loses_no_sample(tmp_path):
    servicer = Streamer()

    def before(n, request, context):
        if sum(servicer.sizes) > 1000:
            context.abort(grpc.StatusCode.CANCELLED, "idle")

    servicer.before = before
    source = iter(numbered(100_000))
    results = []
    with client_of(servicer, tmp_path) as client, pytest.raises(StreamError) as caught:
        results.extend(client.stream(FOREST, source))
    no_threads_of_streams_are_left()
    answered = len(results)
    assert scores(results) == list(range(answered))
    left = [int(sample.values[0]) for sample in [*caught.value.unanswered, *source]]
    assert left == list(range(answered, 100_000))


def test_results_before_the_break_are_given(tmp_path):
    servicer = Streamer()

    def before(n, request, context):
        if n == 2:
            time.sleep(0.1)  # the first answer goes out before
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    servicer.before = before
    with client_of(servicer, tmp_path) as client, client.open_stream(FOREST) as stream:
        with pytest.raises(StreamError) as caught:
            stream.score(numbered(4097))
        assert scores(caught.value.results) == list(range(4096))
        assert caught.value.unanswered == numbered(1, 4096)


@pytest.mark.parametrize("way", ["score", "run"])
def test_an_answer_that_does_not_come_ends_the_stream(tmp_path, way):
    servicer = Streamer()
    servicer.before = lambda n, request, context: time.sleep(2 if n == 2 else 0)
    with client_of(servicer, tmp_path) as client, client.open_stream(FOREST, timeout=0.3) as stream:
        stream.score(numbered(1))
        time.sleep(0.5)  # nothing is owed: nothing is late
        started = time.monotonic()
        with pytest.raises(StreamError, match=r"no answer within 0\.3 s") as caught:
            stream.score(numbered(1)) if way == "score" else list(stream.run(numbered(1)))
        assert time.monotonic() - started < 1.5
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_openings(tmp_path):
    servicer = Streamer()
    servicer.refuse_openings = 2
    with client_of(servicer, tmp_path) as client:
        with client.open_stream(FOREST) as stream:
            assert scores(stream.score(numbered(2))) == [0, 1]
        assert servicer.openings == 3  # tried again
        with pytest.raises(ContractError, match="MODEL_SET_MISMATCH"):
            client.open_stream(FOREST, model_set_id="other")
        assert servicer.openings == 4  # a refusal is not
        with pytest.raises(ContractError, match="UNKNOWN_DETECTOR"):
            client.open_stream(["oracle"])
        servicer.before = lambda n, request, context: time.sleep(2)
        with pytest.raises(grpc.RpcError) as caught:
            client.open_stream(FOREST, timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert servicer.openings == 5
    no_threads_of_streams_are_left()


def test_a_pinned_stream_ends_at_a_reload(tmp_path):
    servicer = Streamer()
    with client_of(servicer, tmp_path) as client, client.open_stream(FOREST, model_set_id="first") as stream:
        stream.score(numbered(1))
        servicer.id = "second"
        with pytest.raises(StreamError) as caught:
            stream.score(numbered(1))
        assert caught.value.refusal.code == "MODEL_SET_MISMATCH"


def test_names_that_would_end_the_stream_are_not_sent(tmp_path):
    with client_of(Streamer(), tmp_path) as client, client.open_stream(FOREST) as stream:
        for name in ("x" * 257, "ü" * 129, "\ud800"):
            with pytest.raises(ContractError) as caught:
                stream.score([Sample("a", [1.0]), Sample(name, [1.0])])
            assert (caught.value.code, caught.value.field) == ("INVALID_REQUEST", "samples[1].series")
        assert scores(stream.score(numbered(1))) == [0]


def test_a_server_that_answers_too_much_breaks_the_stream(tmp_path):
    servicer = Streamer()
    servicer.before = lambda n, request, context: n and request.samples.append(request.samples[0])
    with client_of(servicer, tmp_path) as client, client.open_stream(FOREST) as stream:
        with pytest.raises(StreamError) as caught:
            stream.score(numbered(1))
        assert caught.value.code == grpc.StatusCode.INTERNAL


# --- the real server ---


def walk(count, seed=3):
    rows = np.random.default_rng(seed).normal(size=(count, 7)) * 2 + [100, 10, 0.5, 1, 40, 50, 0.5]
    return [list(map(float, np.abs(row))) for row in rows]


def test_streamed_scores_are_those_of_the_model_set(served, reference):
    rows = walk(40)
    forest, lstm = (reference.model(name) for name in BOTH)
    samples = [Sample(name, row) for row in rows for name in ("a", "b")]
    with Client(served.address, timeout=PATIENT) as client:
        results = list(client.stream(BOTH, samples, explain=Explain.ALWAYS))
        assert len(results) == len(samples)
        for i, result in enumerate(results):
            step = i // 2
            first, second = result.verdicts
            wanted = forest.score([rows[step]], Explain.ALWAYS)
            assert np.float32(first.score) == wanted.scores[0]
            assert np.array_equal(np.float32(first.contributions), wanted.contributions[0])
            if step < 9:
                assert isinstance(second, ContractError)
                assert second.code == "WINDOW_TOO_SHORT"
            else:
                assert np.float32(second.score) == lstm.score(rows[step - 9 : step + 1]).scores[0]


def test_a_refused_sample_does_not_end_the_stream(served):
    with Client(served.address, timeout=PATIENT) as client, client.open_stream(FOREST) as stream:
        good, bad = walk(2)
        bad[2] = float("nan")
        first, second = stream.score([Sample("a", bad), Sample("a", good)])
        assert first.verdicts[0].code == "NOT_FINITE"
        assert first.verdicts[0].field == "values.packet_loss"
        assert second.verdicts[0].score > 0


def test_a_stream_is_refilled_after_the_server_died(serve, reference, tmp_path):
    """What the documentation says to do after a break gives the scores as if nothing had happened."""
    rows = walk(30)
    address = f"unix:{tmp_path}/s"
    got = []

    def follow(stream, samples):
        for sample in samples:
            (result,) = stream.score([sample])
            got.append(result)

    with Client(address, timeout=PATIENT) as client:
        with serve("--unix", tmp_path / "s") as server:
            stream = client.open_stream(["lstm_autoencoder"])
            follow(stream, [Sample("a", row) for row in rows[:20]])
            server.process.kill()
            server.process.wait(10)
            with pytest.raises(StreamError) as caught:
                follow(stream, [Sample("a", rows[20])])
        with serve("--unix", tmp_path / "s"), client.open_stream(["lstm_autoencoder"]) as stream:
            stream.score([Sample("a", row) for row in rows[11:20]])
            follow(stream, [*caught.value.unanswered, *(Sample("a", row) for row in rows[21:])])
    lstm = reference.model("lstm_autoencoder")
    assert len(got) == 30
    for i in range(9, 30):
        assert np.float32(got[i].verdicts[0].score) == lstm.score(rows[i - 9 : i + 1]).scores[0]
