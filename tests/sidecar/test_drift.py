"""Drift as the sidecars see it: which rows are kept, and what is published of them (rule DR6)."""

import contextlib
import re
import shutil
import threading
import time
import timeit
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp.oip.v2 import inference_pb2, inference_pb2_grpc
from dwcp_sidecar.drift import Reference, Sketch
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import recent as recent_module
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.recent import Recent, Rows
from dwcp_sidecar.server.settings import Settings, StartError
from tests.conformance.drift_set import ROWS, training_rows, with_drift
from tests.conformance.sets import ENSEMBLE_SET, REFERENCE_SET
from tests.faults.endpoint import Endpoint, serving

pytestmark = pytest.mark.timeout(180)
FOREST, LSTM = "isolation_forest", "lstm_autoencoder"
TRAINING = training_rows().values


@pytest.fixture(scope="module")
def drift_set(tmp_path_factory) -> Path:
    return with_drift(REFERENCE_SET, tmp_path_factory.mktemp("drift") / "set")


@pytest.fixture(scope="module")
def models(drift_set) -> ModelSet:
    return ModelSet.open(drift_set)


@pytest.fixture(scope="module")
def reference(models) -> Reference:
    found = Reference.of(models.metadata[FOREST])
    assert found is not None
    return found


def drift_of(page: str) -> dict[str, float]:
    """The series of drift on a page, by name and labels."""
    return {key: float(value) for key, value in re.findall(r"^(dwcp_drift\S*) (\S+)$", page, re.M)}


def page_of(sidecar: Endpoint) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{sidecar.metrics}/metrics", timeout=10) as answer:
        return drift_of(answer.read().decode())


def gauges(reference: Reference, detector: str, rows: np.ndarray) -> dict[str, float]:
    """What the page has when these rows were asked for."""
    wanted = {f'dwcp_drift_rows{{detector="{detector}"}}': float(len(rows))}
    for feature in reference.compare(Sketch(reference).add(rows)) if len(rows) >= reference.least else ():
        labels = f'{{detector="{detector}",metric="{feature.name}"}}'
        wanted[f"dwcp_drift_psi{labels}"] = feature.psi
        wanted[f"dwcp_drift_wasserstein{labels}"] = feature.wasserstein
        wanted[f"dwcp_drift{labels}"] = float(feature.drifted)
    return wanted


# The rows that are kept.


@pytest.mark.parametrize("window", [64, 100, 1000])
def test_the_last_rows_are_kept(reference, window):
    random = np.random.default_rng(window)
    kept, given = Rows(reference, window), TRAINING[:0]
    for turn in range(40):
        rows = TRAINING[random.integers(0, ROWS, random.choice([1, 1, 3, 50, 99, 100, 101, 450]))] + turn / 10
        if len(rows) == 1:
            kept.add(rows[0])
        else:
            kept.add_all(rows)
        given = np.concatenate([given, rows])
        last = given[-window:]
        count, found = kept.compare()
        assert count == len(last)
        if count < reference.least:
            assert found == []
            continue
        for got, wanted in zip(found, reference.compare(Sketch(reference).add(last)), strict=True):
            assert (got.psi, got.drifted) == (wanted.psi, wanted.drifted)
            assert got.wasserstein == pytest.approx(wanted.wasserstein, rel=1e-12)


def test_no_row_is_lost_between_threads(reference):
    kept = Rows(reference, 4096)

    def work(number):
        for i in range(200):
            kept.add(TRAINING[number])
            if i % 20 == 0:
                kept.add_all(TRAINING[number : number + 5])
                kept.compare()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.compare()[0] == 8 * (200 + 10 * 5)


def test_wide_rows_take_bounded_memory(reference, monkeypatch):
    monkeypatch.setattr(recent_module, "LARGEST", 7 * 70)
    kept = Rows(reference, 4096)
    kept.add_all(TRAINING[:500])
    assert kept.compare()[0] == 70


def test_keeping_a_row_is_cheap(models):
    """Less than a microsecond on an idle machine, beside some 100 for a score; the bound has room for others."""
    kept, model, row = Recent(4096), models.models[FOREST], TRAINING[0]
    kept.use(models)
    rounds = [timeit.timeit(lambda: kept.add(model, row), number=5000) / 5000 for _ in range(7)]
    assert min(rounds) < 10e-6


