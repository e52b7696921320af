"""Drift references: bins, critical values that rows without drift do not exceed, and what training writes of them."""

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import audit_metadata
from dwcp_sidecar.audit.checks import requirement
from dwcp_sidecar.audit.drift import check_drift
from dwcp_sidecar.drift import Reference, Sketch
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.cli import app
from dwcp_training.data import Telemetry, forest_rows, labelled_series, read_table
from dwcp_training.data.writers import write_csv
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.drift_reference import (
    BY_PRODUCT,
    LEAST_ROWS,
    MOST_FEATURES,
    Stretches,
    as_arrays,
    bins_of,
    describe,
    raised_together,
    sizes_for,
)
from dwcp_training.exit_status import DRIFT, USAGE
from dwcp_training.pipeline import fit, train
from dwcp_training.profiles import (
    DriftDefaults,
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    LstmClassifierDefaults,
    load_profile,
)
from tests.bench import drift as cases

SMALL = IsolationForestDefaults(n_estimators=3)


# Bins and statistics (DR1 to DR3); tests/vectors has the exact values.


def test_bins_are_quantiles_and_beyond():
    values = np.random.default_rng(0).normal(0, 1, 1001)
    bins = bins_of(values)
    ordered = np.sort(values)
    assert bins.edges[0] == np.nextafter(ordered[0], -np.inf)
    assert (bins.edges[1:] == ordered[::20]).all()
    assert (bins.counts[0], bins.counts[1], bins.counts[-1], bins.rows) == (0, 1, 0, 1001)
    assert set(bins.counts[2:-1]) == {20}
    assert bins.scale == values.std()


def test_bins_of_a_constant_and_of_whole_numbers():
    constant = bins_of(np.full(600, 3.5))
    assert (list(constant.edges), list(constant.counts), constant.scale) == (
        [np.nextafter(3.5, 0), 3.5], [0, 600, 0], 1.0,
    )  # fmt: skip
    numbers = bins_of(np.array([0.0] * 500 + [1.0] * 90 + [7.0] * 10))
    assert list(numbers.edges) == [np.nextafter(0, -1), 0, 1, 7]
    assert list(numbers.counts) == [0, 500, 90, 10, 0]


def test_statistics_are_near_those_of_the_rows_themselves():
    """scipy on the raw rows: bins, of which those at the ends are wide, cost some per cent."""
    random = np.random.default_rng(1)
    training = random.normal(10, 2, 20_000)
    bins = bins_of(training)
    for recent in (random.normal(10, 2, 3000), random.normal(11, 2, 3000), random.normal(10, 5, 3000), training - 40):
        counts = np.bincount(bins.place(recent), minlength=len(bins.counts))
        far = bins.wasserstein(counts, bins.beyond(recent))
        wanted = stats.wasserstein_distance(training, recent) / training.std()
        assert far == pytest.approx(wanted, rel=0.08, abs=0.01)
    assert bins.psi(bins.counts) == 0
    assert bins.wasserstein(bins.counts) == 0


# Critical values (DR4).


def test_sizes():
    assert list(sizes_for(LEAST_ROWS)) == [64, 128, 256, 512]
    assert list(sizes_for(1023)) == [64, 128, 256, 512]
    assert sizes_for(10_000)[-1] == 8192
    assert sizes_for(10**9)[-1] == 65_536


