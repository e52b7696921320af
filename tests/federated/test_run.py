"""Whole runs over Flower: in this process, and with real processes over loopback."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import lstm_series, write_csv
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.federated.library import require_flower

require_flower()

from flwr.common.secure_aggregation.secaggplus_constants import Key  # noqa: E402

from dwcp_training.federated.assemble import assembled  # noqa: E402  # after Flower's telemetry is off
from dwcp_training.federated.errors import SchemaError, TooFewClientsError  # noqa: E402
from dwcp_training.federated.flower_app import client_app, clipped  # noqa: E402
from dwcp_training.federated.flower_fleet import Fleet, add_noise, strategy_of  # noqa: E402
from dwcp_training.federated.flower_local import LocalGrid  # noqa: E402
from dwcp_training.federated.plan import Plan, Privacy  # noqa: E402
from dwcp_training.federated.rounds import Run, resumed  # noqa: E402
from dwcp_training.federated.simulate import Faults, in_process  # noqa: E402
from dwcp_training.federated.site import Question, Site, Task  # noqa: E402
from dwcp_training.pipeline import export  # noqa: E402
from dwcp_training.profiles import load_profile  # noqa: E402
from dwcp_training.publish import publish  # noqa: E402

TELEMETRY = lstm_series(2000)
SITES = [TELEMETRY.rows(k * 400, (k + 1) * 400) for k in range(5)]
FOREST = Plan(
    "isolation_forest",
    DETECTORS["isolation_forest"].settings(n_estimators=20, max_samples=64).model_dump(mode="json"),
    minimum=3,
)
DENSE = Plan(
    "dense_autoencoder",
    DETECTORS["dense_autoencoder"].settings(encoder_units=(8,), bottleneck=3, batch_size=64).model_dump(mode="json"),
    rounds=2,
    minimum=3,
    features=TELEMETRY.schema.names,
)
BIN = Path(sys.executable).parent
NO_FAULTS = Faults({})


def run(plan: Plan, faults: Faults = NO_FAULTS, path: Path | None = None, sites=SITES):
    """The state of a run in this process, and what the fleet said."""
    said: list[str] = []
    with in_process(sites, faults) as grid:
        fleet = Fleet(grid, 1.0, said.append)
        fleet.join(len(sites), 5)
        return Run(fleet, resumed(plan, path), path).finish(), said


def test_sums_in_the_clear_and_secure_ones_are_the_same() -> None:
    clear, secure = (run(replace(FOREST, secure=way))[0] for way in (False, True))
    rows = np.concatenate([site.values[: 400 - 80 - 1] for site in SITES])
    np.testing.assert_allclose(secure.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(secure.scale, rows.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(clear.values, secure.values)
    np.testing.assert_array_equal(clear.scores, secure.scores)
    assert secure.scores.sum() == 5 * 80


def test_the_server_of_a_secure_sum_sees_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client sends has nothing to do with its numbers: the same rows, asked twice, give other vectors."""
    sent: list[list[np.ndarray]] = []

    class Spy(LocalGrid):
        def _carried(self, message, way):
            carried = super()._carried(message, way)
            if way == "up" and carried.has_content():
                for record in carried.content.config_records.values():
                    if Key.MASKED_PARAMETERS in record:
                        sent.append(list(record[Key.MASKED_PARAMETERS]))
            return carried

    grid = Spy.of([client_app(Site(site, "same")) for site in [SITES[0]] * 3])
    fleet = Fleet(grid, 5.0, pytest.fail)
    fleet.join(3, 5)
    plan = replace(FOREST, secure=True, features=TELEMETRY.schema.names)
    total = fleet.total(Question(Task.MOMENTS, plan), [])
    assert total.arrays[0][0] == 3 * 319
    assert len(sent) == 3
    assert len({b"".join(vectors) for vectors in sent}) == 3


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_lost_in_the_middle_is_left_out(secure: bool) -> None:
    state, said = run(replace(FOREST, secure=secure), Faults({2: 0}))
    assert state.rows == 4 * 319
    assert state.rounds[-1].clients == 4
    assert any("client-2 is late" in text for text in said)


