"""`dwcp fleet score`: the bits of the serving code, windows that cross files and no gap, files whole or absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dwcp.anomaly.v1 import fleet_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet_index import check_index, read_message
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import lstm_series
from dwcp_training.exit_status import PARTIAL
from dwcp_training.fleet.index import features_of_set, set_path, write_index
from dwcp_training.fleet.score import Options, run_score
from tests.fleet.conftest import Trained
from tests.fleet.links import table, write

REFERENCE = Path(__file__).resolve().parents[2] / "models/reference/v1"
SPLIT, GAP = 40, 70
"""Rows at which the files of a link are split, and behind which its times jump."""


def score(fleet: Path, data: Path, output: Path, **options: object) -> int:
    return run_score(Options(fleet, data, output, workers=1, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet whose only set is the reference set, which has a forest and an LSTM autoencoder."""
    fleet = tmp_path_factory.mktemp("reference")
    set_id = ModelSet.open(REFERENCE, self_test=False).id
    shutil.copytree(REFERENCE, set_path(fleet, set_id))
    write_index(
        fleet,
        fleet_pb2.FleetIndex(
            schema_version=1, feature_schema=features_of_set(fleet, set_id), global_set_id=set_id,
            series=[fleet_pb2.FleetSeries(name="a", model_set_id=set_id, origin=fleet_pb2.FLEET_ORIGIN_OWN)],
        ),
    )  # fmt: skip
    return fleet


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """100 rows of a link in two files, the later one first by name, with a gap of an hour in the second."""
    rows = table(lstm_series(100, seed=5))
    jump = np.where(np.arange(100) >= GAP, 3_600, 0).astype("timedelta64[s]")
    times = pa.array(rows["timestamp"].to_numpy() + jump).cast(rows.schema.field(0).type)
    rows = rows.set_column(0, rows.schema.field(0), times)
    write(tmp_path / "data", "a", rows.slice(SPLIT), "0-late.parquet")
    write(tmp_path / "data", "a", rows.slice(0, SPLIT), "1-early.parquet")
    return tmp_path / "data"


def rows_of(output: Path, file: str, detector: str) -> list[dict]:
    return [row for row in pq.read_table(output / file, partitioning=None).to_pylist() if row["detector"] == detector]


