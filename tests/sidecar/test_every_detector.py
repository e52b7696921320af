"""Each detector of each frozen set through all calls of both sidecars: the bits of the core (E2, ST3, O2, O3, P2)."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from dwcp.oip.v2 import inference_pb2 as oip
from dwcp.oip.v2 import inference_pb2_grpc
from dwcp_sidecar.client import Client, Sample, verdicts_of_batch, verdicts_of_score
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.golden import run_golden
from dwcp_sidecar.model import Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.messages import to_message
from dwcp_sidecar.server.status import from_grpc
from dwcp_sidecar.verdicts import Explain
from tests.conformance.cases import DETECTORS
from tests.conformance.server import serving
from tests.conformance.sets import HOME, MORE_SET, SETS, detectors_of
from tests.sidecar.clients import assert_same_bits, windows_of

pytestmark = pytest.mark.timeout(300)
WAIT = 60
KINDS = ("python", "go")
OUTPUTS = ["score", "is_anomaly", "p_value", "level", "threshold", "contributions", "expected"]


@pytest.fixture(scope="module")
def address() -> Iterator[Callable[[str, Path], str]]:
    """Starts each sidecar on each set once."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda kind, models: stack.enter_context(serving(models, kind)))


@pytest.fixture(scope="module")
def opened() -> Callable[[Path], ModelSet]:
    return functools.cache(ModelSet.open)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(detector: str, opened) -> Model:
    return opened(HOME[detector]).model(detector)


@pytest.fixture
def client(kind: str, detector: str, address) -> Iterator[Client]:
    with Client(address(kind, HOME[detector]), timeout=WAIT) as client:
        yield client


@pytest.fixture
def windows(detector: str, opened) -> np.ndarray:
    """The scored part of every golden case that has a score, float64 `[items, timesteps, features]`."""
    return _windows(opened(HOME[detector]), detector)


def _windows(models: ModelSet, detector: str) -> np.ndarray:
    windows = windows_of(models.golden[detector], models.model(detector).timesteps)
    assert len(windows) > 50
    return windows


def test_score_passes_all_golden_vectors(client, detector, model, opened):
    golden, ran = opened(HOME[detector]).golden[detector], []

    def score(samples):
        ran.append(1)
        return verdicts_of_score(client.score(detector, samples, explain=Explain.ALWAYS))

    assert run_golden(golden, model, score) == []
    assert len(ran) == len(golden.cases) > 100


@pytest.mark.parametrize("explain", Explain)
def test_a_batch_has_the_bits_of_the_core(client, detector, model, windows, explain):
    response = client.score_batch(detector, windows, explain=explain)
    wanted = model.score_batch(windows, explain)
    assert 0 < wanted.is_anomaly.sum() < len(windows)
    # Over the wire, what was not explained is a row of zeros beside one that was, or nothing at all.
    unseen = {"explained"} | ({"contributions", "expected"} if explain == Explain.NEVER else set())
    assert_same_bits(verdicts_of_batch(response), wanted, but=unseen)
    assert bool(response.contributions) == (explain != Explain.NEVER)
    assert response.threshold == model.threshold


def test_every_row_of_a_series_is_scored(client, detector, model, windows):
    series = windows.reshape(-1, windows.shape[2])[:57]
    response = client.score_batch(detector, series, series=True, explain=Explain.ALWAYS)
    assert len(response.scores) == len(series) - model.timesteps + 1
    assert_same_bits(verdicts_of_batch(response), model.score_batch(series, Explain.ALWAYS, series=True))


@pytest.mark.parametrize("models", SETS, ids=lambda path: path.name)
def test_a_stream_of_all_detectors_has_the_verdicts_of_the_core(kind, models, address, opened):
    """Detectors in the reverse order of the enum, two series, and a sample that is at fault between (ST3 to ST5)."""
    names = list(reversed(detectors_of(models)))
    scorers = [opened(models).model(name) for name in names]
    rows = _windows(opened(models), names[-1])[:60, -1].tolist()
    rows[30] = [float("nan")] * len(rows[30])
    samples = [Sample("ab"[k % 2], row) for k, row in enumerate(rows)]
    history: dict[str, list] = {"a": [], "b": []}
    with (
        Client(address(kind, models), timeout=WAIT) as client,
        client.open_stream(names, explain=Explain.ALWAYS) as stream,
    ):
        results = [result for start in range(0, 60, 7) for result in stream.score(samples[start : start + 7])]
    assert len(results) == 60
    for k, (sample, result) in enumerate(zip(samples, results, strict=True)):
        past = history[sample.series]
        past.append(sample.values)
        for scorer, verdict in zip(scorers, result.verdicts, strict=True):
            if k == 30:
                assert (verdict.code, verdict.field) == ("NOT_FINITE", f"values.{scorer.feature_names[0]}")
            elif len(past) < scorer.timesteps:
                assert (verdict.code, verdict.field) == ("WINDOW_TOO_SHORT", "values")
            else:
                wanted = to_message(scorer, scorer.verdict(past[-scorer.timesteps :]))
                assert verdict == wanted, (scorer.name, k)
        if k == 30:
            past.clear()


