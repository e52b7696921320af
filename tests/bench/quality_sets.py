"""The real data sets that detection quality is measured on: what trains, what tests, and where the faults are.

Nothing of them is in the repository. A set that is not there is left out by name. Nothing is tuned per set: each has
its own way of saying what is normal, and that is all that differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LINKLAB_GRACE_SECONDS = 7
"""Windows of the measurement end up to 6 s after a fault: such rows are neither clean nor faulty (its README)."""

SKAB_TRAINING_ROWS = 400
"""Rows at the start of an experiment that are its training part."""

HISTORY = 100
"""Rows before the tested ones: as many as the longest window has."""

NEZHA_FAULT_MINUTES = 3
NEZHA_REST_MINUTES = 60
"""Where one day alone is there, its rows train that are this long after its last fault."""


@dataclass(frozen=True, eq=False)
class Series:
    """One machine, link, experiment or pod: it has a model of its own.

    Attributes:
        name: within its set.
        train: raw normal rows, float64 `[n, features]`, oldest first.
        test: raw rows that follow one another, float64 `[m, features]`.
        faulty: bool `[m]`.
        counted: bool `[m]`; False for rows in the grace after a fault.
        before: the `HISTORY` rows before those of `test`, for detectors with a window: the end of `train` where the
            test rows follow it, else the first test row again and again.
    """

    name: str
    train: Floats
    test: Floats
    faulty: Bools
    counted: Bools
    before: Floats


@dataclass(frozen=True)
class DataSet:
    """One of the sets.

    Attributes:
        name, what: for people.
        profile: the one whose defaults our detectors have here.
        load: reads its series; none where it is not there.
        only: detectors of ours that are measured; None for all. Such a set stands beside the others: it is in no mean.
    """

    name: str
    what: str
    profile: str
    load: Callable[[], list[Series]]
    only: tuple[str, ...] | None = None


def _series(
    name: str, train: Floats, test: Floats, faulty: Bools, counted: Bools | None = None, *, follows: bool = True
) -> Series:
    train, test = (np.ascontiguousarray(part, np.float64) for part in (train, test))
    return Series(
        name,
        train,
        test,
        faulty.astype(bool),
        np.ones(len(test), bool) if counted is None else counted,
        train[-HISTORY:] if follows else np.repeat(test[:1], HISTORY, axis=0),
    )


def linklab() -> list[Series]:
    """link-a, and link-b where it is."""
    found = []
    for folder in sorted((FOLDER / "linklab").glob("link-*")):
        train, test = (pd.read_csv(folder / f"{part}.csv", parse_dates=["timestamp"]) for part in ("train", "test"))
        times, faulty, grace = test["timestamp"], np.zeros(len(test), bool), np.zeros(len(test), bool)
        labels = pd.read_csv(folder / "labels.csv", parse_dates=["start", "end"])
        for start, end in zip(labels["start"], labels["end"], strict=True):
            faulty |= ((times >= start) & (times <= end)).to_numpy()
            grace |= ((times > end) & (times <= end + pd.Timedelta(seconds=LINKLAB_GRACE_SECONDS))).to_numpy()
        names = [name for name in train.columns if name != "timestamp"]
        found.append(
            _series(folder.name, train[names].to_numpy(), test[names].to_numpy(), faulty, faulty | ~grace)
        )  # fmt: skip
    return found


def _npz(folder: str) -> list[Series]:
    found = []
    for file in sorted((FOLDER / folder).glob("*.npz")):
        with np.load(file) as data:
            found.append(_series(file.stem, data["train"], data["test"], data["test_label"]))
    return found


def skab() -> list[Series]:
    """The experiments at valve 1."""
    found = []
    for file in sorted((FOLDER / "skab" / "valve1").glob("*.csv"), key=lambda path: int(path.stem)):
        table = pd.read_csv(file, sep=";")
        values = table.drop(columns=["datetime", "anomaly", "changepoint"]).to_numpy(np.float64)
        faulty, cut = table["anomaly"].to_numpy() > 0, SKAB_TRAINING_ROWS
        found.append(_series(file.stem, values[:cut], values[cut:], faulty[cut:]))
    return found


_SYSTEM = "frontend"  # the pod that only Online Boutique has
_POD_METRICS = {
    "bandwidth": lambda table: table["NetworkReceiveBytes"] + table["NetworkTransmitBytes"],
    "latency": lambda table: table["PodServerLatencyP90(s)"],
    "jitter": lambda table: table["PodServerLatencyP99(s)"] - table["PodServerLatencyP90(s)"],
    "cpu_usage": lambda table: table["CpuUsageRate(%)"],
    "memory_usage": lambda table: table["MemoryUsageRate(%)"],
}


def nezha() -> list[Series]:
    """Pods of Online Boutique with a fault: the first day trains and the second tests. Where there is one day, the
    hours after its faults train and those with faults test."""
    days = [
        day
        for day in sorted((FOLDER / "nezha" / "rca_data").glob("*-*-*"))
        if list((day / "metric").glob(f"{_SYSTEM}-*_metric.csv"))
    ]
    if not days:
        return []
    tables = [_pods(day) for day in days]
    found = []
    for pod, (times, values, faulty) in tables[-1].items():
        if not faulty.any():
            continue
        if len(days) > 1:
            if pod not in tables[0]:
                continue
            _, before, faulty_before = tables[0][pod]
            found.append(_series(pod, before[~faulty_before], values, faulty, follows=False))
            continue
        last = max(times[faulty].max() for times, _, faulty in tables[0].values() if faulty.any())
        rest = times > last + np.timedelta64(NEZHA_REST_MINUTES, "m")
        found.append(_series(pod, values[rest], values[~rest], faulty[~rest], follows=False))
    return found


def _pods(day: Path) -> dict[str, tuple[NDArray[np.datetime64], Floats, Bools]]:
    """Pod, without the ids of its deployment, to times, metrics and faulty rows of one day."""
    faults = [fault for hour in json.loads(next(day.glob("*fault_list.json")).read_text()).values() for fault in hour]
    found = {}
    for file in sorted((day / "metric").glob("*_metric.csv")):
        table = pd.read_csv(file)
        if not {"PodServerLatencyP90(s)", "CpuUsageRate(%)"} <= set(table.columns):
            continue
        # The Time text is right where the TimeStamp is not.
        times = pd.to_datetime(table["Time"].str.slice(0, 19)).to_numpy()
        values = np.column_stack([metric(table) for metric in _POD_METRICS.values()]).astype(np.float64)
        known = np.isfinite(values).all(axis=1)
        times, values = times[known], values[known]
        faulty = np.zeros(len(times), bool)
        for fault in faults:
            if fault["inject_pod"] + "_metric.csv" == file.name:
                start = np.datetime64(fault["inject_time"].replace(" ", "T"))
                # A row at a minute's end says what was in that minute.
                faulty |= (times > start) & (times <= start + np.timedelta64(NEZHA_FAULT_MINUTES + 1, "m"))
        found[file.name.rsplit("-", 2)[0]] = times, values, faulty
    return found


SETS = (
    DataSet(
        "linklab",
        "7 DWCP metrics of an emulated link, each 0.25 s; without 7 s after each fault",
        "dwcp",
        linklab,
    ),
    DataSet("SMD", "servers, 38 metrics, each minute", "telemetry-runs", lambda: _npz("smd")),
    DataSet("ASD", "application servers, 19 metrics, each 5 minutes", "telemetry-runs", lambda: _npz("asd")),
    DataSet(
        "SKAB",
        "water loop, valve 1, 8 sensors, each second; 400 rows of an experiment train",
        "telemetry-runs",
        skab,
    ),
    DataSet(
        "nezha",
        "pods of Online Boutique, 5 metrics, each minute; day 1 trains, of one day the hours after its faults",
        "telemetry-runs",
        nezha,
    ),
    DataSet(
        "SKAB as a plant",
        "as SKAB, with the profile of plants, whose weights are those of its document",
        "industrial",
        skab,
        only=("isolation_forest", "dense_autoencoder", "mahalanobis", "ensemble"),
    ),
)
