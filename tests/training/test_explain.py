"""`dwcp explain`: which rows, what is said of them, standard input, windows, ensembles, SHAP."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.verdicts import Explain
from dwcp_training.cli import app
from dwcp_training.data import forest_rows, lstm_series, read_table, write_csv
from dwcp_training.explain.shapley import shap_values
from dwcp_training.profiles import load_profile
from tests.training.conftest import COMMAND

PROFILE = load_profile("dwcp")
ENSEMBLE = Path(__file__).resolve().parents[2] / "models" / "reference" / "ensemble-v1"


def invoke(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "140"}, input=stdin)


def explained(*arguments: str | Path) -> list[dict[str, Any]]:
    result = invoke("--json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_worst_rows_come_first_and_say_what_the_model_says(forest_models: Path, csv: Path) -> None:
    model = ModelSet.open(forest_models).model("isolation_forest")
    telemetry = read_table(csv, PROFILE)
    verdicts = model.score_batch(telemetry.values, Explain.ALWAYS)
    worst = np.argsort(-verdicts.scores, kind="stable")[:5]
    found = explained("--models", forest_models, "--data", csv, "--worst", "5")
    assert [item["row"] - 2 for item in found] == worst.tolist()
    for item, row in zip(found, worst, strict=True):
        assert item["score"] == verdicts.scores[row]
        assert item["p_value"] == verdicts.p_values[row]
        assert item["is_anomaly"] == verdicts.is_anomaly[row]
        assert item["threshold"] == model.threshold
        shares = [part["contribution"] for part in item["metrics"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
        for part in item["metrics"]:
            j = model.feature_names.index(part["metric"])
            assert part["value"] == part["low"] == part["high"] == telemetry.values[row, j]
            assert part["contribution"] == verdicts.contributions[row, j]
            assert part["expected"] == verdicts.expected[row, j]
            assert part["unit"] == PROFILE.feature_schema.features[j].unit


def test_rows_by_line_and_time(forest_models: Path, csv: Path) -> None:
    found = explained(
        "--models", forest_models, "--data", csv, "--row", "42", "--at", "2024-01-01T00:10:00Z", "--row", "2"
    )
    assert [(item["row"], item["time"]) for item in found] == [
        (2, "2024-01-01T00:00:00Z"), (12, "2024-01-01T00:10:00Z"), (42, "2024-01-01T00:40:00Z")
    ]  # fmt: skip


def test_windows_of_a_network_and_of_an_ensemble() -> None:
    models = ModelSet.open(ENSEMBLE)
    telemetry = lstm_series(60, seed=3)
    lines = [json.dumps({"timestamp": str(time) + "Z", **dict(zip(telemetry.schema.names, row, strict=True))})
             for time, row in zip(telemetry.timestamps, telemetry.values.tolist(), strict=True)]  # fmt: skip
    flags = ("--models", str(ENSEMBLE), "--json", "--worst", "1", "-")
    command = [COMMAND, "explain", *flags]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = {item["detector"]: item for item in map(json.loads, done.stdout.splitlines())}
    assert set(found) == set(models.models)
    for name, item in found.items():
        model = models.model(name)
        row = item["row"] - 1
        window = telemetry.values[row - model.timesteps + 1 : row + 1]
        verdict = model.score(window)
        assert item["score"] == verdict.scores[0]
        for part in item["metrics"]:
            j = model.feature_names.index(part["metric"])
            assert (part["low"], part["high"]) == (window[:, j].min(), window[:, j].max())
            assert part["contribution"] == verdict.contributions[0, j]
    members = found["ensemble"]["members"]
    assert len(members) == len(models.models) - 1
    assert sum(member["weight"] for member in members) == pytest.approx(1)


def test_alarms_in_the_order_of_the_data(forest_models: Path, tmp_path: Path) -> None:
    telemetry = forest_rows(200)
    for row in (50, 20, 120):
        telemetry.values[row] *= 3
    write_csv(telemetry, tmp_path / "x.csv")
    flags = ("--models", forest_models, "--data", tmp_path / "x.csv", "--alarms")
    rows = [item["row"] for item in explained(*flags)]
    assert {22, 52, 122} <= set(rows)
    assert rows == sorted(rows)
    result = invoke(*flags, "--worst", "2")
    assert f"the worst 2 of {len(rows)} alarms" in result.stderr


def test_a_person_reads_a_table(forest_models: Path, csv: Path) -> None:
    result = invoke("--models", forest_models, "--data", csv, "--worst", "1", "--top", "2")
    assert result.exit_code == 0, result.output
    assert "isolation_forest" in result.stdout
    assert "normal.csv line" in result.stdout
    assert " p 0." in result.stdout
    assert "contribution" in result.stdout
    assert "in the window" not in result.stdout
    assert result.stdout.count("│ 1 │") == result.stdout.count("│ 2 │") == 1
    assert "│ 3 │" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--data FILE, or -"),
        (("--data", "x.csv", "-"), "--data FILE, or -"),
        (("x.csv",), "--data x.csv"),
        (("--data", "x.csv", "--row", "3", "--alarms"), "give one"),
        (("--data", "x.csv", "--at", "noon"), "--at noon"),
        (("--data", "x.csv", "--row", "0"), "--row 0"),
        (("--data", "x.csv", "--worst", "0"), "--worst 0"),
        (("--data", "x.csv", "--top", "0"), "--top 0"),
    ],
)
def test_wrong_usage_is_named(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("--models", "m", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_what_cannot_be_explained_is_refused(forest_models: Path, csv: Path) -> None:
    gone = invoke("--models", forest_models, "--data", csv, "--row", "9999")
    assert gone.exit_code == 1
    assert "has no verdict on such a row" in gone.stderr
    nothing = invoke("--models", forest_models, "--data", csv, "--shap")
    assert nothing.exit_code == 1
    assert "pip install shap" in nothing.stderr


class ExactShap:
    """Stands for `shap.KernelExplainer`: the same values, from the definition, over all subsets of the players."""

    def __init__(self, scores: Callable[[np.ndarray], np.ndarray], background: np.ndarray) -> None:
        self.scores, self.background = scores, background

    def shap_values(self, present: np.ndarray, silent: bool = False) -> np.ndarray:
        width = present.shape[1]
        subsets = np.array(list(itertools.product((0.0, 1.0), repeat=width)))
        worth = dict(zip(map(tuple, subsets.tolist()), self.scores(subsets).tolist(), strict=True))
        found = np.zeros(width)
        for subset in worth:
            for j in range(width):
                if not subset[j]:
                    size = int(sum(subset))
                    weight = math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
                    found[j] += weight * (worth[(*subset[:j], 1.0, *subset[j + 1 :])] - worth[subset])
        return found[np.newaxis]


def test_shap_values_say_how_much_each_metric_adds(
    forest_models: Path, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the library, which is not installed: what is asked of it, and what is made of its answer."""
    library = ModuleType("shap")
    library.KernelExplainer = ExactShap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shap", library)
    model = ModelSet.open(forest_models).model("isolation_forest")
    usual = np.array(model.metadata.reference_values)
    window = usual[np.newaxis].copy()
    window[0, 1] += 40
    found = shap_values(model, window)
    at, normal = (model.score([list(row)]).scores[0] for row in (window[0], usual))
    assert found.sum() == pytest.approx(float(at) - float(normal), abs=1e-6)
    assert np.abs(np.delete(found, 1)).max() < 1e-9
    result = invoke("--models", forest_models, "--data", csv, "--worst", "1", "--shap")
    assert result.exit_code == 0, result.output
    assert "SHAP" in result.stdout
    assert "metric first:" in result.stdout
    network = ModelSet.open(ENSEMBLE).model("ensemble")
    assert shap_values(network, lstm_series(network.timesteps).values).shape == (7,)