def test_the_open_inference_protocol(kind, detector, model, windows, address):
    forest = detector == "isolation_forest"
    rows = windows if model.metadata.HasField("timesteps") else windows[:, 0]
    names = [*OUTPUTS, "depth_sum"] if forest else OUTPUTS
    with grpc.insecure_channel(address(kind, HOME[detector])) as channel:
        service = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = service.ModelMetadata(oip.ModelMetadataRequest(name=detector), timeout=WAIT)
        assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, *rows.shape[1:]]]
        assert [tensor.name for tensor in metadata.outputs] == names
        answer = service.ModelInfer(_infer(detector, rows), timeout=WAIT)
        # A detector that scores one sample takes no windows, and the other way round (O2).
        other = rows[:, np.newaxis] if rows.ndim == 2 else rows[:, 0]
        with pytest.raises(grpc.RpcError) as refused:
            service.ModelInfer(_infer(detector, other), timeout=WAIT)
    refusal = from_grpc(refused.value)
    assert (refusal.code, refusal.field) == ("INVALID_REQUEST", "inputs[0].shape")
    wanted = model.score_batch(windows, Explain.ALWAYS)
    columns = {
        "score": wanted.scores, "is_anomaly": wanted.is_anomaly, "p_value": wanted.p_values,
        "level": wanted.levels.astype("<i4"), "threshold": np.array([model.threshold]),
        "contributions": wanted.contributions, "expected": wanted.expected, "depth_sum": wanted.depth_sums,
    }  # fmt: skip
    assert [output.name for output in answer.outputs] == names
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert tuple(output.shape) == columns[output.name].shape, output.name
        assert raw == columns[output.name].tobytes(), output.name


def _infer(detector: str, rows: np.ndarray) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=detector)
    request.inputs.add(name="samples", datatype="FP64", shape=rows.shape)
    request.raw_input_contents.append(np.ascontiguousarray(rows, "<f8").tobytes())
    return request


@pytest.mark.parametrize("models", SETS, ids=lambda path: path.name)
def test_detectors_that_a_set_does_not_have_are_unavailable(kind, models, address):
    absent = [name for name in DETECTORS if name not in detectors_of(models)]
    assert absent
    row = [1.0] * 7
    with (
        Client(address(kind, models), timeout=WAIT) as client,
        grpc.insecure_channel(address(kind, models)) as channel,
    ):
        inference = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in absent:
            for field, call in (
                ("detector", lambda name=name: client.score(name, [row])),
                ("detector", lambda name=name: client.score_batch(name, [row])),
                ("settings.detectors[0]", lambda name=name: client.open_stream([name]).close()),
            ):
                with pytest.raises(ContractError) as refused:
                    call()
                assert (refused.value.code, refused.value.field) == ("DETECTOR_UNAVAILABLE", field)
            assert not inference.ModelReady(oip.ModelReadyRequest(name=name), timeout=WAIT).ready


def test_scores_of_large_batches_do_not_depend_on_their_neighbours(client, detector, model, windows):
    """W4, beyond the pieces that the core hands to ONNX Runtime."""
    order = np.random.default_rng(3).integers(len(windows), size=1_500)
    alone = {k: model.score(windows[k].tolist(), Explain.ALWAYS) for k in set(order.tolist())}
    got = verdicts_of_batch(client.score_batch(detector, windows[order], explain=Explain.ALWAYS))
    for name in ("scores", "is_anomaly", "contributions", "expected"):
        wanted = np.concatenate([getattr(alone[k], name) for k in order.tolist()])
        assert getattr(got, name).tobytes() == wanted.tobytes(), name


def test_a_request_with_history_scores_its_last_sample(client, detector, model, windows):
    rows = windows.reshape(-1, windows.shape[2])[: model.timesteps + 3].tolist()
    assert client.score(detector, rows) == client.score(detector, rows[-model.timesteps :])


def test_the_more_set_has_what_these_tests_are_for():
    assert set(detectors_of(MORE_SET)) == {"dense_autoencoder", "local_outlier_factor", "one_class_svm"}
