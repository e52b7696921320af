"""Retraining beside signatures, alarm budgets and int8: what one command promises, the monthly run keeps."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.signatures import PublicKeys
from dwcp_training.profiles import load_profile
from dwcp_training.retrain.challenger import plan
from dwcp_training.signing import PRIVATE_KEY, PUBLIC_KEY, new_keys
from tests.retrain.conftest import FOREST, Bench
from tests.training.test_cli import invoke


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    new_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_what_is_promoted_is_signed(bench: Bench, keys: Path) -> None:
    result = bench.retrain("--data", bench.data(2), "--sign-key", keys / PRIVATE_KEY)
    assert result.exit_code == 0, result.output
    public = PublicKeys.read(keys / PUBLIC_KEY)
    signed = ModelSet.open(bench.models, public_keys=public)
    assert signed.path.name == bench.current
    assert ModelSet.open(bench.models / "releases" / bench.current, public_keys=public).id == signed.id


def test_a_key_that_cannot_be_used_is_said_before_the_long_work(bench: Bench, tmp_path: Path) -> None:
    first = bench.current
    result = bench.retrain("--data", bench.data(2), "--sign-key", tmp_path / "nowhere.pem")
    assert result.exit_code == 1
    assert "nowhere.pem" in result.stderr
    assert "rows to train on" not in result.output
    assert bench.current == first


def test_an_unsigned_release_in_the_place_of_a_signed_one_is_warned_of(
    bench: Bench, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert invoke("sign", "--models", bench.models, "--key", keys / PRIVATE_KEY).exit_code == 0
    with caplog.at_level(logging.WARNING, "dwcp.training"):
        result = bench.retrain("--data", bench.data(2))
    assert result.exit_code == 0, result.output
    assert "is signed and the new one is not" in caplog.text + result.output


def test_the_alarm_budget_of_the_champion_is_kept(bench: Bench) -> None:
    flags = ("--data", bench.data(1), "--profile", bench.profile, "--alarm-budget", "20/day")
    trained = invoke("train", "isolation-forest", *flags, "--output", bench.models)
    assert trained.exit_code == 0, trained.output
    chosen = plan(load_profile(bench.profile), ModelSet.open(bench.models), (), "champion")
    assert str(chosen.options["isolation_forest"]["alarm_budget"]) == "20/day"
    assert "alarm_budget" not in plan(load_profile(bench.profile), ModelSet.open(bench.models), (), "profile").options
    result = bench.retrain("--data", bench.data(2), *FOREST)
    assert result.exit_code in (0, 3), result.output
    folder = bench.models if result.exit_code == 0 else bench.models / ".retrain/challenger"
    record = ModelSet.open(folder).metadata["isolation_forest"].training
    assert record.data_source == "month_2.csv"
    assert record.hyperparameters["alarm_budget"] == "20/day"


def test_an_int8_champion_is_trained_in_float64_and_said_to_be(bench: Bench) -> None:
    champion = ModelSet.open(Path(__file__).parents[2] / "models/reference/v1")
    champion.metadata["lstm_autoencoder"].graph.precision = "int8"
    chosen = plan(load_profile("dwcp"), champion, (), "champion")
    assert chosen.options["lstm_autoencoder"] == {}
    assert any("dwcp quantize" in note for note in chosen.notes)


def test_a_mahalanobis_distance_keeps_its_settings_and_its_window() -> None:
    champion = ModelSet.open(Path(__file__).parents[2] / "models/reference/mahalanobis-v1")
    champion.metadata["mahalanobis"].training.hyperparameters.update({"lags": "7", "limits": "False", "ridge": "0.1"})
    chosen = plan(load_profile("dwcp"), champion, (), "champion")
    settings = chosen.settings["mahalanobis"]
    assert (settings.lags, settings.limits, settings.ridge) == (7, False, 0.1)
    assert chosen.window(None) == 8


def test_an_ensemble_is_trained_after_all_its_members() -> None:
    """Also after those whose number in the enum is higher."""
    champion = ModelSet.open(Path(__file__).parents[2] / "models/reference/mahalanobis-v1")
    chosen = plan(load_profile("dwcp"), champion, ("ensemble", "mahalanobis", "isolation_forest"), "profile")
    assert list(chosen.settings) == ["isolation_forest", "mahalanobis", "ensemble"]