def test_too_few_clients_end_the_run_and_a_rerun_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    with pytest.raises(TooFewClientsError, match="fewer than 4"):
        run(replace(FOREST, minimum=4), Faults({1: 1, 2: 1}), path)
    kept = resumed(replace(FOREST, minimum=4), path)
    assert len(kept.mean)
    assert kept.values.size
    assert not kept.trees
    state, _ = run(replace(FOREST, minimum=4), path=path)
    np.testing.assert_array_equal(state.mean, kept.mean)
    assert len(state.trees) == 20
    assert state.scores.sum() == 400


def test_a_lying_client_does_not_move_a_robust_run() -> None:
    honest, _ = run(FOREST)
    fooled, _ = run(FOREST, Faults({}, frozenset({5})))
    robust, _ = run(replace(FOREST, robust="trimmed-mean", liars=1), Faults({}, frozenset({5})))
    assert (np.abs(fooled.mean - honest.mean) > 1000 * honest.scale).all()
    assert (np.abs(robust.mean - honest.mean) < honest.scale).all()
    assert (robust.scale < 2 * honest.scale).all()


def test_a_client_with_another_schema_is_refused_by_name() -> None:
    schema = TELEMETRY.schema.model_copy(update={"features": TELEMETRY.schema.features[:-1]})
    other = replace(SITES[4], schema=schema, values=SITES[4].values[:, :-1])
    state, said = run(replace(FOREST, features=TELEMETRY.schema.names), sites=[*SITES[:4], other])
    assert state.rounds[-1].clients == 4
    assert any("client-5 is refused" in text and "Missing: error_rate" in text for text in said)
    with pytest.raises(SchemaError, match="more than half"):
        run(FOREST, sites=[SITES[0], other])


def test_a_client_may_insist_on_secure_sums() -> None:
    said: list[str] = []
    grid = LocalGrid.of([client_app(Site(site, f"s{k}"), only_secure=True) for k, site in enumerate(SITES[:3])])
    fleet = Fleet(grid, 1.0, said.append)
    fleet.join(3, 5)
    plan = replace(FOREST, features=TELEMETRY.schema.names)
    with pytest.raises(TooFewClientsError):
        fleet.total(Question(Task.MOMENTS, plan), [])
    assert any("in the clear" in text for text in said)
    assert fleet.total(Question(Task.MOMENTS, replace(plan, secure=True)), []).clients == 3


def test_a_client_refuses_sums_over_few() -> None:
    grid = LocalGrid.of([client_app(Site(site, f"s{k}"), least_clients=5) for k, site in enumerate(SITES[:3])])
    fleet = Fleet(grid, 1.0, lambda text: None)
    fleet.join(3, 5)
    plan = replace(FOREST, features=TELEMETRY.schema.names, secure=True)
    with pytest.raises(TooFewClientsError):
        fleet.total(Question(Task.MOMENTS, plan), [])


def test_trees_of_a_lying_client_are_left_out() -> None:
    class Forger(Site):
        def trees(self, plan, number, given):
            return [tree * np.array([1, 1, 99, 1, 1]) for tree in super().trees(plan, number, given)]

    said: list[str] = []
    sites = [*(Site(site, f"s{k}") for k, site in enumerate(SITES[:3])), Forger(SITES[3], "forger")]
    fleet = Fleet(LocalGrid.of(map(client_app, sites)), 1.0, said.append)
    fleet.join(4, 5)
    state = Run(fleet, resumed(FOREST, None), None).finish()
    assert state.rounds[-1].clients == 3
    assert any("left out" in text for text in said)


@pytest.mark.parametrize(("robust", "liars"), [("trimmed-mean", 1), ("median", 1), ("krum", 1)])
def test_flowers_robust_averages_ignore_a_liar(robust, liars: int) -> None:
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    plan = replace(DENSE, robust=robust, liars=liars, minimum=5)
    grid = LocalGrid.of([])
    replies = []
    for k in range(5):
        array = np.full((3, 2), 1e6 if k == 4 else 1.0 + k / 10, np.float32)
        content = RecordDict({"arrays": ArrayRecord([array]), "metrics": MetricRecord({"num-examples": 10.0})})
        replies.append(grid._carried(Message(content, k + 2, "train"), "up"))
    arrays, _ = strategy_of(plan, 5).aggregate_train(1, replies)
    assert 1.0 <= arrays.to_numpy_ndarrays()[0].min() <= arrays.to_numpy_ndarrays()[0].max() <= 1.3