def test_a_comparison_is_made_once(models, monkeypatch):
    made = []
    compare = Reference.compare
    monkeypatch.setattr(Reference, "compare", lambda *arguments: made.append(1) or compare(*arguments))
    kept = Recent(4096)
    kept.use(models)
    kept.add_all(models.models[FOREST], TRAINING[:100])
    first, again = list(kept.compare()), list(kept.compare())
    assert (first, len(made)) == (again, 1)
    kept.add(models.models[FOREST], TRAINING[0])
    assert list(kept.compare()) != first


def test_rows_of_a_former_set_are_not_kept(models, drift_set):
    kept = Recent(4096)
    kept.use(models)
    former = models.models[FOREST]
    kept.use(ModelSet.open(drift_set))
    kept.add(former, TRAINING[0])
    kept.add_all(former, TRAINING)
    assert [rows for _, rows, _ in kept.compare()] == [0, 0]


def test_an_ensemble_has_the_reference_of_its_first_member(tmp_path):
    models = ModelSet.open(with_drift(ENSEMBLE_SET, tmp_path / "set"))
    kept = Recent(4096)
    kept.use(models)
    assert [name for name, _, _ in kept.compare()] == list(models.models)
    assert "ensemble" in models.models


def test_old_sets_and_no_window_keep_nothing(models):
    for window, used in ((4096, ModelSet.open(REFERENCE_SET)), (0, models)):
        kept = Recent(window)
        kept.use(used)
        kept.add(used.models[FOREST], TRAINING[0])
        assert list(kept.compare()) == []
        metrics = Metrics()
        metrics.recent = kept
        assert "drift" not in metrics.text().decode()


@pytest.mark.parametrize("window", [-1, 1 << 31])
def test_a_window_that_is_none(window):
    with pytest.raises(StartError, match="--drift-window"):
        Settings(models=Path(), drift_window=window)


# Whole sidecars, of both languages.


def ask(channel: grpc.Channel, rows: np.ndarray) -> None:
    """Scores rows with the forest in every way there is, oldest first, and sends some that are refused."""
    stub = scoring_pb2_grpc.ScoringServiceStub(channel)
    parts = np.array_split(rows, 5)
    for row in parts[0]:
        samples = [{"values": other} for other in (TRAINING[0] * 50, row)]  # the last sample alone is scored (W1)
        stub.Score(scoring_pb2.ScoreRequest(detector=1, samples=samples), timeout=20)
    for part, layout in ((parts[1], 1), (parts[2], 2)):
        request = scoring_pb2.ScoreBatchRequest(detector=1, rows=part.astype("<f8").tobytes(), layout=layout)
        stub.ScoreBatch(request, timeout=20)
    requests = [scoring_pb2.ScoreStreamRequest(settings={"detectors": [1]})]
    for row in parts[3]:
        samples = [{"series": "a", "values": row}, {"series": "a", "values": [float("nan")] * 7}]
        requests.append(scoring_pb2.ScoreStreamRequest(samples=samples))
    assert len(list(stub.ScoreStream(iter(requests), timeout=20))) == len(requests)
    infer = inference_pb2.ModelInferRequest(
        model_name=FOREST,
        inputs=[{"name": "samples", "datatype": "FP64", "shape": parts[4].shape}],
        raw_input_contents=[parts[4].astype("<f8").tobytes()],
    )
    inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer, timeout=20)
    for refused in ([], [float("nan")] * 7, [1.0] * 6):
        with pytest.raises(grpc.RpcError):
            stub.Score(scoring_pb2.ScoreRequest(detector=1, samples=[{"values": refused}]), timeout=20)


