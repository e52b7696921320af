"""ScoreStream in this process: however samples are split, each verdict is that of Score on the window (ST1 to ST8)."""

import itertools
import threading
import time
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.anomaly.v1 import errors_pb2, scoring_pb2
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.limits import MAX_STREAM_SAMPLES
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.calls import StatusError
from dwcp_sidecar.server.live import Live
from dwcp_sidecar.server.messages import to_message
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.settings import Limits
from dwcp_sidecar.server.streams import Streams, Window
from dwcp_sidecar.verdicts import Explain

FOREST, LSTM = 1, 2
NAMES = {FOREST: "isolation_forest", LSTM: "lstm_autoencoder"}
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]


class Requests:
    """The requests of a stream, as the server hands them to its handler."""

    def __init__(self, requests):
        self._requests = requests
        self.cancelled = threading.Event()
        self.cancel = self.cancelled.set

    def __iter__(self):
        return iter(self._requests)


@pytest.fixture(scope="module")
def live(reference):
    return Live(reference)


def streams_of(live, **limits):
    return Streams(live, Limits(**limits), Metrics())


def opening(*detectors, samples=(), explain=scoring_pb2.EXPLAIN_ALWAYS, model_set_id=""):
    settings = scoring_pb2.StreamSettings(detectors=detectors, explain=explain, model_set_id=model_set_id)
    return scoring_pb2.ScoreStreamRequest(settings=settings, samples=samples)


def sample(values, series="a", restart=False):
    return scoring_pb2.StreamSample(series=series, values=values, restart=restart)


def request(*samples):
    return scoring_pb2.ScoreStreamRequest(samples=samples)


def outcome(verdict):
    """A verdict message, or code and field of a refusal."""
    if verdict.WhichOneof("outcome") == "verdict":
        return verdict.verdict
    return code_name(verdict.error.code), verdict.error.field


def run(streams, *requests):
    """One list of outcomes per sample."""
    answers = list(streams.run(Requests(requests)))
    assert len(answers) == len(requests)
    for asked, answer in zip(requests, answers, strict=True):
        assert len(answer.results) == len(asked.samples)
    return [[outcome(verdict) for verdict in result.verdicts] for answer in answers for result in answer.results]


def expected_outcomes(models: ModelSet, detectors, samples, explain):
    """What Score says of the window of each sample: the rules of ST3 to ST5 in the plainest way."""
    windows: dict[str, list[list[float]]] = {}
    outcomes = []
    for one in samples:
        window = windows.setdefault(one.series, [])
        if one.restart:
            window.clear()
        values = list(one.values)
        try:
            models.model(NAMES[FOREST]).verdict([values])
        except ContractError as error:
            window.clear()
            outcomes.append([(error.code, error.field.replace("samples[0]", "values"))] * len(detectors))
            continue
        window.append(values)
        line = []
        for detector in detectors:
            model = models.model(NAMES[detector])
            if len(window) < model.timesteps:
                line.append(("WINDOW_TOO_SHORT", "values"))
            else:
                line.append(to_message(model, model.verdict(window[-model.timesteps :], explain)))
        outcomes.append(line)
    return outcomes