def test_scores_are_those_of_the_serving_code(reference: Path, history: Path, tmp_path: Path) -> None:
    assert score(reference, history, tmp_path / "scores") == 0
    models = ModelSet.open(REFERENCE)
    values = lstm_series(100, seed=5).values
    for detector, model in models.models.items():
        found = [
            row
            for file in ("1-early", "0-late")
            for row in rows_of(tmp_path / "scores/link=a", f"{file}.parquet", detector)
        ]
        length = model.timesteps
        ends = [end for end in range(100) if end - length + 1 >= (0 if end < GAP else GAP)]
        assert len(ends) == 100 - 2 * (length - 1)
        assert len(found) == len(ends)
        for end, row in zip(ends, found, strict=True):
            wanted = model.score(values[end - length + 1 : end + 1].tolist())
            assert np.float32(row["score"]).tobytes() == wanted.scores[0].tobytes()
            assert row["is_anomaly"] == bool(wanted.is_anomaly[0])
            assert row["p_value"] == wanted.p_values[0]
            if row["is_anomaly"]:
                top = int(wanted.contributions[0].argmax())
                assert row["top_feature"] == model.feature_names[top]
                assert row["top_value"] == values[end, top]
        assert [row["timestamp"] for row in found] == sorted(row["timestamp"] for row in found)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """File to what changes when it is written anew."""
    found = {str(path.relative_to(folder)): os.stat(path) for path in sorted(folder.rglob("*.parquet"))}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def test_what_is_scored_is_not_scored_again(reference: Path, history: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores"
    assert score(reference, history, output) == 0
    first, whole = stamps(output), rows_of(output / "link=a", "0-late.parquet", "lstm_autoencoder")
    assert score(reference, history, output) == 0
    assert stamps(output) == first
    # One file is lost: it is scored again, with the windows that begin in the one before.
    (output / "link=a/0-late.parquet").unlink()
    assert score(reference, history, output) == 0
    second = stamps(output)
    assert second["link=a/1-early.parquet"] == first["link=a/1-early.parquet"]
    assert rows_of(output / "link=a", "0-late.parquet", "lstm_autoencoder") == whole
    # Another link, and other settings.
    write(history, "b", table(lstm_series(30)))
    assert score(reference, history, output) == 0
    assert {name: stamps(output)[name] for name in second} == second
    assert score(reference, history, output, only_alarms=True) == 0
    assert not set(stamps(output).values()) & set(second.values())


def test_a_corrupt_file_is_reported_and_the_others_are_scored(
    reference: Path, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(history, "b", table(lstm_series(30)))
    assert score(reference, history, tmp_path / "scores") == 0
    early = history / "link=a/1-early.parquet"
    good = early.read_bytes()
    early.write_bytes(good[:1000])
    assert score(reference, history, tmp_path / "scores") == PARTIAL
    assert "link=a/1-early.parquet" in capsys.readouterr().out
    assert set(stamps(tmp_path / "scores")) == {"link=a/0-late.parquet", "link=b/part-0.parquet"}
    late = rows_of(tmp_path / "scores/link=a", "0-late.parquet", "lstm_autoencoder")
    assert len(late) == 60 - 2 * 9  # no window begins in what could not be read
    early.write_bytes(good)
    assert score(reference, history, tmp_path / "scores") == 0
    assert len(rows_of(tmp_path / "scores/link=a", "0-late.parquet", "lstm_autoencoder")) == 60 - 9


def test_each_link_is_scored_by_its_set(trained: Trained, tmp_path: Path) -> None:
    rows = lstm_series(20, seed=3)
    for name in ("a", "b", "new"):
        write(tmp_path / "data", name, table(rows))
    assert score(trained.fleet, tmp_path / "data", tmp_path / "scores") == 0
    ids = {"a": trained.series("a").model_set_id, "b": trained.series("b").model_set_id}
    for name, set_id in {**ids, "new": trained.index.global_set_id}.items():
        model = ModelSet.open(set_path(trained.fleet, set_id)).model("isolation_forest")
        found = pq.read_table(tmp_path / f"scores/link={name}/part-0.parquet", partitioning=None)["score"]
        assert np.array_equal(found.to_numpy(), model.score_batch(rows.values).scores)


def test_a_set_that_is_damaged_and_a_link_without_one_are_reported(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "fleet"
    shutil.copytree(trained.fleet, fleet)
    index = read_message(fleet)[0]
    index.global_set_id = ""
    write_index(fleet, index)
    (set_path(fleet, trained.series("b").model_set_id) / "isolation_forest.onnx").write_bytes(b"no")
    for name in ("a", "b", "new"):
        write(tmp_path / "data", name, table(lstm_series(20)))
    assert score(fleet, tmp_path / "data", tmp_path / "scores") == PARTIAL
    said = capsys.readouterr().out
    assert "DIGEST_MISMATCH" in said
    assert "UNKNOWN_SERIES" in said
    assert set(stamps(tmp_path / "scores")) == {"link=a/part-0.parquet"}


def test_what_is_no_fleet_is_refused(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(tmp_path, trained.data, tmp_path / "scores") == 1
    assert "MANIFEST_MISSING" in capsys.readouterr().err
    assert score(trained.fleet, trained.data, trained.data) == 2
    (tmp_path / "fleet.json").write_text("{")
    assert score(tmp_path, trained.data, tmp_path / "scores") == 1


def _edited(index: fleet_pb2.FleetIndex, what: str) -> None:
    if what == "order":
        index.series.add().CopyFrom(index.series[0])
    elif what == "id":
        index.series[0].model_set_id = "A" * 64
    elif what == "origin":
        index.series[0].origin = 9  # type: ignore[assignment]
    elif what == "name":
        index.series[0].name = ""
    elif what == "schema":
        index.ClearField("feature_schema")
    elif what == "global":
        index.global_set_id = "12"
    else:
        index.schema_version = 2


@pytest.mark.parametrize("what", ["order", "id", "origin", "name", "schema", "global", "future"])
def test_an_index_that_no_reader_would_take_is_not_written(trained: Trained, what: str) -> None:
    index = trained.index
    check_index(index)
    _edited(index, what)
    with pytest.raises(ContractError) as caught:
        check_index(index)
    assert caught.value.field == "fleet.json"
    assert caught.value.code == ("SCHEMA_FROM_FUTURE" if what == "future" else "METADATA_INVALID")
