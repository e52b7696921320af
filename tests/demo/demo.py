"""The whole way on a measured link: train, serve, score from Go over gRPC and natively, compare, report.

    make demo                                  # ../shared/data/linklab/link-a, some three minutes
    python tests/demo/demo.py --epochs 5       # a shorter training

Ends with three tables: alarms and false alarms, recall per fault kind, latency;
when matplotlib is installed. Exit status 1 when anything differed between Go and the sidecar.
"""

import argparse
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "../shared/data/linklab/link-a"
REFERENCE = ROOT / "models/reference/v1"
BUILD = ROOT / "build/demo"
BIN = Path(sys.executable).parent
GRACE = pd.Timedelta(seconds=7)
"""Rows this long after a fault are neither normal nor faulty: metrics with windows still show it."""

console = Console(width=120)


def train(models: Path, epochs: int) -> None:
    """Trains both detectors on the fault-free half hour."""
    data = ["--data", str(DATA / "train.csv"), "--output", str(models)]
    subprocess.run([BIN / "dwcp", "train", "isolation-forest", *data], check=True)
    subprocess.run([BIN / "dwcp", "train", "lstm-autoencoder", *data, "--epochs", str(epochs)], check=True)


@contextmanager
def sidecar(models: Path) -> Iterator[str]:
    """A running sidecar; gives its address and ends it by its id."""
    process = subprocess.Popen(
        [BIN / "dwcp-sidecar", "serve", "--models", models, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], 30)[0]:
            raise SystemExit("the sidecar did not become ready within 30 s")
        ready = process.stdout.readline()
        console.print(f"sidecar: {ready.strip()}")
        yield ready.split()[1]
    finally:
        process.terminate()
        process.wait(timeout=20)


def replay(models: Path, address: str, data: Path) -> pd.DataFrame:
    """Scores of every sample by every detector, from the Go program that calls Score and scores natively."""
    command = [
        os.environ.get("GO", "go"),
        "run",
        "./cmd/dwcp-replay",
        "--models",
        models,
        "--address",
        address,
        "--data",
        data.resolve(),
    ]
    done = subprocess.run(
        command, cwd=ROOT / "go-contract", env={**os.environ, "CGO_ENABLED": "0"}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, 3):  # 3: scores differ, which the table shows
        raise SystemExit(f"dwcp-replay failed with exit status {done.returncode}")
    frame = pd.DataFrame(map(json.loads, done.stdout.splitlines()))
    frame["timestamp"] = pd.to_datetime(frame["timestamp"])
    return frame


def label(times: pd.Series, faults: pd.DataFrame) -> pd.Series:
    """`normal`, `grace`, or the kind of the fault, for each time."""
    kinds = pd.Series("normal", index=times.index)
    for fault in faults.itertuples():
        kinds[(times > fault.end) & (times <= fault.end + GRACE)] = "grace"
    for fault in faults.itertuples():
        kinds[(times >= fault.start) & (times <= fault.end)] = fault.kind
    return kinds


def alarm_table(scores: pd.DataFrame, cadence_hours: float) -> Table:
    """Alarms, false alarms an hour and precision per detector."""
    table = Table(title="Alarms per sample", title_justify="left")
    for column in (
        "detector",
        "samples",
        "alarms",
        "in a fault",
        "in normal time",
        "false alarms per hour",
        "mismatches Go / sidecar",
    ):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for detector, rows in scores.groupby("detector", sort=False):
        normal = rows[rows.label == "normal"]
        alarms = rows[rows.is_anomaly]
        false_alarms = int(normal.is_anomaly.sum())
        table.add_row(
            detector,
            f"{len(rows):,}",
            f"{len(alarms):,}",
            f"{(~alarms.label.isin(['normal', 'grace'])).sum():,}",
            f"{false_alarms:,}",
            f"{false_alarms / (len(normal) * cadence_hours):.0f}",
            f"{(~rows.equal).sum():,}",
        )
    return table


def recall_table(scores: pd.DataFrame, faults: pd.DataFrame) -> Table:
    """Share of faulty samples that alarmed and seconds to the first alarm, per kind of fault."""
    table = Table(
        title="Recall per fault kind (samples; faults found; seconds to the first alarm, median)", title_justify="left"
    )
    table.add_column("fault kind")
    detectors = list(scores.detector.unique())
    for detector in detectors:
        table.add_column(detector, justify="right")
    for kind in sorted(faults.kind.unique()):
        cells = []
        for detector in detectors:
            rows = scores[scores.detector == detector]
            delays = []
            for fault in faults[faults.kind == kind].itertuples():
                first = rows[
                    (rows.timestamp >= fault.start) & (rows.timestamp <= fault.end) & rows.is_anomaly
                ].timestamp.min()
                if first is not pd.NaT and not pd.isna(first):
                    delays.append((first - fault.start).total_seconds())
            recall = rows[rows.label == kind].is_anomaly.mean()
            found = f"{len(delays)}/{(faults.kind == kind).sum()}"
            cells.append(
                f"{100 * recall:.0f} %   {found}   {np.median(delays):.1f} s"
                if delays
                else f"{100 * recall:.0f} %   {found}    -   "
            )
        table.add_row(kind, *cells)
    return table


def latency_table(scores: pd.DataFrame) -> Table:
    """Latency percentiles of a Score call over gRPC and of the native scorer, contributions included."""
    table = Table(title="Latency of one score with its explanation, microseconds", title_justify="left")
    for column in ("detector", "through", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="left" if column in ("detector", "through") else "right")
    for detector, rows in scores.groupby("detector", sort=False):
        for through, column in (("sidecar, gRPC from Go", "sidecar_us"), ("native Go", "native_us")):
            values = np.percentile(rows[column], [50, 90, 99, 100])
            table.add_row(detector, through, *(f"{value:,.0f}" for value in values))
    return table


def main() -> int:
    """Runs everything; 1 when Go and the sidecar differ, 2 when the data is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50, help="most epochs of the LSTM autoencoder (default 50)")
    parser.add_argument("--models", type=Path, help="use this model set instead of training one")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        console.print("The demo needs ../shared/data/linklab/link-a, which is not here. Try `make train-synthetic`.")
        return 2
    models = (arguments.models or BUILD / "models").resolve()
    if arguments.models is None:
        train(models, arguments.epochs)
    with sidecar(models) as address:
        scores = replay(models, address, DATA / "test.csv")
    faults = pd.read_csv(DATA / "labels.csv", parse_dates=["start", "end"])
    scores["label"] = label(scores.timestamp, faults)
    cadence = scores[scores.detector == scores.detector.iloc[0]].timestamp.diff().median()
    BUILD.mkdir(parents=True, exist_ok=True)
    scores.to_csv(BUILD / "scores.csv", index=False)
    console.print(recall_table(scores, faults))
    console.print(alarm_table(scores, cadence.total_seconds() / 3600))
    console.print(latency_table(scores))
    mismatches = int((~scores.equal).sum())
    console.print(f"{len(scores):,} scores compared between the sidecar and native Go: {mismatches} mismatches")
    return int(mismatches > 0)


if __name__ == "__main__":
    sys.exit(main())
