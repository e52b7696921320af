"""`dwcp fleet train`: which set a link gets, what is not done again, and what a kill leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dwcp.anomaly.v1 import fleet_pb2
from dwcp_sidecar.fleet_index import read_message
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import lstm_series
from dwcp_training.exit_status import PARTIAL
from dwcp_training.fleet import tasks
from dwcp_training.fleet import train as driver
from dwcp_training.fleet.clusters import clustered
from dwcp_training.fleet.index import set_ids, set_path
from dwcp_training.fleet.journal import JOURNAL, Journal
from dwcp_training.fleet.partitions import find_partitions
from dwcp_training.fleet.pool import POOL_ROWS, STRETCH, drawn, pooled
from dwcp_training.fleet.recipe import Recipe, link_profile
from dwcp_training.profiles import load_profile
from tests.fleet.conftest import Trained
from tests.fleet.links import table, train, write, write_links

OWN, GLOBAL = fleet_pb2.FLEET_ORIGIN_OWN, fleet_pb2.FLEET_ORIGIN_GLOBAL
COMMAND = Path(sys.executable).with_name("dwcp")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where each set came from that was trained in this process."""
    found: list[str] = []
    original = tasks.train_set

    def train_set(recipe, telemetry, **options):
        found.append(telemetry.source if len(telemetry.series) < 2 else "several")
        return original(recipe, telemetry, **options)

    monkeypatch.setattr(tasks, "train_set", train_set)
    return found


def test_each_link_has_the_set_that_its_rows_allow(trained: Trained) -> None:
    assert trained.status == PARTIAL
    assert [series.name for series in trained.index.series] == ["a", "b", "corrupt", "half", "other", "young"]
    assert [trained.series(name).origin for name in "ab"] == [OWN, OWN]
    assert [trained.series(name).rows for name in "ab"] == [300, 300]
    fallback = trained.index.global_set_id
    for name in ("corrupt", "half", "other", "young"):
        assert trained.series(name).origin == GLOBAL
        assert trained.series(name).model_set_id == fallback
    assert "not Parquet" in trained.series("corrupt").reason
    assert "late.parquet is not Parquet" in trained.series("half").reason
    assert trained.series("other").reason == "jitter: part-0.parquet has no column 'jitter'."
    assert trained.series("young").reason == "10 rows; a set of its own takes 100"


def test_every_set_of_a_fleet_opens_and_is_small(trained: Trained) -> None:
    ids = set_ids(trained.index)
    assert len(ids) == 3
    for set_id in ids:
        models = ModelSet.open(set_path(trained.fleet, set_id))
        assert models.id == set_id
        assert [feature.name for feature in models.metadata["isolation_forest"].feature_schema.features] == [
            feature.name for feature in trained.index.feature_schema.features
        ]
        names = {path.name for path in models.path.iterdir()}
        assert names == {
            "manifest.json", "isolation_forest.onnx", "isolation_forest.golden.json", "model_metadata.json"
        }  # fmt: skip
    assert {path.name for path in (trained.fleet / "sets").iterdir()} == {set_id[:16] for set_id in ids}


def test_a_finished_link_is_not_done_again(trained: Trained, tmp_path: Path, profile: str, counted: list[str]) -> None:
    fleet, data = tmp_path / "fleet", tmp_path / "data"
    shutil.copytree(trained.fleet, fleet)
    shutil.copytree(trained.data, data)
    assert train(data, fleet, profile) == PARTIAL
    assert not counted
    assert (fleet / "fleet.json").read_bytes() == (trained.fleet / "fleet.json").read_bytes()
    # New rows of one link: its set, and the global one, are made anew. A set that is damaged is, too.
    write(data, "b", table(lstm_series(320, seed=9)))
    assert train(data, fleet, profile) == PARTIAL
    assert counted == ["several", "part-0.parquet"]
    before, index = trained.index, read_message(fleet)[0]
    assert index.series[0] == before.series[0]
    assert index.series[1].model_set_id != before.series[1].model_set_id
    assert set_path(fleet, before.series[1].model_set_id).is_dir()  # a server may not have seen the new index yet
    (set_path(fleet, index.series[0].model_set_id) / "isolation_forest.onnx").write_bytes(b"")
    assert train(data, fleet, profile) == PARTIAL
    assert len(counted) == 3
    ModelSet.open(set_path(fleet, index.series[0].model_set_id))
    assert not set_path(fleet, before.series[1].model_set_id).exists()