@pytest.mark.parametrize("kind", ["python", "go"])
def test_what_is_published(kind, drift_set, reference):
    rows = TRAINING[:150].copy()
    rows[:, 1] += 3 * reference.features[1].scale
    windows = TRAINING[:700].astype("<f8")
    with serving(kind, drift_set, "--drift-window", "120", metrics=True) as sidecar, sidecar.channel() as channel:
        assert page_of(sidecar) == {f'dwcp_drift_rows{{detector="{name}"}}': 0 for name in (FOREST, LSTM)}
        ask(channel, rows)
        found = page_of(sidecar)
        wanted = gauges(reference, FOREST, rows[-120:]) | gauges(reference, LSTM, rows[:0])
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-15)
        assert found['dwcp_drift{detector="isolation_forest",metric="latency"}'] == 1
        # Of windows the last sample of each.
        stub, given = scoring_pb2_grpc.ScoringServiceStub(channel), windows[:0]
        for layout, last in ((0, windows[9::10]), (1, windows[9::10]), (2, windows[9:])):
            stub.ScoreBatch(
                scoring_pb2.ScoreBatchRequest(detector=2, rows=windows.tobytes(), layout=layout), timeout=20
            )
            of_lstm = {key: value for key, value in page_of(sidecar).items() if LSTM in key}
            given = np.concatenate([given, last])[-120:]
            assert of_lstm == pytest.approx(gauges(reference, LSTM, given), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", ["python", "go"])
def test_a_new_set_starts_anew(kind, drift_set, tmp_path):
    folder = Path(shutil.copytree(drift_set, tmp_path / "models"))
    flags = ("--watch", "0")
    with serving(kind, folder, *flags, metrics=True) as sidecar, sidecar.channel() as channel:
        ask(channel, TRAINING[:100])
        assert len(page_of(sidecar)) == 2 + 3 * 7
        shutil.rmtree(folder)
        shutil.copytree(REFERENCE_SET, folder)  # an old one
        operations = scoring_pb2_grpc.OperationsServiceStub(channel)
        assert operations.Reload(scoring_pb2.ReloadRequest(), timeout=60).changed
        ask(channel, TRAINING[:100])
        assert page_of(sidecar) == {}
        shutil.rmtree(folder)
        shutil.copytree(drift_set, folder)
        assert operations.Reload(scoring_pb2.ReloadRequest(), timeout=60).changed
        assert page_of(sidecar) == {f'dwcp_drift_rows{{detector="{name}"}}': 0 for name in (FOREST, LSTM)}


@pytest.mark.parametrize("kind", ["python", "go"])
def test_switched_off(kind, drift_set):
    with serving(kind, drift_set, "--drift-window", "0", metrics=True) as sidecar, sidecar.channel() as channel:
        ask(channel, TRAINING[:100])
        assert page_of(sidecar) == {}


@pytest.mark.slow  # waits for what workers publish
def test_of_several_workers_the_largest_is_shown(drift_set, reference, tmp_path):
    """Each has its own rows. After a swap to a set without references no series is left, though files lose none."""
    rows = TRAINING[:100].copy()
    rows[:, 1] += 3 * reference.features[1].scale
    folder = Path(shutil.copytree(drift_set, tmp_path / "models"))
    socket = tmp_path / "s"
    with serving("workers", folder, "--unix", socket, "--watch", "0", metrics=True) as sidecar:
        for address, sent in zip(sidecar.addresses, (rows, TRAINING[:80]), strict=True):
            with sidecar.channel(address) as channel:
                ask(channel, sent)
        shifted, same = gauges(reference, FOREST, rows), gauges(reference, FOREST, TRAINING[:80])
        wanted = {key: max(shifted[key], same[key]) for key in shifted}
        assert _until(lambda: {key: value for key, value in page_of(sidecar).items() if FOREST in key}, wanted)
        shutil.rmtree(folder)
        shutil.copytree(REFERENCE_SET, folder)
        with sidecar.channel() as channel:
            operations = scoring_pb2_grpc.OperationsServiceStub(channel)
            assert operations.Reload(scoring_pb2.ReloadRequest(), timeout=60).changed
        assert _until(lambda: page_of(sidecar), {})


def _until(ask, wanted: dict[str, float]) -> bool:
    """Whether the page says so within some publishing periods."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if ask() == pytest.approx(wanted, rel=1e-12, abs=1e-15):
                return True
        time.sleep(0.5)
    return False


def test_get_model_set_leaves_the_reference_out(drift_set):
    """It is what the sidecar alone needs, and large (as calibration scores and training history)."""
    answers = []
    for kind in ("python", "go"):
        with serving(kind, drift_set) as sidecar, sidecar.channel() as channel:
            stub = scoring_pb2_grpc.ScoringServiceStub(channel)
            answers.append(stub.GetModelSet(scoring_pb2.GetModelSetRequest(), timeout=20))
    assert answers[0] == answers[1]
    assert len(answers[0].models) == 2
    assert not any(metadata.HasField("drift") for metadata in answers[0].models)
