"""Any metrics, by a profile alone, on real data: trained, published, opened, and scored in Go to the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import read_table
from dwcp_training.profiles import load_profile
from tests.conformance.go_program import BuildError, contract_score
from tests.conformance.implementations import BUILDERS
from tests.faults.endpoint import serving
from tests.training.test_cli import DENSE, FOREST, LOF, LSTM, SVM, invoke
from tests.training.test_data_runs import PERF, TEMPERATURES, write_run

SHARED = Path(__file__).parents[3] / "shared" / "data"
ITEMS = 300
SIDECARS = {"python": "sidecar", "go": "sidecar-go"}
SMALL_FOREST = ("--n-estimators", "10")
SMALL_LSTM = ("--window-size", "5", "--encoding-dim", "4", "--epochs", "1", "--batch-size", "256")

SERVERS = """
feature_schema: {name: servers, version: 1}
timestamp_column: null
reader: {features: numeric, series: files}
detectors:
  lstm_autoencoder: {hidden_units: 8}
"""

PODS = """
feature_schema:
  name: pods
  version: 1
  features:
    - {name: cpu, unit: m, minimum: 0}
    - {name: cpu_rate, unit: "%", minimum: 0}
    - {name: memory, unit: Mi, minimum: 0}
    - {name: reads, unit: 1/min, minimum: 0}
    - {name: writes, unit: 1/min, minimum: 0}
    - {name: received, unit: B/s, minimum: 0}
    - {name: sent, unit: B/s, minimum: 0}
    - {name: node_received, unit: B/s, minimum: 0}
timestamp_column: TimeStamp
reader:
  timestamp_format: seconds
  series: files
  columns:
    cpu: CpuUsage(m)
    cpu_rate: CpuUsageRate(%)
    memory: MemoryUsage(Mi)
    reads: SyscallRead
    writes: SyscallWrite
    received: NetworkReceiveBytes
    sent: NetworkTransmitBytes
    node_received: NodeNetworkReceiveBytes
detectors:
  lstm_autoencoder: {hidden_units: 8}
"""


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Path of a file or folder of the real data; the test is left out by name where it is not there."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{request.node.name} left out: ../shared/data/{name} is not here")
        return path

    return find


def train(command: tuple[str, str], folder: Path, profile: str, *data: Path, flags: tuple[str, ...]) -> Path:
    """Trains by the command line and returns the folder of the set; `profile` is a name or the text of a file."""
    if "\n" in profile:
        (folder / "mine.yaml").write_text(profile)
        profile = str(folder / "mine.yaml")
    files = [argument for path in data for argument in ("--data", str(path))]
    result = invoke(*command, "--profile", profile, *files, *flags, "--output", folder / "models")
    assert result.exit_code == 0, result.output
    assert "no ONNX graph" not in result.output, result.output
    return folder / "models"


def same_in_go(
    models: Path, values: np.ndarray, folder: Path, servers: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Scores items that end in evenly spread rows with Python, Go and the sidecars at these addresses (`python`, `go`),
    demands equal answers, returns the alarms.

    An answer is score bits, decision, contributions, expected values and, for a forest, the depth sum.
    """
    try:
        contract_score("native")
    except BuildError as error:
        pytest.skip(f"Go is left out: {error}")
    opened = ModelSet.open(models)  # runs the golden vectors
    alarms = 0
    for name, model in opened.models.items():
        assert model.exact
        ends = np.unique(np.linspace(model.timesteps, len(values), ITEMS).astype(int))
        lines = [
            json.dumps({"id": str(end), "detector": name, "samples": values[end - model.timesteps : end].tolist()})
            for end in ends
        ]
        requests = folder / f"{name}.jsonl"
        requests.write_text("\n".join(lines) + "\n")
        answers = []
        for program in ("python-core", "go-native", *(SIDECARS[language] for language in servers)):
            out = folder / f"{name}-{program}.jsonl"
            BUILDERS[program](models, servers).run(requests, out, len(lines), 1, 1)
            answers.append([json.loads(line) for line in out.read_text().splitlines()])
        assert len(answers[0]) == len(lines)
        assert all("score_bits" in answer for answer in answers[0])
        assert all(answer == answers[0] for answer in answers[1:])
        alarms += sum(answer["is_anomaly"] for answer in answers[0])
    return alarms