values = st.lists(st.floats(-1e3, 1e3) | st.sampled_from([0.0, 105.2, 1e300, -0.0]), min_size=7, max_size=7)
bad_values = st.just([float("nan")] * 7) | st.just([1.0]) | st.just([0.0] * 6 + [float("inf")])
some_samples = st.lists(
    st.builds(
        sample,
        st.one_of(values, values, values, bad_values),
        series=st.sampled_from(["a", "b", "ü"]),
        restart=st.sampled_from([False] * 9 + [True]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(
    samples=some_samples,
    cuts=st.lists(st.integers(0, 60), max_size=8),
    detectors=st.sampled_from([(FOREST,), (LSTM,), (FOREST, LSTM), (LSTM, FOREST)]),
    explain=st.sampled_from([Explain.ALARMS, Explain.ALWAYS, Explain.NEVER]),
)
def test_any_split_gives_the_verdicts_of_score(live, samples, cuts, detectors, explain):
    edges = sorted({0, len(samples), *(min(cut, len(samples)) for cut in cuts)})
    parts = [samples[a:b] for a, b in itertools.pairwise(edges)]
    got = run(streams_of(live), opening(*detectors, explain=int(explain)), *(request(*part) for part in parts))
    assert got == expected_outcomes(live.models, detectors, samples, explain)


@given(length=st.integers(1, 5), rows=st.lists(st.floats(), max_size=20))
def test_window_keeps_the_last_samples(length, rows):
    window = Window(length, 1)
    for count, row in enumerate(rows, start=1):
        window.add([row])
        assert window.count == min(count, length)
        np.testing.assert_array_equal(window.last(window.count)[:, 0], rows[max(0, count - length) : count])
    window.clear()
    assert window.count == 0


def test_a_request_without_samples_is_answered(live):
    assert run(streams_of(live), opening(FOREST), request(), request(sample(ROW)))[0][0].score > 0


@pytest.mark.parametrize(
    ("first", "code", "field"),
    [
        (request(sample(ROW)), "INVALID_REQUEST", "settings"),
        (opening(), "INVALID_REQUEST", "settings.detectors"),
        (opening(FOREST, FOREST), "INVALID_REQUEST", "settings.detectors"),
        (opening(FOREST, 77), "UNKNOWN_DETECTOR", "settings.detectors[1]"),
        (opening(0), "UNKNOWN_DETECTOR", "settings.detectors[0]"),
        (opening(FOREST, model_set_id="other"), "MODEL_SET_MISMATCH", "settings.model_set_id"),
        (opening(FOREST, explain=9), "INVALID_REQUEST", "settings.explain"),
        (opening(FOREST, samples=[sample(ROW, "x" * 257)]), "INVALID_REQUEST", "samples[0].series"),
        (opening(FOREST, samples=[sample(ROW)] * (MAX_STREAM_SAMPLES + 1)), "BATCH_TOO_LARGE", "samples"),
    ],
)
def test_faults_that_end_a_stream(live, first, code, field):
    with pytest.raises(ContractError) as caught:
        run(streams_of(live), first)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_settings_belong_in_the_first_request(live):
    with pytest.raises(ContractError) as caught:
        run(streams_of(live), opening(FOREST), opening(FOREST))
    assert (caught.value.code, caught.value.field) == ("INVALID_REQUEST", "settings")


def test_one_series_too_many(live):
    streams = streams_of(live, series=3)
    many = [sample(ROW, name) for name in "abcabc"]
    assert len(run(streams, opening(FOREST), request(*many))) == 6
    with pytest.raises(StatusError) as caught:
        run(streams, opening(FOREST), request(*many, sample(ROW, "d")))
    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def with_models(models, *, id="other", without=()):
    """The same models under another id."""
    return SimpleNamespace(
        id=id,
        models={name: model for name, model in models.models.items() if name not in without},
        model=models.model,
    )


def test_windows_survive_a_reload(live):
    live = Live(live.models)
    longest = live.models.model("lstm_autoencoder").timesteps
    rows = [sample([*ROW[:6], float(i)]) for i in range(longest + 5)]
    ids = []

    def requests():
        yield opening(LSTM)
        for index, row in enumerate(rows):
            if index == longest:
                live.swap(with_models(live.models))
            yield request(row)

    outcomes = []
    for answer in streams_of(live).run(Requests(requests())):
        ids.append(answer.model_set_id)
        outcomes += [[outcome(verdict) for verdict in result.verdicts] for result in answer.results]
    assert set(ids) == {live.models.id, ids[0]}
    assert ids == sorted(ids, key=ids.index), "each set once"
    assert outcomes == expected_outcomes(live.models, [LSTM], rows, Explain.ALWAYS)


def test_a_detector_that_goes_with_a_reload(live):
    live = Live(live.models)

    def requests():
        yield opening(LSTM, FOREST, samples=[sample(ROW)])
        live.swap(with_models(live.models, without=["lstm_autoencoder"]))
        yield request(sample(ROW))

    answers = list(streams_of(live).run(Requests(requests())))
    gone, kept = answers[1].results[0].verdicts
    assert outcome(gone) == ("DETECTOR_UNAVAILABLE", "detector")
    assert kept.verdict.score > 0


def test_a_pinned_stream_ends_at_a_reload(live):
    live = Live(live.models)

    def requests():
        yield opening(FOREST, model_set_id=live.models.id)
        live.swap(with_models(live.models))
        yield request(sample(ROW))

    with pytest.raises(ContractError) as caught:
        list(streams_of(live).run(Requests(requests())))
    assert (caught.value.code, caught.value.field) == ("MODEL_SET_MISMATCH", "settings.model_set_id")


def test_a_stream_that_waits_is_cancelled(live):
    """For a request, or for its client to take an answer."""
    streams = streams_of(live, idle=0.2)

    def silent(requests):
        yield opening(FOREST)
        assert requests.cancelled.wait(10)

    waiting = Requests(())
    waiting._requests = silent(waiting)
    assert len(list(streams.run(waiting))) == 1

    slow = Requests([opening(FOREST), request(sample(ROW))])
    answers = streams.run(slow)
    next(answers)
    assert slow.cancelled.wait(10)


def test_a_busy_stream_is_not_cancelled(live):
    streams = streams_of(live, idle=0.5)

    def busy():
        yield opening(FOREST)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            time.sleep(0.05)
            yield request(sample(ROW))

    requests = Requests(busy())
    assert len(list(streams.run(requests))) > 5
    assert not requests.cancelled.is_set()


def test_streams_end_when_the_server_stops(live):
    streams = streams_of(live)
    computing = streams.run(Requests([opening(FOREST), request(sample(ROW))]))
    next(computing)
    waiting = Requests([opening(FOREST)])
    answers = streams.run(waiting)
    next(answers)
    streams.stop()
    with pytest.raises(StatusError) as caught:
        next(computing)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert waiting.cancelled.wait(10)


def test_refusals_say_what_to_do(live):
    answer = next(streams_of(live).run(Requests([opening(LSTM, samples=[sample(ROW), sample([1.0, float("nan")])])])))
    short, wrong = (result.verdicts[0].error for result in answer.results)
    assert short.code == errors_pb2.ERROR_CODE_WINDOW_TOO_SHORT
    assert "1 samples so far" in short.message
    assert "latency" in wrong.message
