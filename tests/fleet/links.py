"""Made-up links as partitioned Parquet, and a profile whose forests are small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dwcp_training.data import Telemetry, lstm_series
from dwcp_training.fleet.train import Options, run_train
from dwcp_training.profiles import load_profile
from dwcp_training.profiles.loader import profile_yaml

ROWS = 300


def table(telemetry: Telemetry, factor: float = 1.0) -> pa.Table:
    """The rows of a link, whose bandwidth and latency are so many times those of the others."""
    assert telemetry.timestamps is not None
    values = telemetry.values * np.array([factor, factor, 1, 1, 1, 1, 1])
    times = pa.array(telemetry.timestamps).cast(pa.timestamp("ns", "UTC"))
    return pa.table({"timestamp": times, **dict(zip(telemetry.schema.names, values.T.copy(), strict=True))})


def write(data: Path, link: str, rows: pa.Table, file: str = "part-0.parquet") -> Path:
    path = data / f"link={link}" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def write_links(data: Path, names: str = "ab", rows: int = ROWS) -> Path:
    for number, name in enumerate(names):
        write(data, name, table(lstm_series(rows, seed=number)))
    return data


def small_profile(folder: Path, trees: int = 5) -> str:
    """A file with the profile `dwcp` and forests of few trees."""
    profile = load_profile("dwcp")
    forest = profile.detectors.isolation_forest.model_copy(update={"n_estimators": trees})
    detectors = profile.detectors.model_copy(update={"isolation_forest": forest})
    path = folder / "small.yaml"
    path.write_text(profile_yaml(profile.model_copy(update={"detectors": detectors})))
    return str(path)


def train(data: Path, output: Path, profile: str, workers: int = 1, **options: object) -> int:
    """`dwcp fleet train` in this process; its exit status."""
    given = {"min_rows": 100, "workers": workers, **options}
    return run_train(Options(data, output, profile=profile, **given))  # type: ignore[arg-type]