@pytest.mark.slow  # trains on 38 columns
def test_server_machines_38_columns(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """SMD: no units, no names, no times, some columns constant. As .npy for one detector, as CSV for the other."""
    machine = np.load(real_data("smd/machine-1-6.npz"))
    np.save(tmp_path / "normal.npy", machine["train"][:3000])
    np.savetxt(
        tmp_path / "normal.csv",
        machine["train"][:1000].astype(np.float64),
        delimiter=",",
        header=",".join(f"x{j}" for j in range(38)),
        comments="",
        fmt="%.17g",
    )
    models = train(FOREST, tmp_path, SERVERS, tmp_path / "normal.npy", flags=SMALL_FOREST)
    train(LSTM, tmp_path, SERVERS, tmp_path / "normal.csv", flags=SMALL_LSTM)
    opened = ModelSet.open(models)
    assert set(opened.models) == {"isolation_forest", "lstm_autoencoder"}
    schema = opened.metadata["lstm_autoencoder"].feature_schema
    assert [feature.name for feature in schema.features] == [f"x{j}" for j in range(38)]
    assert schema.name == "servers"
    wrong = machine["test_label"].astype(bool)
    values = np.concatenate([machine["test"][~wrong][:1000], machine["test"][wrong][:1000]]).astype(np.float64)
    assert same_in_go(models, values, tmp_path) > 0


@pytest.mark.slow  # trains five detectors
def test_application_servers_19_columns(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """ASD: five detectors and their ensemble in one set, served by both sidecars, scored in Go."""
    server = np.load(real_data("asd/omi-1.npz"))
    np.save(tmp_path / "normal.npy", server["train"][:2000])
    normal = tmp_path / "normal.npy"
    for command, flags in (
        (FOREST, SMALL_FOREST),
        (LOF, ("--max-rows", "500")),
        (SVM, ("--max-rows", "500")),
        (DENSE, ("--encoder-units", "16,8", "--bottleneck", "4", "--epochs", "2")),
        (LSTM, SMALL_LSTM),
    ):
        models = train(command, tmp_path, SERVERS, normal, flags=flags)
    profile = ("--profile", tmp_path / "mine.yaml")
    result = invoke("train", "ensemble", "--models", models, *profile, "--data", normal)
    assert result.exit_code == 0, result.output
    opened = ModelSet.open(models)
    assert len(opened.models) == 6
    assert len(opened.models["ensemble"].feature_names) == 19
    wrong = server["test_label"].astype(bool)
    values = np.concatenate([server["test"][~wrong][:500], server["test"][wrong][:500]]).astype(np.float64)
    with serving("python", models) as python, serving("go", models) as go:
        assert same_in_go(models, values, tmp_path, {"python": python.address, "go": go.address}) > 0


@pytest.mark.slow  # trains on many pods
def test_kubernetes_pods_in_raw_units(real_data: Callable[[str], Path], tmp_path: Path, no_cross_check: None) -> None:
    """nezha: 8 metrics from 0.1 to 10^8 in their units, one file per pod, the same times in all of them."""
    day = real_data("nezha/rca_data/2022-08-22/metric")
    pods = [next(day.glob(f"{service}-*_metric.csv")) for service in ("cartservice", "emailservice", "shippingservice")]
    flags = ("--on-bad-rows", "drop")
    models = train(FOREST, tmp_path, PODS, *pods, flags=(*SMALL_FOREST, *flags))
    train(LSTM, tmp_path, PODS, *pods, flags=(*SMALL_LSTM, "--window-size", "4", *flags))
    read = read_table(pods, load_profile(tmp_path / "mine.yaml"), on_bad_rows="drop")
    assert read.parallel
    assert len(read.series) == 3
    assert read.cadence_seconds == 60
    metadata = ModelSet.open(models).metadata["isolation_forest"]
    assert [feature.unit for feature in metadata.feature_schema.features][2:6] == ["Mi", "1/min", "1/min", "B/s"]
    assert max(metadata.reference_values) > 1e4, "raw units"
    assert same_in_go(models, read.values, tmp_path) > 0


def test_link_testbed_through_the_profile(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """linklab by the packaged profile and by a copy of it as a file of one's own: the same scores."""
    link = real_data("linklab/link-a")
    models = train(FOREST, tmp_path, "dwcp", link / "train.csv", flags=SMALL_FOREST)
    values = read_table(link / "test.csv", load_profile("dwcp")).values
    assert same_in_go(models, values, tmp_path) > 0
    copied = tmp_path / "copied"
    copied.mkdir()
    again = train(FOREST, copied, invoke("profile", "show", "dwcp").stdout, link / "train.csv", flags=SMALL_FOREST)
    scored = [
        ModelSet.open(path).model("isolation_forest").score_batch(values[:500]).scores for path in (models, again)
    ]
    np.testing.assert_array_equal(*scored)


def runs(folder: Path) -> None:
    """Two benign runs and one with a trojan."""
    for number, label in enumerate(("idle", "normal", "trojan_io")):
        write_run(folder, f"2024010{number}_{label}", rows=100, start=1e5 * number, label=label)


def bearings(folder: Path) -> None:
    """87 features of 25 files, with columns that are none."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 87)), columns=[f"f{j}" for j in range(87)])
    table.insert(0, "file", np.repeat([f"file-{k}" for k in range(25)], 20))
    table["bearing"] = 1
    table.to_parquet(folder / "features.parquet")


def hosts(folder: Path) -> None:
    """Rows of 64: 12 divided values and zeros."""
    rows = np.zeros((300, 64), np.float32)
    rows[:, :12] = np.random.default_rng(0).random((300, 12))
    np.save(folder / "hosts.npy", rows)


@pytest.mark.parametrize(
    ("profile", "write", "names", "rows"),
    [
        ("telemetry-runs", runs, [*PERF, *TEMPERATURES], 200),
        pytest.param("bearing", bearings, [f"f{j}" for j in range(87)], 400, marks=pytest.mark.slow),
        ("edge-host", hosts, list(load_profile("edge-host").feature_schema.names), 300),
    ],
)
def test_other_systems(
    profile: str,
    write: Callable[[Path], None],
    names: list[str],
    rows: int,
    tmp_path: Path,
    no_cross_check: None,
) -> None:
    """Made-up files in the form of the documents, by the packaged profile, to the same bits in Go."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    models = train(FOREST, tmp_path, profile, tmp_path / "data", flags=SMALL_FOREST)
    metadata = ModelSet.open(models).metadata["isolation_forest"]
    assert list(metadata.feature_names) == names
    assert metadata.feature_schema.name == profile
    assert metadata.training.fitted_on + metadata.training.held_out == rows - 1  # one row between the two
    if profile == "edge-host":
        assert metadata.scaler.mean[:] == [0] * 12
        assert metadata.scaler.scale[:] == list(load_profile(profile).scaling.divisors.values())
        assert metadata.training.hyperparameters["scaling"] == "divisors, version 1"
    values = read_table(tmp_path / "data", load_profile(profile)).values
    assert same_in_go(models, values, tmp_path) > 0
