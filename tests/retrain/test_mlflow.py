"""Recording in MLflow: a stand-in module that notes the calls; without the module, what to install."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from dwcp_sidecar.model_set import ModelSet
from tests.retrain.conftest import Bench

URI = "http://127.0.0.1:5000"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    noted: list[tuple[str, tuple[Any, ...]]] = []
    module = types.ModuleType("mlflow")

    def note(name: str) -> Any:
        return lambda *arguments: noted.append((name, arguments))

    for name in ("set_tracking_uri", "set_experiment", "set_tags", "log_params", "log_metric", "log_dict"):
        setattr(module, name, note(name))

    @contextlib.contextmanager
    def start_run(run_name: str) -> Iterator[None]:
        noted.append(("start_run", (run_name,)))
        yield
        noted.append(("end_run", ()))

    module.start_run = start_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return noted


def test_a_run_is_recorded(bench: Bench, calls: list[tuple[str, tuple[Any, ...]]]) -> None:
    result = bench.retrain("--data", bench.data(2), "--mlflow", URI)
    assert result.exit_code == 0, result.output
    models = ModelSet.open(bench.models)
    names = [name for name, _ in calls]
    assert names[:3] == ["set_tracking_uri", "set_experiment", "start_run"]
    assert names[-1] == "end_run"
    given = dict(calls)
    assert given["set_tracking_uri"] == (URI,)
    assert given["start_run"] == (models.id[:16],)
    assert given["set_tags"][0]["model_set_id"] == models.id
    assert given["log_params"][0]["isolation_forest.n_estimators"] == "40"
    metrics = dict(arguments for name, arguments in calls if name == "log_metric")
    assert metrics["promoted"] == 1.0
    assert metrics["isolation_forest/recall of step/challenger"] > 0.5
    assert metrics["isolation_forest/threshold"] == models.metadata["isolation_forest"].threshold
    assert given["log_dict"][0] == bench.decision()


def test_a_server_that_is_away_changes_no_decision(
    bench: Bench, calls: list[tuple[str, tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setattr(sys.modules["mlflow"], "set_experiment", away)
    first = bench.current
    result = bench.retrain("--data", bench.data(2), "--mlflow", URI)
    assert result.exit_code == 0
    assert "not recorded in MLflow: connection refused" in result.output
    assert bench.current != first


def test_without_mlflow_nothing_is_trained(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = bench.retrain("--data", bench.data(2), "--mlflow", URI)
    assert result.exit_code == 1
    assert "pip install mlflow" in result.output
    assert not (bench.models / ".retrain/challenger").exists()
