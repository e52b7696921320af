"""Over the wire the scores are the same bits as in process (rules P2, W1 to W4, C2, C4)."""

import grpc
import numpy as np
import pytest

from dwcp.anomaly.v1 import golden_pb2, scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.client import Client, verdicts_of_batch, verdicts_of_score
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.golden import run_golden
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.verdicts import Explain
from tests.conformance.sets import REFERENCE_SET, detectors_of
from tests.sidecar.clients import assert_same_bits, windows_of

pytestmark = pytest.mark.timeout(120)
DETECTORS = detectors_of(REFERENCE_SET)


@pytest.fixture(scope="module", params=[0, 1], ids=["tcp", "unix"])
def client(served, request):
    with Client(served.addresses[request.param], timeout=30) as client:
        yield client


def valid_windows(models: ModelSet, detector: str) -> np.ndarray:
    """The scored part of every golden case that has a score, float64 `[items, timesteps, features]`."""
    windows = windows_of(models.golden[detector], models.model(detector).timesteps)
    assert len(windows)
    return windows


@pytest.mark.parametrize("detector", DETECTORS)
def test_score_passes_all_golden_vectors(client, reference, detector):
    model, ran = reference.model(detector), []

    def score(samples):
        ran.append(1)
        return verdicts_of_score(client.score(detector, samples, explain=Explain.ALWAYS))

    assert run_golden(reference.golden[detector], model, score) == []
    assert len(ran) == len(reference.golden[detector].cases) > 0


@pytest.mark.parametrize("detector", DETECTORS)
def test_score_equals_in_process(client, reference, detector):
    for window in valid_windows(reference, detector):
        got = verdicts_of_score(client.score(detector, window.tolist(), explain=Explain.ALWAYS))
        assert_same_bits(got, reference.model(detector).score(window.tolist()))


@pytest.mark.parametrize("detector", DETECTORS)
def test_batch_of_windows_equals_in_process(client, reference, detector):
    windows = valid_windows(reference, detector)
    response = client.score_batch(detector, windows, explain=Explain.ALWAYS)
    model = reference.model(detector)
    assert_same_bits(verdicts_of_batch(response), model.score_batch(windows, Explain.ALWAYS))
    singles = [model.score(window.tolist()) for window in windows]
    assert [float(single.scores[0]) for single in singles] == list(response.scores)
    assert response.threshold == model.threshold
    assert response.model_set_id == reference.id


@pytest.mark.parametrize("detector", DETECTORS)
def test_batch_of_a_series_scores_every_full_window(client, reference, detector):
    model = reference.model(detector)
    series = valid_windows(reference, detector).reshape(-1, len(model.feature_names))[:57]
    response = client.score_batch(detector, series, series=True, explain=Explain.ALWAYS)
    assert len(response.scores) == len(series) - model.timesteps + 1
    singles = [model.score(series[i : i + model.timesteps].tolist()) for i in range(len(response.scores))]
    assert [float(single.scores[0]) for single in singles] == list(response.scores)


def test_the_last_window_of_longer_requests_is_scored(client, reference):
    for detector, model in reference.models.items():
        rows = valid_windows(reference, detector).reshape(-1, len(model.feature_names))[: model.timesteps + 3].tolist()
        long, short = client.score(detector, rows), client.score(detector, rows[-model.timesteps :])
        assert long == short


@pytest.mark.parametrize("detector", DETECTORS)
def test_explain_modes(client, reference, detector):
    windows = valid_windows(reference, detector)
    alarms = reference.model(detector).score_batch(windows).is_anomaly
    assert 0 < alarms.sum() < len(alarms), "the golden vectors must have both"
    for is_anomaly in (True, False):
        window = windows[list(alarms).index(is_anomaly)].tolist()
        answers = {explain: client.score(detector, window, explain=explain).verdict for explain in Explain}
        assert len({answer.score for answer in answers.values()}) == 1
        for explain, verdict in answers.items():
            wanted = explain == Explain.ALWAYS or (explain == Explain.ALARMS and is_anomaly)
            assert len(verdict.contributions) == len(verdict.expected) == (windows.shape[2] if wanted else 0)
            names = reference.model(detector).feature_names
            top = names[int(np.argmax(verdict.contributions))] if wanted and any(verdict.contributions) else ""
            assert verdict.top_feature == top
    batch = client.score_batch(detector, windows, explain=Explain.ALARMS)
    rows = np.array(batch.contributions).reshape(len(windows), -1)
    assert not rows[~alarms].any()
    assert rows[alarms].any(axis=1).any()
    assert not client.score_batch(detector, windows, explain=Explain.NEVER).contributions


def test_explain_left_out_means_alarms(served, reference):
    request = scoring_pb2.ScoreRequest(detector=1, samples=_samples(valid_windows(reference, DETECTORS[0])[0]))
    with grpc.insecure_channel(served.address) as channel:
        service = scoring_pb2_grpc.ScoringServiceStub(channel)
        unset = service.Score(request, timeout=30)
        request.explain = scoring_pb2.EXPLAIN_ALARMS
        assert unset == service.Score(request, timeout=30)


def _samples(window: np.ndarray) -> list:
    return list(golden_pb2.GoldenCase(samples=[{"values": row} for row in window.tolist()]).samples)


def test_the_largest_batch(client, reference):
    """W4: 16,384 items are scored, one more is refused."""
    row = valid_windows(reference, DETECTORS[0])[0, 0]
    assert len(client.score_batch(DETECTORS[0], np.tile(row, (16_384, 1)), explain=Explain.NEVER).scores) == 16_384
    with pytest.raises(ContractError, match="BATCH_TOO_LARGE"):
        client.score_batch(DETECTORS[0], np.tile(row, (16_385, 1)))


def test_model_set(client, reference):
    response = client.model_set()
    assert response.model_set_id == reference.id
    assert [model.model_type for model in response.models] == list(reference.models)
    for model in response.models:
        assert not model.calibration.scores
        assert not model.training.history
        assert model.threshold == reference.model(model.model_type).threshold
        assert reference.metadata[model.model_type].calibration.scores, "the open set itself must stay whole"


def test_the_set_in_use_may_be_insisted_on(client, reference):
    window = valid_windows(reference, DETECTORS[0])[0].tolist()
    assert client.score(DETECTORS[0], window, model_set_id=reference.id).model_set_id == reference.id