@pytest.mark.parametrize("size", [64, 500, 512, 513, 4000, 4096])
def test_stretches_are_rows_that_follow_one_another(size):
    rows = 4096
    placed = (np.arange(rows) // 64).astype(np.uint8)  # the bin says where in the rows
    stretches = Stretches.draw(rows, size, 50, np.random.default_rng(3))
    counts = stretches.counts(placed, 64)
    assert (counts.sum(axis=1) == size).all()
    number = -(-size // (rows // 8))
    assert stretches.starts.shape == (50, number)
    assert stretches.length == -(-size // number) <= rows // 8
    for draw in range(50):
        wanted = np.zeros(64, int)
        for k in range(number):
            start, end = (stretches.marks[places[draw, k]] for places in (stretches.starts, stretches.ends))
            end += rows * stretches.wraps[draw, k]
            assert size // number <= end - start <= stretches.length
            wanted += np.bincount(placed[np.arange(start, end) % rows], minlength=64)
        assert (counts[draw] == wanted).all()
    assert stretches.wraps.any() or size < 500


def test_raised_together_holds_the_rate_for_all_at_once():
    random = np.random.default_rng(4)
    scales = np.array([1.0, 10.0, 0.0, 100.0])[:, np.newaxis]
    shapes = [1.0, 1.0, 1.0, 0.3]  # the last one has long tails

    def draw(count: int) -> np.ndarray:
        return scales * np.stack([random.gamma(shape, size=count) for shape in shapes])

    rates = []
    for _ in range(20):
        critical = raised_together(draw(1000), 0.01, 1e6)
        rates.append((draw(20_000) > critical[:, np.newaxis]).any(axis=0).mean())
        assert critical[2] == 0
    assert max(rates) < 0.02
    assert 0.002 < np.mean(rates) <= 0.01
    few = raised_together(draw(1000), 0.01, 8)
    assert (few >= raised_together(draw(1000), 0.01, 1e6))[[0, 1, 3]].all(), "few stretches say less of the tail"


@pytest.mark.parametrize("process", ["AR(1), 0.9", "daily season", "counts"])
@pytest.mark.parametrize(("training", "rows"), [(600, 64), (3000, 300), (3000, 3000)])
def test_training_rows_against_themselves_are_no_drift(process, training, rows):
    """S3-4; by critical values alone, without the help of thresholds. 1,000 times in the slow test."""
    values = cases.PROCESSES[process](np.random.default_rng(5), training)
    reference = cases.reference_of(values)
    whole = reference.compare(Sketch(reference).add(values))
    assert [(f.psi, f.wasserstein) for f in whole] == [(0, 0)] * cases.WIDTH
    bare = cases.without_thresholds(reference)
    seen = [cases.drifted(bare.compare(Sketch(bare).add(part))) for part in cases.stretches(values, rows, 200, 6)]
    assert np.mean(seen) <= 2 * cases.RATE  # 200 draws: 1,000 are held to the rate itself


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", cases.PROCESSES)
@pytest.mark.parametrize(("training", "rows"), [(600, 64), (2000, 500), (10_000, 64), (10_000, 4096), (10_000, 10_000)])
def test_false_drift_stays_below_the_rate(process, training, rows):
    rates = cases.false_drift(cases.PROCESSES[process], training, rows, 1000)
    assert rates.training <= cases.RATE
    if training >= 10_000:
        assert rates.later <= 0.05  # 200 comparisons with rows that the training rows do not hold


def test_a_test_for_independent_rows_would_call_them_drifted():
    """Why there are stretches: 64 rows that follow one another are unlike all of them."""
    values = cases.PROCESSES["AR(1), 0.9"](np.random.default_rng(5), 3000)
    parts = list(cases.stretches(values, 64, 100, 6))
    naive = [min(stats.ks_2samp(part[:, j], values[:, j]).pvalue for j in range(4)) < 0.01 / 4 for part in parts]
    assert np.mean(naive) > 0.5
    reference = cases.reference_of(values)
    assert np.mean([cases.drifted(reference.compare(Sketch(reference).add(part))) for part in parts]) <= 0.02


def test_drift_is_found():
    process = cases.PROCESSES["AR(1), 0.9"]
    assert cases.power(process, 5000, 2000, 0.5, trainings=3) > 0.5
    assert cases.power(process, 5000, 2000, 1.0, trainings=3) == 1
    assert cases.power(process, 5000, 200, 2.0, trainings=3) > 0.9
    assert cases.power(process, 5000, 2000, 0.0, trainings=3) == 0


def test_one_wild_metric_does_not_blind_the_others():
    """A burst in one metric of the training rows raises its own critical values, and those of others by far less."""
    values = cases.PROCESSES["AR(1), 0.9"](np.random.default_rng(5), 5000)
    calm = cases.reference_of(values).critical(1000)[1]
    wild = values.copy()
    wild[2000:2100, 3] += 50
    raised = cases.reference_of(wild).critical(1000)[1]
    assert (raised[:3] < 2.5 * calm[:3]).all()


# What training writes.


def test_too_few_rows_and_too_many_metrics_have_no_reference():
    few = describe(forest_rows(LEAST_ROWS - 1), 1)
    assert few.reference is None
    assert "511 rows are too few" in few.warning
    assert describe(forest_rows(LEAST_ROWS), 1).reference is not None
    wide = describe(cases.telemetry(np.random.default_rng(0).normal(size=(LEAST_ROWS, MOST_FEATURES + 1))), 1)
    assert wide.reference is None
    assert "1,025 metrics" in wide.warning


@pytest.mark.parametrize("values", [[-1.7e308, 1.7e308], [1e200, 3e200]])
def test_values_without_a_spread_have_no_reference(values):
    rows = np.tile(np.array(values)[:, np.newaxis], (LEAST_ROWS, 1))
    described = describe(cases.telemetry(rows), 1)
    assert described.reference is None
    assert "m0 is too large" in described.warning


def test_wide_data_is_bounded():
    """Hundreds of metrics: seconds, not minutes, and metadata of some KB each."""
    begin = time.perf_counter()
    reference = describe(cases.telemetry(np.random.default_rng(0).normal(size=(1000, 300))), 1).reference
    assert time.perf_counter() - begin < 20
    assert reference is not None
    assert len(reference.message().SerializeToString()) < 300 * 1500


def test_rows_of_devices_side_by_side_are_in_the_order_of_time():
    """As a sidecar gets them: in turn. One after the other, each would be a stretch of its own."""
    telemetry = forest_rows(2000)
    values = telemetry.values.copy()
    values[1000:] += 5 * values.std(axis=0)
    times = np.concatenate([telemetry.timestamps[:1000]] * 2)
    apart = replace(telemetry, values=values, series=((0, 1000), (1000, 2000)), segments=((0, 1000), (1000, 2000)))
    one_by_one, in_turn = (describe(t, 1).reference for t in (apart, replace(apart, timestamps=times)))
    assert (in_turn.critical(128)[1] < 0.5 * one_by_one.critical(128)[1]).all()
    assert all((a.counts == b.counts).all() for a, b in zip(in_turn.features, one_by_one.features, strict=True))


def test_anomalies_are_no_part_of_the_reference():
    telemetry = labelled_series(1500)
    settings = LstmClassifierDefaults()
    reference = describe(telemetry, settings.seed).reference
    assert reference.rows == int((~telemetry.labels).sum()) < len(telemetry)


def test_thresholds_and_rate_are_the_profiles():
    telemetry = replace(forest_rows(600), drift=DriftDefaults(rate=0.05, psi_threshold=0.1, wasserstein_threshold=0.5))
    metadata = fit("isolation_forest", telemetry, SMALL).metadata
    drift = metadata.drift
    assert (drift.rate, drift.psi_threshold, drift.wasserstein_threshold) == (0.05, 0.1, 0.5)
    usual = describe(forest_rows(600), SMALL.seed).reference
    assert usual.critical(64)[0][0] > drift.features[0].psi_critical[0]


def test_every_detector_but_the_ensemble_has_one(monkeypatch: pytest.MonkeyPatch):
    """By the one way that all of them take; none is left out by name but the ensemble."""
    forest = fit("isolation_forest", forest_rows(600), SMALL)
    for name, registered in DETECTORS.items():
        forest.metadata.ClearField("drift")
        monkeypatch.setattr(type(registered), "fit", property(lambda self: lambda *arguments, **options: forest))
        metadata = fit(name, forest_rows(600), SMALL).metadata
        assert metadata.HasField("drift") == (name != "ensemble"), name


def test_published_twice_the_bytes_are_the_same(tmp_path: Path):
    first, second = (train("isolation_forest", forest_rows(600), SMALL, tmp_path / name).models for name in "ab")
    assert first.id == second.id
    metadata = first.metadata["isolation_forest"]
    reference = Reference.of(metadata)
    assert reference.message() == metadata.drift
    audit_metadata(metadata, "model_metadata.json")
    assert reference.rows == 600
    arrays = np.load(first.path / BY_PRODUCT, allow_pickle=False)
    assert list(arrays["isolation_forest.features"]) == list(metadata.feature_names)
    for j, feature in enumerate(metadata.drift.features):
        edges = arrays["isolation_forest.edges"][j]
        assert list(edges[np.isfinite(edges)]) == list(feature.edges)
        assert list(arrays["isolation_forest.counts"][j][: len(feature.counts)]) == list(feature.counts)
        assert list(arrays["isolation_forest.psi_critical"][j]) == list(feature.psi_critical)
    roles = {entry.path: entry.role for entry in _manifest(first.path).files}
    assert roles[BY_PRODUCT] == model_pb2.FILE_ROLE_BYPRODUCT
    (first.path / BY_PRODUCT).unlink()
    assert ModelSet.open(first.path).id == second.id, "nobody needs it to serve"


def test_the_by_product_has_all_detectors_of_the_set(tmp_path: Path):
    train("isolation_forest", forest_rows(600), SMALL, tmp_path)
    settings = LocalOutlierFactorDefaults(max_rows=300)
    models = train("local_outlier_factor", forest_rows(700), settings, tmp_path).models
    arrays = np.load(models.path / BY_PRODUCT)
    assert [int(arrays[f"{name}.counts"][0].sum()) for name in models.metadata] == [600, 700]
    without = train("isolation_forest", forest_rows(200), SMALL, tmp_path).models
    assert {key.partition(".")[0] for key in np.load(without.path / BY_PRODUCT)} == {"local_outlier_factor"}
    assert not without.metadata["isolation_forest"].HasField("drift")
    assert any("no drift reference" in text for text in without.metadata["isolation_forest"].training.warnings)


def test_the_by_product_carries_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reference = describe(forest_rows(600), 1).reference
    before = as_arrays({"isolation_forest": reference})
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert as_arrays({"isolation_forest": reference}) == before
    (tmp_path / "a.npz").write_bytes(before)
    assert {entry.date_time[0] for entry in zipfile.ZipFile(tmp_path / "a.npz").infolist()} == {1980}


def _manifest(folder: Path) -> model_pb2.Manifest:
    from dwcp_sidecar import protojson

    return protojson.parse((folder / "manifest.json").read_bytes(), model_pb2.Manifest(), "manifest.json")


# dwcp drift.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Training rows, and others: shifted, few, without a metric."""
    folder = tmp_path_factory.mktemp("data")
    telemetry = forest_rows(1500)
    shifted = telemetry.values.copy()
    shifted[:, 1] += 0.6 * shifted[:, 1].std()
    files = {}
    for name, rows in {
        "normal": telemetry,
        "shifted": replace(telemetry, values=shifted),
        "turned": replace(telemetry, values=np.where(np.arange(1500)[:, np.newaxis] < 1000, telemetry.values, shifted)),
        "few": telemetry.rows(0, 63),
    }.items():
        files[name] = folder / f"{name}.csv"
        write_csv(rows, files[name])
    text = files["normal"].read_text().replace("latency", "delay")
    files["other"] = folder / "other.csv"
    files["other"].write_text(text)
    return files


@pytest.fixture(scope="module")
def models(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models")
    telemetry = _read(data["normal"])
    train("isolation_forest", telemetry, SMALL, output)
    train("local_outlier_factor", telemetry, LocalOutlierFactorDefaults(max_rows=300), output)
    return output


def _read(path: Path) -> Telemetry:
    return read_table([path], load_profile("dwcp"))


@pytest.fixture
def drift(models: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command and gives its exit status and what it printed."""
    from dwcp_training.drift import run_drift

    def run(path: Path, *names: str, **options) -> tuple[int, str]:
        status = run_drift(options.pop("models", models), [path], names, **options)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_training_data_is_no_drift(drift, data):
    status, said = drift(data["normal"])
    assert status == 0
    assert "isolation_forest, local_outlier_factor: against 1,500 training rows" in said, "compared once"
    assert "no drift in 7 metrics: largest PSI 0.000, largest Wasserstein 0.000" in said
    assert "latency" not in said
    assert "latency" in drift(data["normal"], per_feature=True)[1]


def test_drift_has_a_status_of_its_own_and_names_the_metric(drift, data, tmp_path):
    status, said = drift(data["shifted"], "isolation_forest", json_file=tmp_path / "drift.json")
    assert status == DRIFT == 2
    assert "drift in 1 of 7 metrics" in said
    assert "latency" in said
    assert "jitter" not in said
    found = json.loads((tmp_path / "drift.json").read_text())
    assert (found["drift"], found["rows"], list(found["detectors"])) == (True, 1500, ["isolation_forest"])
    features = found["detectors"]["isolation_forest"]["features"]
    assert [name for name, feature in features.items() if feature["drifted"]] == ["latency"]
    assert features["latency"]["wasserstein"] == pytest.approx(0.6, rel=0.02)
    assert features["jitter"]["psi"] == 0


def test_thresholds_of_the_command_line_win(drift, data):
    assert drift(data["shifted"], wasserstein=0.7, psi=2.0)[0] == 0
    assert drift(data["shifted"], wasserstein=0.5, psi=2.0)[0] == 2


def test_the_last_rows_alone(drift, data):
    assert "1,500 of 1,500 rows compared" in drift(data["turned"])[1]
    status, said = drift(data["turned"], window=400)
    assert status == 2
    assert "400 of 1,500 rows compared" in said
    figures = [drift(data["shifted"], window=window, per_feature=True) for window in (1500, 10**6)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("few", {}, "63 rows are too few"),
        ("normal", {"window": 63}, "63 rows are too few"),
        ("other", {}, "latency"),
        ("normal", {"profile": "edge-host"}, "Name the profile"),
        ("normal", {"json_file": Path("/proc/nowhere/x.json")}, "--json"),
        ("nowhere", {}, "nowhere"),
    ],
)
def test_refusals(drift, data, name, options, why):
    status, said = drift(data.get(name, Path("nowhere.csv")), **options)
    assert status == 1
    assert why in said
    assert "Nothing was compared." in said


def test_sets_without_references_are_refused(drift, data):
    old = Path(__file__).resolve().parents[2] / "models/reference/v1"
    status, said = drift(data["normal"], models=old)
    assert status == 1
    assert "trained before drift references existed" in said
    assert drift(data["normal"], "lstm_autoencoder")[0] == 1


@pytest.mark.parametrize(
    "options", [{"psi": -0.1}, {"psi": float("nan")}, {"wasserstein": float("inf")}, {"window": 0}]
)
def test_wrong_usage_is_neither_drift_nor_done(drift, data, options):
    assert drift(data["normal"], **options)[0] == USAGE == 64


def test_the_command_line(dwcp, models, data):
    shifted = dwcp("drift", "--models", models, "--data", data["shifted"], "--window", "500", "--per-feature")
    assert shifted.returncode == 2
    assert shifted.stdout.count("yes") == 1

    def status(*arguments: str | Path) -> int:
        return CliRunner().invoke(app, ["drift", *map(str, arguments)]).exit_code

    right = ("--models", models, "--data", data["normal"])
    assert status(*right) == 0
    for wrong in (["--nonsense"], ["--psi", "much"], ["--window", "0"], ["more"]):
        assert status(*right, *wrong) == USAGE
    assert status() == USAGE
    help = CliRunner().invoke(app, ["drift", "--help"], env={"COLUMNS": "200"})
    assert help.exit_code == 0
    assert "Exit status: 0 no drift, 2 drift" in help.output


def test_a_reference_that_contradicts_itself_is_refused():
    """tests/mutation has one of each kind, in whole sets and both languages."""
    metadata = fit("isolation_forest", forest_rows(600), SMALL).metadata
    metadata.drift.features[3].counts[5] += 1
    with pytest.raises(ContractError, match=r"drift\.features\[3\]"):
        check_drift(metadata, requirement("METADATA_INVALID", "model_metadata.json"))