def test_other_settings_are_other_sets(tmp_path: Path, profile: str, counted: list[str]) -> None:
    data = write_links(tmp_path / "data", "a")
    assert train(data, tmp_path / "fleet", profile) == 0
    assert train(data, tmp_path / "fleet", profile, seed=7) == 0
    assert len(counted) == 4


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_the_old_fleet_and_goes_on(
    tmp_path: Path, profile: str, counted: list[str]
) -> None:
    data, fleet = write_links(tmp_path / "data", "a"), tmp_path / "fleet"
    assert train(data, fleet, profile) == 0
    old = (fleet / "fleet.json").read_bytes()
    write_links(data, "abcdefgh")
    command = [COMMAND, "fleet", "train", "--data", data, "--output", fleet, "--profile", profile]
    process = subprocess.Popen(
        [*command, "--min-rows", "100", "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = fleet / JOURNAL
    lines = len(journal.read_text().splitlines())
    until = time.monotonic() + 120
    # The global set, and one or two of the links; what is half written then is anybody's guess.
    while len(journal.read_text().splitlines()) < lines + 3:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (fleet / "fleet.json").read_bytes() == old
    for set_id in set_ids(read_message(fleet)[0]):
        ModelSet.open(set_path(fleet, set_id))
    done = len([record for record in Journal(fleet).records.values() if record.set_id])
    assert 2 <= done < 9
    counted.clear()
    assert train(data, fleet, profile) == 0
    assert len(counted) == 9 - done
    assert len(read_message(fleet)[0].series) == 8
    assert not list((fleet / "sets").glob(".*"))


def test_a_line_of_the_journal_that_was_cut_off_is_nothing(trained: Trained, tmp_path: Path) -> None:
    lines = (trained.fleet / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(lines[:-9])
    journal = Journal(tmp_path)
    whole = Journal(trained.fleet).records
    assert len(journal.records) == len(whole) - 1
    (last,) = [record for task, record in whole.items() if task not in journal.records]
    journal.add(last)
    journal.close()
    assert Journal(tmp_path).records == whole


def test_no_link_that_can_be_used_is_a_refusal_that_leaves_the_old_fleet(
    trained: Trained, tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, data = tmp_path / "fleet", tmp_path / "data"
    shutil.copytree(trained.fleet, fleet)
    (data / "link=x").mkdir(parents=True)
    (data / "link=x/part.parquet").write_text("no")
    assert train(data, fleet, profile) == 1
    assert "not Parquet" in capsys.readouterr().err
    assert read_message(fleet)[0] == trained.index
    assert train(tmp_path / "nothing", fleet, profile) == 1
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clusters": 0}, "--clusters 0"),
        ({"workers": 0}, "--workers 0"),
        ({"min_rows": 2}, "--min-rows 2"),
        ({"detectors": ["ensemble"]}, "--detector ensemble"),
    ],
)
def test_wrong_usage(
    trained: Trained, tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str], options, said: str
) -> None:
    assert train(trained.data, tmp_path / "fleet", profile, **options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()


def test_a_second_run_at_the_same_time_is_refused(
    trained: Trained, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with driver._writing(trained.fleet):
        assert train(trained.data, trained.fleet, profile) == 1
    assert "another run" in capsys.readouterr().err


def test_clusters_of_similar_links(tmp_path: Path, profile: str) -> None:
    data = tmp_path / "data"
    for number, name in enumerate("abcd"):
        write(data, name, table(lstm_series(300, seed=number), 0.2 if name in "bd" else 1.0))
    write(data, "young", table(lstm_series(10)))
    assert train(data, tmp_path / "fleet", profile, clusters=2) == 0
    index = read_message(tmp_path / "fleet")[0]
    assert [(series.name, series.cluster) for series in index.series] == [
        ("a", "cluster-1"), ("b", "cluster-2"), ("c", "cluster-1"), ("d", "cluster-2"), ("young", "")
    ]  # fmt: skip
    assert index.series[0].model_set_id == index.series[2].model_set_id != index.series[1].model_set_id
    assert index.series[4].model_set_id == index.global_set_id
    assert index.series[4].reason == "10 rows; a cluster takes 100"
    metadata = ModelSet.open(set_path(tmp_path / "fleet", index.series[0].model_set_id)).metadata["isolation_forest"]
    assert metadata.training.rows_read == 600


def test_more_clusters_than_links_are_as_many_as_differ() -> None:
    assert clustered({"a": (1.0, 1.0), "b": (1.0, 1.0), "c": (9.0, 1.0)}, 5, 42) == {
        "a": "cluster-1", "b": "cluster-1", "c": "cluster-2"
    }  # fmt: skip
    assert clustered({}, 5, 42) == {}


def test_a_column_names_the_series_as_folders_do(tmp_path: Path) -> None:
    write_links(tmp_path / "folders", "ab")
    mixed = pa.concat_tables(
        [
            table(lstm_series(300, seed=number)).append_column("link", pa.array([name] * 300))
            for number, name in enumerate("ab")
        ]
    )
    order = np.argsort(np.tile(np.arange(300), 2), kind="stable")
    (tmp_path / "column").mkdir()
    pq.write_table(mixed.take(pa.array(order)), tmp_path / "column/all.parquet")
    (tmp_path / "column/broken.parquet").write_text("no")
    folders = find_partitions(tmp_path / "folders", "link", tmp_path / "unused")
    column = find_partitions(tmp_path / "column", "link", tmp_path / "cut")
    assert [partition.name for partition in column.partitions] == ["a", "b"]
    assert column.unusable[0][0] == "broken.parquet"
    assert not folders.unusable
    for one, other in zip(folders.partitions, column.partitions, strict=True):
        assert pq.read_table(one.paths[0], partitioning=None).equals(pq.read_table(other.paths[0], partitioning=None))


def test_names_in_folders_are_decoded_and_checked(tmp_path: Path) -> None:
    for name in ("Z%C3%BCrich%2F1", "__HIVE_DEFAULT_PARTITION__", "x" * 200 + "%20" * 18 + "y" * 40):
        if len(name) <= 255:
            write(tmp_path, name, table(lstm_series(20)))
    write(tmp_path / "region=eu", "b", table(lstm_series(20)), "day=1/part-0.parquet")
    found = find_partitions(tmp_path, "link", tmp_path / "cut")
    assert [partition.name for partition in found.partitions] == ["Zürich/1", "b"]
    assert [name for name, _ in found.unusable] == ["link=__HIVE_DEFAULT_PARTITION__/part-0.parquet"]


def test_metrics_that_the_profile_leaves_to_the_data_are_those_of_most_links(tmp_path: Path) -> None:
    for name in "abc":
        rows = table(lstm_series(20))
        write(tmp_path, name, rows.drop_columns(["jitter"]) if name == "a" else rows)
    found = find_partitions(tmp_path, "link", tmp_path / "cut")
    profile = link_profile(load_profile("industrial"), "link", found.partitions)
    assert "jitter" in profile.feature_schema.names
    assert len(profile.feature_schema.names) == 7
    assert profile.reader.series == "joined"


def test_a_pool_is_bounded_and_spread_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_links(tmp_path, "abc", 400)
    (data / "link=b/part-0.parquet").write_text("no")
    partitions = find_partitions(data, "link", tmp_path / "cut").partitions
    monkeypatch.setattr("dwcp_training.fleet.pool.POOL_ROWS", 3 * 100)
    recipe = Recipe(tmp_path, load_profile("dwcp"), ("isolation_forest",), {})
    rows = pooled(recipe, partitions)
    assert len(rows) == 2 * 3 * STRETCH
    assert rows.series == ((0, 96), (96, 192))
    assert rows.segments[0] == (0, 32)
    assert len(rows.segments) == 6
    assert rows.series_names == ("a", "c")
    assert rows.timestamps is not None
    assert rows.timestamps[95] == lstm_series(400).timestamps[-1]
    assert "1 series could not be read" in rows.report.warnings[1]
    many = partitions * 5_000
    monkeypatch.undo()
    assert len(drawn(many, 1)) == POOL_ROWS // STRETCH
    assert drawn(many, 1) == drawn(many, 1) != drawn(many, 2)


@pytest.mark.slow
def test_forests_need_no_tensorflow(tmp_path: Path, profile: str) -> None:
    data = write_links(tmp_path / "data", "a")
    code = (
        "import sys; from tests.fleet.links import train; from pathlib import Path; "
        f"assert train(Path({str(data)!r}), Path({str(tmp_path / 'fleet')!r}), {profile!r}) == 0; "
        "assert not {'tensorflow', 'keras', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=120)
