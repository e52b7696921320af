"""Fixtures of the retraining tests: a profile whose models train in a second, made-up months, a first release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import Result

from dwcp_training.data import Telemetry, lstm_series, write_csv
from dwcp_training.profiles import load_profile, profile_yaml
from tests.shared import made_once
from tests.training.conftest import leave_out_cross_checks
from tests.training.test_cli import invoke

ROWS = 1200
FOREST = ("--detector", "isolation_forest")


def series(month: int, rows: int = ROWS) -> Telemetry:
    """Normal rows, a minute apart, that begin at a month of their own."""
    telemetry = lstm_series(rows, seed=100 + month)
    assert telemetry.timestamps is not None
    shift = np.datetime64(f"2024-{month:02}-01", "ns") - telemetry.timestamps[0]
    return replace(telemetry, timestamps=telemetry.timestamps + shift)


def write_profile(path: Path, gate: dict[str, Any] | None = None, **forest: Any) -> Path:
    """The profile dwcp with small models, and with a gate."""
    content = yaml.safe_load(profile_yaml(load_profile("dwcp")))
    content["detectors"]["isolation_forest"] |= {"n_estimators": 40, **forest}
    content["detectors"]["lstm_autoencoder"] |= {
        "window_size": 3, "epochs": 1, "encoding_dim": 2, "hidden_units": 4, "batch_size": 128,
    }  # fmt: skip
    content["gate"] |= {"events": 28, **(gate or {})}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@dataclass
class Bench:
    """A folder to retrain in.

    Attributes:
        root: has the files.
        models: the model folder.
        profile: the small profile.
    """

    root: Path
    models: Path
    profile: Path

    def data(self, month: int) -> Path:
        return self.root / f"month_{month}.csv"

    def retrain(self, *arguments: str | Path, profile: Path | None = None) -> Result:
        """Runs `dwcp retrain` in this process; it must not end with a traceback."""
        result = invoke("retrain", "--models", self.models, "--profile", profile or self.profile, *arguments)
        assert "Traceback" not in result.output, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    def decision(self) -> dict[str, Any]:
        """What the last run decided."""
        return json.loads((self.models / ".retrain/decision.json").read_text())

    @property
    def current(self) -> str:
        link = self.models / "current"
        return link.readlink().name if link.is_symlink() else ""

    def releases(self) -> set[str]:
        return {path.name for path in (self.models / "releases").iterdir()}


@pytest.fixture(scope="session")
def months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three months of data, a small profile, and a model folder with a forest of the first month."""

    def make(root: Path) -> None:
        for month in (1, 2, 3):
            write_csv(series(month), root / f"month_{month}.csv")
        bench = Bench(root, root / "models", write_profile(root / "small.yaml"))
        patch = pytest.MonkeyPatch()
        leave_out_cross_checks(patch)
        try:
            result = bench.retrain("--data", bench.data(1), *FOREST)
        finally:
            patch.undo()
        assert result.exit_code == 0, result.output

    return made_once(tmp_path_factory, "months", make)


@pytest.fixture
def bench(months: Path, tmp_path: Path, no_cross_check: None) -> Bench:
    """A copy with the first release."""
    shutil.copytree(months, tmp_path / "b", symlinks=True)
    root = tmp_path / "b"
    return Bench(root, root / "models", root / "small.yaml")


@pytest.fixture
def no_cross_check(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_cross_checks(monkeypatch)


@pytest.fixture
def profile_with(tmp_path: Path) -> Callable[..., Path]:
    """Writes a profile: gate settings, and those of the forest by name."""

    def write(gate: dict[str, Any] | None = None, **forest: Any) -> Path:
        return write_profile(tmp_path / "other.yaml", gate, **forest)

    return write
