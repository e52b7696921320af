"""A profile with small forests, and a fleet with every kind of link in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dwcp.anomaly.v1 import fleet_pb2
from dwcp_sidecar.fleet_index import read_message
from dwcp_training.data import lstm_series
from tests.fleet.links import small_profile, table, train, write, write_links


@dataclass(frozen=True)
class Trained:
    """A fleet that nobody changes, its data, and the exit status of its training."""

    data: Path
    fleet: Path
    status: int

    @property
    def index(self) -> fleet_pb2.FleetIndex:
        return read_message(self.fleet)[0]

    def series(self, name: str) -> fleet_pb2.FleetSeries:
        (found,) = [series for series in self.index.series if series.name == name]
        return found


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, profile: str) -> Trained:
    """Links a and b with enough rows, one with ten, one without a column, one that is no Parquet, one of two files of
    which one is cut off."""
    base = tmp_path_factory.mktemp("fleet")
    data = write_links(base / "data")
    write(data, "other", table(lstm_series(300)).drop_columns(["jitter"]))
    write(data, "young", table(lstm_series(10)))
    half = write(data, "half", table(lstm_series(300)).slice(150), "late.parquet")
    write(data, "half", table(lstm_series(300)).slice(0, 150), "early.parquet")
    half.write_bytes(half.read_bytes()[:-200])
    (data / "link=corrupt").mkdir()
    (data / "link=corrupt/part-0.parquet").write_text("no")
    return Trained(data, base / "fleet", train(data, base / "fleet", profile))
