"""Columns that become features, .npy, Parquet with metadata and baseline, devices, folders; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dwcp_training.data import DataError, DataErrorCode, read_table, time_split
from dwcp_training.data.layout import completed
from dwcp_training.profiles import Feature, FeatureSchema, Profile, load_profile

MINUTE = np.timedelta64(60, "s")


def profile(**reader: object) -> Profile:
    """A profile for any metrics, without times unless `timestamp_column` is given."""
    times = reader.pop("timestamp_column", None)
    return Profile.model_validate(
        {
            "feature_schema": {"name": "mine", "version": 1},
            "timestamp_column": times,
            "reader": {"features": "numeric", **reader},
        }
    )


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"host": "a", "CPU load (%)": rng.uniform(0, 100, rows), "2xx": rng.integers(1, 9, rows)})


# Features from the data


def test_numeric_columns_become_features_with_limits_from_the_data(tmp_path: Path) -> None:
    table = frame(100)
    table["comment"] = "n/a"
    table.to_csv(tmp_path / "a.csv", index=False)
    read = read_table(tmp_path / "a.csv", profile())
    assert read.schema.names == ("CPU_load", "_2xx")
    assert read.report.ignored_columns == ("host", "comment")
    load = read.schema.features[0]
    values = table["CPU load (%)"]
    assert load.warning == pytest.approx(values.mean() + 4 * values.std(ddof=0))
    assert load.minimum < values.min() < values.max() < load.warning < load.critical <= load.maximum


def test_columns_are_left_out_or_renamed_by_the_profile(tmp_path: Path) -> None:
    frame(10).to_csv(tmp_path / "a.csv", index=False)
    read = read_table(tmp_path / "a.csv", profile(metadata=["?xx"], columns={"cpu": "CPU load (%)"}))
    assert read.schema.names == ("cpu",)
    with pytest.raises(DataError, match="no column of numbers") as caught:
        read_table(tmp_path / "a.csv", profile(metadata=["*"]))
    assert caught.value.code is DataErrorCode.MISSING_COLUMN


def test_columns_that_would_have_one_name(tmp_path: Path) -> None:
    pd.DataFrame({"cpu %": [1, 2], "cpu": [3, 4]}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"'cpu %', 'cpu' of a.csv would all be the feature 'cpu'.*\n.*reader.columns"):
        read_table(tmp_path / "a.csv", profile())


def test_a_bad_cell_does_not_hide_its_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\nx,3\n4,5\n")
    with pytest.raises(DataError, match="line 3, a: 'x' is not a number"):
        read_table(tmp_path / "a.csv", profile())


@pytest.mark.parametrize("cell", ["", "nan"])
def test_a_column_without_any_number_is_refused_with_its_name(tmp_path: Path, cell: str) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + f"1,{cell}\n" * 5)
    with pytest.raises(DataError, match=r"the column 'b' holds no number at all.*\n.*reader.metadata") as caught:
        read_table(tmp_path / "a.csv", profile(), on_bad_rows="drop")
    assert caught.value.code is DataErrorCode.WRONG_COLUMN
    assert read_table(tmp_path / "a.csv", profile(metadata=["b"])).schema.names == ("a",)


def test_limits_that_are_given_stay() -> None:
    values = np.array([[100.0, 5.0, 0.0], [100.0, 7.0, 0.0]])
    given = FeatureSchema(
        name="mine",
        version=1,
        features=(
            Feature(name="full", unit="%", minimum=0, maximum=100),
            Feature(name="up", unit="ms", minimum=0, warning=50, critical=90),
            Feature(name="zero", unit="count"),
        ),
    )
    full, up, zero = completed(given, values).features
    assert (full.minimum, full.maximum) == (0, 100)
    assert 0 <= full.critical < full.warning < 100, "always at the maximum: only less can be bad"
    assert (up.minimum, up.warning, up.critical, up.maximum) == (0, 50, 90, 90)
    assert (zero.warning, zero.critical) == (4, 8)
    whole = load_profile("dwcp").feature_schema
    assert completed(whole, np.ones((1, 7))) is whole


def test_limits_of_the_largest_numbers_are_finite() -> None:
    schema = FeatureSchema(name="mine", version=1, features=(Feature(name="a", unit=""),))
    (feature,) = completed(schema, np.array([[1e308], [-1e308], [0.0]])).features
    assert feature.minimum < feature.warning < feature.critical <= feature.maximum


# Delimiters, folders, devices


def test_other_delimiter_and_the_advice_that_names_it(tmp_path: Path) -> None:
    frame(10).to_csv(tmp_path / "a.csv", index=False, sep=";")
    assert len(read_table(tmp_path / "a.csv", profile(delimiter=";")).schema.names) == 2
    listed = load_profile("dwcp").model_copy(update={"timestamp_column": None})
    with pytest.raises(DataError, match=r"reader.delimiter: ';'"):
        read_table(tmp_path / "a.csv", listed)


def test_files_and_folders_together_and_no_window_from_file_to_file(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for number, name in enumerate(("more/b.csv", "more/c.csv", "a.csv")):
        frame(10 + number, number).to_csv(tmp_path / name, index=False)
    (tmp_path / "more" / "notes.txt").write_text("not data")
    read = read_table([tmp_path / "more", tmp_path / "a.csv"], profile(series="files"))
    assert read.segments == ((0, 10), (10, 21), (21, 33))
    assert read.source == "b.csv, c.csv, a.csv"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="folder without a file to read"):
        read_table(tmp_path / "empty", profile())


def devices(rows: int) -> pd.DataFrame:
    """Two devices with the same times, their rows alternating; device b has a gap in the middle."""
    times = np.datetime64("2024-01-01T00:00:00") + MINUTE * np.arange(rows)
    one = pd.DataFrame({"time": times, "device": "a", "value": np.arange(rows, dtype=float)})
    two = one.assign(device="b", value=one["value"] + 1000)
    two.loc[rows // 2 :, "time"] += 5 * MINUTE
    return pd.concat([one, two]).sort_values(["time", "device"])


def test_windows_never_cross_devices(tmp_path: Path) -> None:
    table = devices(20)
    table.to_parquet(tmp_path / "a.parquet", index=False)
    read = read_table(tmp_path / "a.parquet", profile(series_column="device", timestamp_column="time"))
    assert read.schema.names == ("value",)
    assert read.series == ((0, 20), (20, 40))
    assert read.segments == ((0, 20), (20, 30), (30, 40))
    assert read.report.gap_count == 1
    assert read.report.warnings[-1].startswith("1 gap")
    np.testing.assert_array_equal(np.diff(read.values[:20, 0]), 1)
    fit, held_out = time_split(read, 0.2, gap=2)
    assert held_out.series == ((0, 4), (4, 8))
    np.testing.assert_array_equal(held_out.values[:, 0], [16, 17, 18, 19, 1016, 1017, 1018, 1019])
    assert len(fit) == 28


def test_devices_in_several_files(tmp_path: Path) -> None:
    table = devices(20)
    table[table["time"] < "2024-01-01T00:08"].to_csv(tmp_path / "early.csv", index=False)
    table[table["time"] >= "2024-01-01T00:08"].to_csv(tmp_path / "late.csv", index=False)
    read = read_table(tmp_path, profile(series_column="device", timestamp_column="time"))
    assert read.segments == ((0, 20), (20, 30), (30, 40))
    (tmp_path / "early.csv").write_text("time,device,value\n2024-01-01T00:00:00,a,1\n2024-01-01T00:00:00,a,2\n")
    with pytest.raises(DataError, match=r"early.csv line 3, time: .* is there more than once"):
        read_table(tmp_path, profile(series_column="device", timestamp_column="time"))


@pytest.mark.parametrize(("unit", "scale"), [("seconds", 1), ("milliseconds", 1000)])
def test_times_as_numbers(tmp_path: Path, unit: str, scale: int) -> None:
    seconds = 1_700_000_000 + 0.125 * np.arange(4)
    pd.DataFrame({"t": seconds * scale, "v": [1.0, 2, 3, 4]}).to_csv(tmp_path / "a.csv", index=False)
    read = read_table(tmp_path / "a.csv", profile(timestamp_column="t", timestamp_format=unit))
    assert read.first_timestamp == "2023-11-14T22:13:20Z"
    assert read.cadence_seconds == 0.125


# Parquet with metadata, first files as baseline (S2-6)


@pytest.mark.slow
def test_bearing_parquet_of_any_width(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 87)), columns=[f"f{j}" for j in range(87)])
    table.insert(0, "file", np.repeat([f"2003.10.22.{k:02}" for k in range(30, 0, -1)], 10))
    table["bearing"], table["timestamp"], table["rul"] = 1, np.datetime64("2003-10-22"), 0.5
    table.to_parquet(tmp_path / "ims_features.parquet")
    bearing = load_profile("bearing")
    read = read_table(tmp_path / "ims_features.parquet", bearing, normal_only=True)
    assert len(read.schema.names) == 87
    assert len(read) == 200, "the first 20 files in the order of the rows, not by name"
    np.testing.assert_array_equal(read.values, table.iloc[:200, 1:88])
    assert read.report.dropped == {"excluded_after_baseline": 100}
    assert read.segments == tuple((k, k + 10) for k in range(0, 200, 10))
    assert len(read_table(tmp_path / "ims_features.parquet", bearing)) == 300


def test_first_files_as_baseline(tmp_path: Path) -> None:
    for name in "abc":
        frame(5).to_csv(tmp_path / f"{name}.csv", index=False)
    read = read_table(tmp_path, profile(series="files", baseline={"first": 2}), normal_only=True)
    assert read.source == "a.csv, b.csv"


# .npy and the edge schema (S3-1, S3-2)

EDGE = load_profile("edge-host")
DIVISORS = np.array([1000, 1000, 1000, 1000, 500, 1000, 1e9, 1e9, 1000, 1e9, 100, 100])


def test_npy_of_12_columns_is_raw_and_of_64_is_multiplied_back(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 100, (50, 12)).astype(float)
    np.save(tmp_path / "raw.npy", raw)
    padded = np.zeros((50, 64))
    padded[:, :12] = raw / DIVISORS
    np.save(tmp_path / "padded.npy", padded.astype(np.float32))
    np.testing.assert_array_equal(read_table(tmp_path / "raw.npy", EDGE).values, raw)
    back = read_table(tmp_path / "padded.npy", EDGE)
    np.testing.assert_allclose(back.values, raw, rtol=1e-7)
    assert back.schema.names == EDGE.feature_schema.names
    assert back.timestamps is None


def test_the_divisors_are_the_scaler_of_the_model(tmp_path: Path) -> None:
    from dwcp_training.detectors.base import clamp_scaled, fitted_scaler

    raw = np.random.default_rng(0).integers(0, 100, (50, 12)).astype(float)
    np.save(tmp_path / "raw.npy", raw)
    scaler = fitted_scaler(read_table(tmp_path / "raw.npy", EDGE))
    np.testing.assert_array_equal(scaler.mean_, 0)
    np.testing.assert_array_equal(scaler.scale_, DIVISORS)
    np.testing.assert_array_equal(clamp_scaled(raw, scaler.mean_, scaler.scale_), raw / DIVISORS)
    np.testing.assert_array_equal(scaler.transform(raw), raw / DIVISORS)


@pytest.mark.parametrize(("method", "mean", "scale"), [("minmax", 1, 8), ("robust", 3, 2), ("none", 0, 1)])
def test_other_scalings(method: str, mean: float, scale: float, tmp_path: Path) -> None:
    from dwcp_training.detectors.base import fitted_scaler

    np.save(tmp_path / "a.npy", np.column_stack([[1.0, 2, 3, 4, 9], [5.0] * 5]))
    chosen = profile().model_copy(update={"scaling": profile().scaling.model_copy(update={"method": method})})
    scaler = fitted_scaler(read_table(tmp_path / "a.npy", chosen))
    assert (scaler.mean_[0], scaler.scale_[0], scaler.scale_[1]) == (mean, scale, 1)


def test_npy_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(array: object, words: str, chosen: Profile = EDGE) -> None:
        np.save(tmp_path / "a.npy", np.array(array), allow_pickle=True)
        with pytest.raises(DataError, match=words):
            read_table(tmp_path / "a.npy", chosen)

    refused(np.zeros((3, 13)), r"a.npy has 13 columns.\n.*wants 12 \(raw\) or 64 \(divided and padded\)")
    padded = np.zeros((3, 64))
    padded[1, 20] = 0.5
    refused(padded, "a.npy row 2, column 21: 0.5 in the padding")
    refused(np.zeros(12), r"but float64 of shape \(12,\)")
    refused([["a"]], "does not hold a table of numbers")
    refused([{"a": 1}], "no array of numbers")  # a pickle is never opened
    refused(np.zeros((0, 12)), "has no rows")
    refused(np.full((3, 12), -1.0), "a.npy row 1, process_count: -1.0 must be at least 0 count")
    refused(np.zeros((3, 7)), "no column 'timestamp'.*\n.*timestamp_column: null", load_profile("dwcp"))
    (tmp_path / "a.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"a.npy is no array of numbers"):
        read_table(tmp_path / "a.npy", EDGE)