def test_clipping_and_noise_are_as_asked_for() -> None:
    before = [np.zeros((40, 50), np.float32)]
    after = clipped([np.ones((40, 50), np.float32)], before, 2.0)
    assert np.linalg.norm(after[0]) == pytest.approx(2.0, rel=1e-5)
    assert clipped(before, before, 2.0)[0].any() == np.False_
    noisy, again = [np.zeros((300, 300), np.float32)], [np.zeros((300, 300), np.float32)]
    for arrays in (noisy, again):
        np.random.seed(1)  # as Keras does with a seed that all know
        add_noise(arrays, Privacy(2.0, 0.5), 4)
    assert noisy[0].std() == pytest.approx(0.5 * 2.0 / 4, rel=0.02)
    assert (noisy[0] != again[0]).mean() > 0.99


def test_a_pooled_forest_is_an_ordinary_model_set(tmp_path: Path) -> None:
    state, _ = run(FOREST)
    fitted = assembled(state, load_profile("dwcp"))
    candidate, warning = export("isolation_forest", fitted, 42)
    assert not warning
    publish(tmp_path, [candidate])
    metadata = ModelSet.open(tmp_path).metadata["isolation_forest"]
    assert metadata.forest.max_samples == 64
    assert metadata.n_estimators == 20
    assert metadata.training.hyperparameters["federated.clients"] == "5"
    assert len(metadata.calibration.scores) == 400
    assert "quantiles" in metadata.calibration.source
    assert not metadata.HasField("drift")
    assert any("no drift reference" in text for text in metadata.training.warnings)
    exact = np.concatenate([site.values[:319] for site in SITES])
    np.testing.assert_allclose(metadata.reference_values, np.median(exact, axis=0), atol=state.scale.max() / 32)
    alarms = fitted.reference.verdicts(np.concatenate([site.values[-80:] for site in SITES]))[1]
    assert alarms.mean() <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["dense_autoencoder", "lstm_autoencoder"])
