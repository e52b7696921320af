"""Live quality as whole sidecars publish it: p-values and the alarm budget, the same in both (rules M1, M3, M4)."""

import shutil
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.p_values import BOUNDS
from tests.conformance.drift_set import training_rows
from tests.conformance.edited_set import with_metadata
from tests.conformance.sets import ENSEMBLE_SET, MORE_SET, REFERENCE_SET
from tests.faults.endpoint import Endpoint, serving
from tests.sidecar.test_drift import ask

pytestmark = pytest.mark.timeout(180)
FOREST, LSTM = "isolation_forest", "lstm_autoencoder"
NORMAL = training_rows().values
KINDS = ["python", "workers", "go"]
"""One process, two that share their counts, and Go."""


def published(sidecar: Endpoint) -> dict[str, float]:
    """Scores, p-values and budgets by name and labels; bounds as numbers, for `1` and `1.0` are the same."""
    with urllib.request.urlopen(f"http://{sidecar.metrics}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(page):
        if family.name in ("dwcp_scores", "dwcp_score_p_value", "dwcp_alarm_budget_share"):
            for sample in family.samples:
                bound = f" {float(sample.labels['le'])}" if "le" in sample.labels else ""
                found[f"{sample.name} {sample.labels['detector']}{bound}"] = sample.value
    return found


def expected(p_values: dict[str, np.ndarray], budgets: dict[str, float]) -> dict[str, float]:
    """What is published of detectors that gave these p-values."""
    wanted = {f"dwcp_alarm_budget_share {name}": share for name, share in budgets.items()}
    for name, values in p_values.items():
        wanted[f"dwcp_scores_total {name}"] = wanted[f"dwcp_score_p_value_count {name}"] = len(values)
        wanted[f"dwcp_score_p_value_sum {name}"] = float(np.sum(values))
        for bound in (*BOUNDS, float("inf")):
            wanted[f"dwcp_score_p_value_bucket {name} {bound}"] = int(np.sum(values <= bound))
    return wanted


NOTHING = np.array([])


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_scoring_is_counted(kind):
    """And nothing that is refused: unary calls, both layouts of a batch, a stream, an inference."""
    models = ModelSet.open(REFERENCE_SET)
    rows = NORMAL[:150].copy()
    rows[::10, 1] *= 4
    rows[::7, 4] = 99
    p_values = models.models[FOREST].score_batch(rows).p_values
    assert min(p_values) < 0.001 < 0.5 < max(p_values), "the histogram is not that of one bucket"
    windows = NORMAL[:300]
    p_lstm = models.models[LSTM].score_batch(windows).p_values
    shares = {FOREST: 0.01, LSTM: 0.05}
    with serving(kind, REFERENCE_SET, metrics=True) as sidecar, sidecar.channel() as channel:
        assert published(sidecar) == expected({FOREST: NOTHING, LSTM: NOTHING}, shares)
        ask(channel, rows)
        assert published(sidecar) == pytest.approx(expected({FOREST: p_values, LSTM: NOTHING}, shares), rel=1e-12)
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        stub.ScoreBatch(
            scoring_pb2.ScoreBatchRequest(detector=2, rows=windows.astype("<f8").tobytes(), layout=1), timeout=20
        )
        assert published(sidecar) == pytest.approx(expected({FOREST: p_values, LSTM: p_lstm}, shares), rel=1e-12)


def with_budget(models: Path, to: Path, budget: str) -> Path:
    """A copy of a set whose models say that they were trained for a budget."""

    def change(metadata: dict[str, Any]) -> None:
        metadata["training"]["hyperparameters"]["alarm_budget"] = budget

    return with_metadata(models, to, change)


def shares(sidecar: Endpoint) -> dict[str, float]:
    return {
        key.split()[1]: value for key, value in published(sidecar).items() if key.startswith("dwcp_alarm_budget_share")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_budgets_are_those_of_the_set_in_use(kind, tmp_path):
    """Old sets have them as far as they say so: a classifier, an ensemble and this one-class SVM do not."""
    folder = tmp_path / "models"
    shutil.copytree(ENSEMBLE_SET, folder)
    budget = 0.1 * 60.0 / 604_800.0
    with serving(kind, folder, "--watch", "0", metrics=True) as sidecar, sidecar.channel() as channel:
        assert shares(sidecar) == {FOREST: 0.01, "dense_autoencoder": 0.05}
        swap(folder, MORE_SET, channel)
        assert shares(sidecar) == {"local_outlier_factor": 0.01, "dense_autoencoder": 0.05}
        swap(folder, with_budget(ENSEMBLE_SET, tmp_path / "budget", "0.1/week"), channel)
        names = (FOREST, "dense_autoencoder", "lstm_classifier", "ensemble")
        assert shares(sidecar) == dict.fromkeys(names, budget)


def swap(folder: Path, models: Path, channel: grpc.Channel) -> None:
    shutil.rmtree(folder)
    shutil.copytree(models, folder)
    operations = scoring_pb2_grpc.OperationsServiceStub(channel)
    assert operations.Reload(scoring_pb2.ReloadRequest(), timeout=60).changed
