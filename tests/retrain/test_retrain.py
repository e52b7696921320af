"""`dwcp retrain`: what is trained on, what is decided, what is published, and what people are told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import write_csv
from dwcp_training.retrain.executor import run_executor
from tests.conformance import go_program
from tests.retrain.conftest import FOREST, Bench, series
from tests.training.test_cli import invoke


def test_the_first_run_promotes_after_its_own_checks(months: Path) -> None:
    bench = Bench(months, months / "models", months / "small.yaml")
    models = ModelSet.open(bench.models)
    assert list(models.models) == ["isolation_forest"]
    decision = bench.decision()
    assert decision["promote"] is True
    assert decision["champion"] == ""
    assert decision["challenger"] == models.id
    assert {row["measure"] for row in decision["rows"]} >= {"recall of step", "false alarms", "latency", "size"}
    # Nothing of the held-out end was trained on, nor of the window before it.
    assert models.metadata["isolation_forest"].training.last_timestamp == "2024-01-01T15:58:00Z"
    assert not (bench.models / ".retrain/challenger").exists()


def test_the_next_month_takes_the_place_of_the_first(bench: Bench) -> None:
    first = bench.current
    result = bench.retrain("--data", bench.data(2), "--keep", "2")
    assert result.exit_code == 0, result.output
    assert bench.current != first
    assert bench.releases() == {first, bench.current}
    assert ModelSet.open(bench.models).metadata["isolation_forest"].training.data_source == "month_2.csv"
    for word in ("champion", "challenger", "recall of freeze", "false alarms", "promoted"):
        assert word in result.output
    switches = [json.loads(line) for line in (bench.models / "history.jsonl").read_text().splitlines()]
    assert [(s["release"], s["before"], s["by"]) for s in switches] == [
        (first, "", "retrain"), (bench.current, first, "retrain"),
    ]  # fmt: skip
    third = bench.retrain("--data", bench.data(3), "--keep", "1")
    assert third.exit_code == 0, third.output
    assert len(bench.releases()) == 2, "the one before the current one stays, whatever --keep says"
    assert first not in bench.releases()


def test_a_dry_run_publishes_nothing_and_leaves_a_candidate(bench: Bench) -> None:
    first, before = bench.current, sorted(path for path in bench.models.rglob("*") if ".retrain" not in path.parts)
    result = bench.retrain("--data", bench.data(2), "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    decision = json.loads(result.stdout)
    assert decision["promote"] is True
    assert "dry run" in result.stderr
    assert before == sorted(path for path in bench.models.rglob("*") if ".retrain" not in path.parts)
    assert bench.current == first
    shown = invoke("releases", "show", "candidate", "--models", bench.models)
    assert shown.exit_code == 0
    assert decision["challenger"] in shown.output
    assert invoke("releases", "promote", "candidate", "--models", bench.models).exit_code == 0
    assert ModelSet.open(bench.models).id == decision["challenger"]


def test_a_worse_challenger_is_not_promoted(bench: Bench, profile_with: Callable[..., Path]) -> None:
    first = bench.current
    worse = profile_with({"events": 140}, n_estimators=1, contamination=0.0005, max_samples=2)
    result = bench.retrain("--data", bench.data(2), "--settings", "profile", profile=worse)
    assert result.exit_code == 3, result.output
    assert bench.current == first
    assert bench.releases() == {first}
    decision = bench.decision()
    failed = [row["measure"] for row in decision["rows"] if not row["passed"]]
    assert failed
    assert all(measure.startswith("recall of ") for measure in failed)
    for row in decision["rows"]:
        if row["measure"] in failed:
            assert row["interval"][1] < 0
            assert row["challenger"] < row["champion"]
    assert "the loss is no chance" in result.output
    candidate = bench.models / ".retrain/challenger"
    assert ModelSet.open(candidate).id == decision["challenger"]
    assert bench.retrain("--data", bench.data(2)).exit_code == 0, "and the next run is not in its way"
    assert not candidate.exists()


@pytest.mark.parametrize(
    ("gate", "measure"),
    [
        ({"size_mb": 0.01}, "size"),
        ({"latency_ms": 0.0001}, "latency"),
        ({"false_alarm_factor": 0.01}, "false alarms"),
        ({"alarm_budget": "0.1/week", "false_alarm_factor": 1000.0}, "alarm budget"),
    ],
)
def test_each_limit_is_kept(
    gate: dict[str, object], measure: str, bench: Bench, profile_with: Callable[..., Path]
) -> None:
    first = bench.current
    # The champion's own figure is the limit where it is worse than the gate's: there is none here.
    (bench.models / "current").unlink()
    for link in bench.models.iterdir():
        if link.is_symlink():
            link.unlink()
    profile = profile_with(gate, contamination=0.05)
    result = bench.retrain("--data", bench.data(2), *FOREST, profile=profile)
    assert result.exit_code == 3, result.output
    assert [row["measure"] for row in bench.decision()["rows"] if not row["passed"]] == [measure]
    assert f"FAIL isolation_forest, {measure}" in result.output or f"FAIL all, {measure}" in result.output
    assert bench.current == ""
    assert bench.releases() == {first}


def test_incidents_and_excess_alarms_are_not_trained_on(bench: Bench) -> None:
    telemetry = series(2)
    values = telemetry.values.copy()
    values[100:110, 1] = 400.0  # known
    values[300:340, 1:4] = [400.0, 5.0, 30.0]  # not known, and the champion alarms
    write_csv(replace(telemetry, values=values), bench.root / "faulty.csv")
    times = telemetry.timestamps
    assert times is not None
    (bench.root / "incidents.csv").write_text(f"start,end,kind\n{times[100]}Z,{times[109]}Z,outage\n")
    result = bench.retrain("--data", bench.root / "faulty.csv", "--exclude", bench.root / "incidents.csv")
    assert result.exit_code == 0, result.output
    metadata = ModelSet.open(bench.models).metadata["isolation_forest"]
    assert metadata.training.dropped["excluded_interval"] == 10
    assert metadata.scaler.mean[1] < 11
    assert metadata.scaler.scale[1] < 3, "a single row of 400 ms would make it more than 12"
    assert "excess alarms" in result.output


def test_drifted_data_is_refused_until_a_person_says_that_it_is_normal(bench: Bench) -> None:
    first, telemetry = bench.current, series(2)
    values = telemetry.values * np.array([1.0, 3.0, 3.0, 5.0, 1.0, 1.0, 1.0])
    write_csv(replace(telemetry, values=values), bench.root / "drifted.csv")
    result = bench.retrain("--data", bench.root / "drifted.csv")
    assert result.exit_code == 1, result.output
    assert "the data has drifted" in result.output
    assert "--keep-alarms" in result.output
    assert bench.current == first
    # The champion alarms on nearly everything: what it finds is bought with false alarms, and no measure.
    result = bench.retrain("--data", bench.root / "drifted.csv", "--keep-alarms")
    assert result.exit_code == 0, result.output
    rows = {row["measure"]: row for row in bench.decision()["rows"]}
    assert rows["false alarms"]["champion"] > 0.3
    assert rows["false alarms"]["challenger"] < 0.05
    assert rows["recall of freeze"]["limit"] == "none: the champion alarms on normal rows too"


def test_a_champion_that_no_longer_loads_is_replaced(bench: Bench) -> None:
    first = bench.current
    graph = bench.models / "releases" / first / "isolation_forest.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    result = bench.retrain("--data", bench.data(2), *FOREST)
    assert result.exit_code == 0, result.output
    assert "does not open and is no measure" in result.output
    assert bench.current != first
    ModelSet.open(bench.models)


def test_other_metrics_are_refused(bench: Bench) -> None:
    first = bench.current
    (bench.root / "other.yaml").write_text(
        "feature_schema: {name: servers, version: 1}\ntimestamp_column: timestamp\nreader: {features: numeric, "
        "metadata: [jitter]}\n"
    )
    result = bench.retrain("--data", bench.data(2), profile=bench.root / "other.yaml")
    assert result.exit_code == 1
    assert "the current release scores bandwidth, latency" in result.output
    assert bench.current == first


def test_what_became_current_meanwhile_is_not_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from dwcp_training.retrain import command

    judge = command.judge

    def slow(*arguments: object) -> object:
        assert invoke("retrain", "--help").exit_code == 0
        (bench.models / "next").symlink_to("releases/somebody_elses")
        (bench.models / "next").replace(bench.models / "current")
        return judge(*arguments)

    monkeypatch.setattr(command, "judge", slow)
    result = bench.retrain("--data", bench.data(2))
    assert result.exit_code == 1
    assert "somebody_elses is current now" in result.output


def test_the_last_days_alone_are_used(bench: Bench) -> None:
    result = bench.retrain("--data", bench.data(1), "--data", bench.data(2), "--days", "2", "--dry-run")
    assert "the last 2 days: 1,200 of 2,400 rows" in result.output
    assert "2024-02-01" in result.output


@pytest.mark.slow
def test_all_detectors_of_the_champion_are_trained_again(bench: Bench) -> None:
    """Also with hyperparameters that the profile does not have, and an ensemble of them."""
    shared = ("--data", bench.data(1), "--profile", bench.profile)
    assert invoke("train", "lstm-autoencoder", *shared, "--output", bench.models, "--window-size", "4").exit_code == 0
    weights = ("--weights", "isolation_forest=0.7,lstm_autoencoder=0.3")
    assert invoke("train", "ensemble", *shared, "--models", bench.models, *weights).exit_code == 0
    result = bench.retrain("--data", bench.data(2), "--dry-run", *FOREST, "--json")
    assert result.exit_code in (0, 3), result.output
    challenger = ModelSet.open(bench.models / ".retrain/challenger")
    champion = ModelSet.open(bench.models)
    assert list(challenger.metadata) == ["isolation_forest", "lstm_autoencoder", "ensemble"]
    assert challenger.metadata["lstm_autoencoder"] == champion.metadata["lstm_autoencoder"], "carried over"
    assert challenger.metadata["isolation_forest"] != champion.metadata["isolation_forest"]
    members = challenger.metadata["ensemble"].ensemble.members
    assert [member.weight for member in members] == [0.7, 0.3]
    measured = {row["detector"] for row in json.loads(result.stdout)["rows"]}
    assert measured == {"isolation_forest", "lstm_autoencoder", "ensemble", "all"}

    result = bench.retrain("--data", bench.data(2), "--dry-run", "--json")
    assert result.exit_code in (0, 3), result.output
    challenger = ModelSet.open(bench.models / ".retrain/challenger")
    assert challenger.metadata["lstm_autoencoder"].timesteps == 4
    assert challenger.metadata["lstm_autoencoder"] != champion.metadata["lstm_autoencoder"]


def test_the_same_rows_again_change_nothing(bench: Bench) -> None:
    first = bench.current
    result = bench.retrain("--data", bench.data(1))
    if bench.current == first:
        assert "The challenger is the champion, to the last bit." in result.output
    else:  # an excess alarm of the champion was left out of its own training rows
        assert "left out" in result.output
    assert result.exit_code == 0


def test_go_must_pass_the_golden_vectors_too(bench: Bench) -> None:
    program = go_program.contract_score("native")
    result = bench.retrain("--data", bench.data(2), "--executor", program, "--dry-run")
    assert result.exit_code == 0, result.output
    row = bench.decision()["rows"][-1]
    assert row["measure"] == "golden vectors in contract-score"
    assert row["passed"]
    assert "isolation_forest" in row["limit"]
    result = bench.retrain("--data", bench.data(2), "--executor", "/bin/false")
    assert result.exit_code == 3
    assert "golden vectors in false" in result.output
    assert not run_executor(bench.root / "absent", bench.models).passed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one source of rows"),
        (("--data", "x.csv", "--prometheus", "http://127.0.0.1:9"), "name one source of rows"),
        (("--data", "x.csv", "--query", "latency=1"), "--query"),
        (("--data", "x.csv", "--step", "60"), "--step"),
        (("--data", "x.csv", "--days", "0"), "--days 0"),
        (("--data", "x.csv", "--keep", "0"), "--keep 0"),
        (("--data", "x.csv", "--exclude-grace", "-1"), "--exclude-grace -1"),
        (("--data", "x.csv", "--detector", "forest"), "--detector forest"),
        (("--data", "x.csv", "--settings", "mine"), "--settings"),
        (("--prometheus", "ftp://x", "--query", "latency=1"), "--prometheus ftp://x"),
        (("--prometheus", "http://127.0.0.1:9", "--query", "latency=1"), "--query is missing for bandwidth"),
        (("--prometheus", "http://127.0.0.1:9", "--step", "0.0001"), "--step 0.0001"),
    ],
)
def test_wrong_usage_names_the_flag(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = invoke("retrain", "--models", tmp_path / "m", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_data_that_is_not_there_is_refused(bench: Bench) -> None:
    result = bench.retrain("--data", "absent.csv")
    assert result.exit_code == 1
    assert "absent.csv" in result.output
    result = bench.retrain("--data", bench.data(2), "--days", "0.02")
    assert result.exit_code == 1
    assert "Collect more days" in result.output or "Use more data" in result.output


def test_a_folder_that_cannot_be_written_to_is_refused(bench: Bench) -> None:
    (bench.root / "file").write_text("in the way")
    result = invoke("retrain", "--models", bench.root / "file/models", "--data", bench.data(2))
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_a_full_disk_leaves_the_current_release(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from dwcp_training import publish as publishing

    first, write = bench.current, publishing._write

    def full(path: Path, data: bytes) -> None:
        if ".retrain" not in path.parts:  # the challenger had room
            raise OSError(28, os.strerror(28))
        write(path, data)

    monkeypatch.setattr(publishing, "_write", full)
    result = bench.retrain("--data", bench.data(2))
    assert result.exit_code == 1
    assert "No space left" in result.output
    assert bench.current == first
    ModelSet.open(bench.models)
    monkeypatch.setattr(publishing, "_write", write)
    assert bench.retrain("--data", bench.data(2)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retrain", "--help"), ["Example: dwcp retrain --models", "FEATURE=PROMQL", "--dry-run", "3 not promoted"]),
        (("releases", "--help"), ["list", "show", "promote", "rollback", "diff", "prune"]),
        (("releases", "diff", "--help"), ["Example: dwcp releases diff previous current", "--data"]),
    ],
)
def test_help_shows_examples(arguments: tuple[str, ...], words: list[str]) -> None:
    text = " ".join(invoke(*arguments).output.split())
    for word in words:
        assert word in text


def test_make_retrain_can_be_listed() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(["make", "retrain", "--dry-run"], cwd=root, capture_output=True, text=True, check=True)
    assert "dwcp retrain" in done.stdout