def test_averaged_networks_learn_resume_and_become_a_model_set(detector: str, tmp_path: Path) -> None:
    plan = DENSE
    if detector == "lstm_autoencoder":
        settings = DETECTORS[detector].settings(window_size=3, hidden_units=4, encoding_dim=2, batch_size=64)
        plan = replace(DENSE, detector=detector, settings=settings.model_dump(mode="json"))
    path = tmp_path / "run.npz"
    run(replace(plan, rounds=1), path=path)
    resumed_state, _ = run(replace(plan, rounds=2), path=path)
    whole, _ = run(replace(plan, rounds=2))
    assert [done.number for done in resumed_state.rounds] == [1, 2]
    assert whole.best_loss < whole.rounds[0].held_out_loss
    for a, b in zip(resumed_state.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    secure, _ = run(replace(plan, rounds=2, secure=True))
    for a, b in zip(secure.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    candidate, warning = export(detector, assembled(whole, load_profile("dwcp")), 42)
    assert not warning
    assert publish(tmp_path / "models", [candidate]).metadata[detector].threshold > 0


def test_nothing_goes_to_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import flwr.supercore.telemetry

    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED == "0"
    state, said = run(replace(FOREST, secure=True))
    assert state.rounds[-1].clients == 5
    assert not said


@pytest.mark.slow
def test_a_liar_among_averaged_networks() -> None:
    lie = Faults({}, frozenset({5}))
    honest, _ = run(DENSE)
    robust, _ = run(replace(DENSE, robust="median", liars=1), lie)
    fooled, _ = run(DENSE, lie)
    assert robust.best_loss < 2 * honest.best_loss
    assert fooled.best_loss > 2 * honest.best_loss or not np.isfinite(fooled.best_loss)


def environment() -> dict[str, str]:
    return {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_server_and_clients_as_processes(tmp_path: Path) -> None:
    """Five clients: one has another schema, one is killed; the run ends with three and publishes, then rolls back."""
    for k, site in enumerate(SITES):
        write_csv(site, tmp_path / f"{k}.csv")
    lines = (tmp_path / "4.csv").read_text().splitlines()
    (tmp_path / "4.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    mine = tmp_path / "six.yaml"
    dwcp = load_profile("dwcp").model_dump(mode="json")
    dwcp["feature_schema"]["features"] = dwcp["feature_schema"]["features"][:-1]
    mine.write_text(yaml.safe_dump(dwcp))
    server = subprocess.Popen(
        [BIN / "dwcp", "federated", "server", "--listen", "127.0.0.1:0", "--output", tmp_path / "models", "--detector",
         "isolation-forest", "--min-clients", "3", "--wait-for", "4", "--timeout", "60", "--secure",
         "--set", "n_estimators=20", "--set", "max_samples=64", "--state", tmp_path / "run.npz"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip
    clients = []
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        for k in (4, 0, 1, 2):
            profile = ["--profile", mine] if k == 4 else []
            clients.append(
                subprocess.Popen(
                    [
                        BIN / "dwcp",
                        "federated",
                        "client",
                        "--server",
                        address,
                        "--data",
                        tmp_path / f"{k}.csv",
                        "--name",
                        f"site-{k}",
                        *profile,
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment(),
                )
            )
        said = server.communicate(timeout=700)[0]
        assert server.returncode == 0, said
        assert "site-4 is refused" in said
        assert "Missing: error_rate" in said
        outputs = [client.communicate(timeout=60)[0] for client in clients]
    finally:
        for process in [server, *clients]:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait(timeout=10)
    assert [client.returncode for client in clients] == [1, 0, 0, 0], outputs
    assert "refused" in outputs[0]
    assert ModelSet.open(tmp_path / "models").metadata["isolation_forest"].n_estimators == 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_client_killed_in_a_round_over_loopback(tmp_path: Path) -> None:
    write_csv(lstm_series(1600), tmp_path / "all.csv")
    done = subprocess.run(
        [BIN / "dwcp", "federated", "simulate", "--data", tmp_path / "all.csv", "--clients", "4", "--processes",
         "--detector", "isolation-forest", "--min-clients", "3", "--timeout", "40", "--lose", "2@1",
         "--set", "n_estimators=20", "--set", "max_samples=64", "--output", tmp_path / "models"],
        capture_output=True, text=True, timeout=700, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "client-2 is late" in done.stdout
    assert (
        ModelSet.open(tmp_path / "models").metadata["isolation_forest"].training.hyperparameters["federated.clients"]
        == "3"
    )


def test_commands_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dwcp_training.cli import app

    start = ["federated", "simulate", "--synthetic", "--output", str(tmp_path / "m")]
    cases = {
        ("--secure", "--robust", "median", "--liars", "1", "--min-clients", "5"): (1, "hides from the server"),
        ("--lose", "x"): (2, "write CLIENT@ROUND"),
        ("--set", "epochs"): (2, "NAME=VALUE"),
        ("--set", "batch_size=-1"): (2, "--batch-size -1"),
        ("--liar", "11"): (2, "no client 11"),
        ("--timeout", "0"): (2, "--timeout 0"),
    }
    for more, (status, said) in cases.items():
        done = CliRunner().invoke(app, [*start, *more])
        assert (done.exit_code, said in done.output) == (status, True), done.output
    done = CliRunner().invoke(app, ["federated", "server", "--listen", "0.0.0.0:0", "--output", str(tmp_path / "m")])
    assert done.exit_code == 2
    assert "--tls-cert" in done.output
    done = CliRunner().invoke(app, ["federated", "client", "--server", "nowhere", "--data", "x.csv"])
    assert done.exit_code == 2
    assert "HOST:PORT" in done.output
    assert not (tmp_path / "m").exists()


def test_without_flower_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dwcp_training.cli import app

    monkeypatch.setattr("dwcp_training.federated.library.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["federated", "simulate", "--synthetic", "--output", str(tmp_path / "m")])
    assert done.exit_code == 1
    assert "dwcp-training[federated]" in done.output


def test_flower_is_not_imported_by_other_commands() -> None:
    code = "import sys, dwcp_training.cli; sys.exit(any(name.split('.')[0] == 'flwr' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
