"""The command line: help with examples, refusals that name flag, file, line, column and remedy, a progress bar."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.cli import app
from tests.training.conftest import COMMAND

HEADER = "timestamp,bandwidth,latency,packet_loss,jitter,cpu_usage,memory_usage,error_rate"
FOREST = ("train", "isolation-forest")
LSTM = ("train", "lstm-autoencoder")
DENSE = ("train", "dense-autoencoder")
LOF = ("train", "local-outlier-factor")
SVM = ("train", "one-class-svm")


def invoke(*arguments: str | Path) -> Result:
    for handler in list(logging.root.handlers):  # of a library that was first imported in a run that has ended
        if getattr(getattr(handler, "stream", None), "closed", False):
            logging.root.removeHandler(handler)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ["train", "evaluate", "profile"]),
        (("profile", "show", "--help"), ["Example: dwcp profile show dwcp", "NAME|FILE"]),
        (("train", "--help"), [command for _, command in (FOREST, LSTM, DENSE, LOF, SVM)]),
        (
            (*FOREST, "--help"),
            ["Example: dwcp train isolation-forest --data", "--profile servers.yaml", "less means fewer alarms"],
        ),
        ((*LSTM, "--help"), ["Example: dwcp train lstm-autoencoder --data", "--threshold-percentile", "--precision"]),
        ((*DENSE, "--help"), ["Example: dwcp train dense-autoencoder --data", "--encoder-units", "--label-column"]),
        (
            (*LOF, "--help"),
            ["Example: dwcp train local-outlier-factor --data", "--n-neighbors", "--max-rows", "--seed"],
        ),
        ((*SVM, "--help"), ["Example: dwcp train one-class-svm --data", "--nu", "<scale|auto|float>", "--exclude"]),
        (("evaluate", "--help"), ["Example: dwcp evaluate --models", "--labels", "--inject"]),
        (("score", "--help"), ["Example: dwcp score --models", "--only-alarms", "--chunk-rows"]),
        (("monitor", "--help"), ["dwcp monitor --models", "--follow", "FEATURE=PROMQL", "--forward", "[-]"]),
        (("export", "--help"), ["Example: dwcp export --models", "--batch", "--precision"]),
    ],
)
def test_help_shows_examples(arguments: tuple[str, ...], words: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for word in words:
        assert word in text


def test_help_answers_at_once_and_without_tensorflow(dwcp: Callable) -> None:
    process = dwcp(*LSTM, "--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert process.returncode == 0
    assert "dwcp_training.cli" in process.stderr
    assert not {"tensorflow", "keras", "sklearn"} & set(process.stderr.replace("|", " ").split())


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ((*FOREST, "--synthetic", "--contamination", "0.6"), "--contamination 0.6"),
        ((*FOREST, "--synthetic", "--contamination", "nan"), "--contamination nan"),
        ((*FOREST, "--synthetic", "--contamination", "much"), "--contamination"),
        ((*FOREST, "--synthetic", "--n-estimators", "0"), "--n-estimators 0"),
        ((*FOREST, "--synthetic", "--seed", "-1"), "--seed -1"),
        ((*FOREST, "--synthetic", "--trees", "10"), "--trees"),
        ((*LSTM, "--synthetic", "--window-size", "257"), "--window-size 257"),
        ((*LSTM, "--synthetic", "--epochs", "0"), "--epochs 0"),
        ((*LSTM, "--synthetic", "--batch-size", "x"), "--batch-size"),
        ((*LSTM, "--synthetic", "--threshold-percentile", "101"), "--threshold-percentile 101"),
        ((*LSTM, "--synthetic", "--precision", "float16"), "--precision"),
        ((*DENSE, "--synthetic", "--encoder-units", "64,x"), "write 64,32,16"),
        ((*DENSE, "--synthetic", "--encoder-units", "64,0"), "--encoder-units (64, 0)"),
        ((*DENSE, "--synthetic", "--bottleneck", "0"), "--bottleneck 0"),
        ((*DENSE, "--synthetic", "--activation", "gelu"), "--activation"),
        ((*DENSE, "--synthetic", "--dropout", "1"), "--dropout 1"),
        ((*LOF, "--synthetic", "--n-neighbors", "0"), "--n-neighbors 0"),
        ((*LOF, "--synthetic", "--contamination", "0"), "--contamination 0"),
        ((*LOF, "--synthetic", "--max-rows", "1"), "--max-rows 1"),
        ((*SVM, "--synthetic", "--nu", "1.5"), "--nu 1.5"),
        ((*SVM, "--synthetic", "--gamma", "0"), "--gamma 0.0: Input should be 'scale' or 'auto', or greater than 0"),
        (
            (*SVM, "--synthetic", "--gamma", "skale"),
            "--gamma skale: Input should be 'scale' or 'auto', or a valid number",
        ),
        ((*SVM, "--synthetic", "--gamma", "inf"), "--gamma inf"),
        ((*SVM, "--data", "x.csv", "--normal-label", "idle"), "--normal-label"),
        (LOF, "--data FILE.csv"),
        (FOREST, "--data FILE.csv"),
        ((*FOREST, "--synthetic", "--data", "x.csv"), "not both"),
        ((*FOREST, "--synthetic", "--exclude", "labels.csv"), "--exclude"),
        ((*FOREST, "--synthetic", "--label-column", "label"), "--label-column"),
        ((*FOREST, "--data", "x.csv", "--exclude-grace", "-1"), "--exclude-grace -1"),
        ((*FOREST, "--data", "x.csv", "--normal-label", "idle"), "--normal-label"),
        ((*FOREST, "--data", "x.csv", "--on-bad-rows", "ignore"), "--on-bad-rows"),
        (("evaluate", "--models", "m", "--data", "x.csv", "--grace", "7"), "--grace"),
        (("evaluate", "--models", "m", "--data", "x.csv", "--labels", "l.csv", "--inject"), "--inject"),
        (("evaluate", "--data", "x.csv"), "--models"),
    ],
)
def test_wrong_usage_names_the_flag(
    arguments: tuple[str, ...], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert flag in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


BAD_DATA = {
    "text in a number column": (
        f"{HEADER}\n2024-01-01T00:00:00Z,1,1,1,1,1,1,1\n2024-01-01T00:01:00Z,1,fast,1,1,1,1,1\n",
        ["bad.csv line 3, latency: 'fast' is not a number", "--on-bad-rows drop"],
    ),
    "what looks like markup": (
        f"{HEADER}\n2024-01-01T00:00:00Z,1,[/red],1,1,1,1,1\n", ["bad.csv line 2, latency: '[/red]' is not a number"]
    ),
    "no column": (
        HEADER.replace("jitter,", "") + "\n2024-01-01T00:00:00Z,1,1,1,1,1,1\n", ["bad.csv has no column 'jitter'"]
    ),
    "a column of another name": (
        HEADER.replace("cpu_usage", "CPU usage") + "\n2024-01-01T00:00:00Z,1,1,1,1,1,1,1\n",
        ["no column 'cpu_usage'", "Is 'CPU usage' meant? Rename it"],
    ),
    "nothing": ("", ["bad.csv is empty", "It needs a header and rows"]),
    "a header": (HEADER + "\n", ["bad.csv has a header but no rows"]),
    "one row": (f"{HEADER}\n2024-01-01T00:00:00Z,1,1,1,1,1,1,1\n", ["1 rows are too few", "Use more data"]),
}  # fmt: skip


@pytest.mark.parametrize("command", [FOREST, LSTM])
@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused_with_place_and_remedy(name: str, command: tuple[str, str], tmp_path: Path) -> None:
    text, words = BAD_DATA[name]
    (tmp_path / "bad.csv").write_text(text)
    result = invoke(*command, "--data", tmp_path / "bad.csv", "--output", tmp_path / "models")
    assert result.exit_code == 1, result.output
    assert "was not trained" in result.stderr
    for word in words:
        assert word in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    result = invoke(*FOREST, "--data", tmp_path / "none.csv", "--output", tmp_path / "models")
    assert result.exit_code == 1
    assert f"cannot read {tmp_path / 'none.csv'}: No such file or directory" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_can_be_left_out(csv: Path, tmp_path: Path, no_cross_check: None) -> None:
    lines = csv.read_text().splitlines()
    lines[10] = lines[10].replace("Z,", "Z,x")
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    flags = ("--data", tmp_path / "bad.csv", "--output", tmp_path / "models", "--n-estimators", "3")
    assert invoke(*FOREST, *flags).exit_code == 1
    result = invoke(*FOREST, *flags, "--on-bad-rows", "drop")
    assert result.exit_code == 0, result.output
    assert "299 of 300 rows" in result.stdout
    assert "left out: 1 rows, text in number column" in result.stdout
    assert "bad.csv line 11, bandwidth" in result.stdout
    record = ModelSet.open(tmp_path / "models").metadata["isolation_forest"].training
    assert dict(record.dropped) == {"text_in_number_column": 1}


def test_unknown_profile_is_refused(csv: Path, tmp_path: Path) -> None:
    result = invoke(*FOREST, "--data", csv, "--output", tmp_path / "models", "--profile", "dwpc")
    assert result.exit_code == 1
    assert "Did you mean 'dwcp'?" in result.stderr


def test_progress_bar_on_a_terminal_only(csv: Path, tmp_path: Path) -> None:
    command = [COMMAND, *FOREST, "--data", csv, "--n-estimators", "2", "--output", tmp_path / "models"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait(60) == 0
    assert "━".encode() in shown
    assert b"isolation_forest" in shown
    assert b"3/3" in shown

    quiet = invoke(*command[1:])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert "data: normal.csv, 300 of 300 rows, 2024-01-01T00:00:00Z to 2024-01-01T04:59:00Z\n" in quiet.stdout
    assert "golden vectors" in quiet.stdout
