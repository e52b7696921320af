"""The summary of marks: counted, written beside the marks, shown by both sidecars (rule M5)."""

from __future__ import annotations

import json
import logging
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as read

from dwcp.anomaly.v1.feedback_pb2 import FeedbackSummary
from dwcp_sidecar import protojson
from dwcp_sidecar.server.feedback_file import FeedbackFile
from dwcp_training.feedback.command import Given, Where, run_add, run_import, run_remove, run_report
from dwcp_training.feedback.marks import Mark, Verdict
from dwcp_training.feedback.summary import FILE, summary, write_summary
from tests.conformance import go_program
from tests.deploy.tools import REFERENCE, free_port
from tests.deploy.watched import process
from tests.sidecar.conftest import COMMAND

DAY = 86_400 * 10**9
NOW = 1_800_000_000 * 10**9


def mark(days_ago: float, verdict: Verdict, series: str = "") -> Mark:
    start = NOW - int(days_ago * DAY)
    return Mark(start, start, verdict, series)


def test_counts_of_the_last_days():
    marks = [
        mark(1, Verdict.TRUE), mark(2, Verdict.TRUE), mark(3, Verdict.FALSE), mark(4, Verdict.MISSED, "a"),
        mark(4, Verdict.MISSED, "a"), mark(4, Verdict.MISSED, "b"), mark(31, Verdict.TRUE), mark(-1, Verdict.FALSE),
    ]  # fmt: skip
    found = summary(marks, NOW)
    assert (found.true_alarms, found.false_alarms, found.missed_faults) == (2, 1, 2), "one incident is missed once"
    assert (found.schema_version, found.days, found.updated) == (1, 30, "2027-01-15T08:00:00Z")


def test_commands_keep_it_current(tmp_path: Path):
    where = Where(tmp_path)

    def counts() -> tuple[int, int]:
        found = protojson.parse((tmp_path / FILE).read_bytes(), FeedbackSummary(), FILE)
        return found.true_alarms, found.false_alarms

    start = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert run_add(where, Given(start, "", "true")) == 0
    assert counts() == (1, 0)
    (tmp_path / "more.csv").write_text(f"start,verdict,series\n{start},false,b\n")
    assert run_import(where, [tmp_path / "more.csv"]) != 0, "contradicts the first one"
    assert counts() == (1, 0)
    assert run_remove(where, 1) == 0
    assert counts() == (0, 0)
    assert run_import(where, [tmp_path / "more.csv"]) == 0
    assert counts() == (0, 1)
    (tmp_path / FILE).unlink()
    assert run_report(where) == 0
    assert counts() == (0, 1)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Samples of the feedback metrics on a page: name and verdict to value."""
    return {
        (sample.name, sample.labels.get("verdict", "")): sample.value
        for family in read(text)
        for sample in family.samples
        if sample.name.startswith("dwcp_feedback_")
    }


BAD = {
    "nothing": "",
    "no JSON": "{",
    "an unknown field": '{"schema_version": 1, "right": 3, "updated": "2027-01-15T08:00:00Z"}',
    "no version": '{"updated": "2027-01-15T08:00:00Z"}',
    "from the future": '{"schema_version": 2, "updated": "2027-01-15T08:00:00Z"}',
    "no time": '{"schema_version": 1, "updated": "yesterday"}',
    "a time without zone": '{"schema_version": 1, "updated": "2027-01-15T08:00:00"}',
    "a negative count": '{"schema_version": 1, "true_alarms": -1, "updated": "2027-01-15T08:00:00Z"}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_summary_shows_nothing_and_is_logged_once(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / FILE
    path.write_text(text)
    registry = CollectorRegistry()
    with caplog.at_level(logging.WARNING):
        registry.register(FeedbackFile(path))
        assert [samples(generate_latest(registry).decode()) for _ in range(3)] == [{}] * 3
    assert len(caplog.records) == 1, caplog.text


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A file of feedback, and the metrics pages of a Python sidecar, one with workers, and a Go sidecar on it."""
    folder = tmp_path_factory.mktemp("f")
    addresses = []
    with ExitStack() as stack:
        for name, command in {
            "python": [COMMAND, "serve"], "workers": [COMMAND, "serve", "--workers", "2"], "go": [go_program.sidecar()]
        }.items():  # fmt: skip
            own = folder / name
            own.mkdir()
            address = f"127.0.0.1:{free_port()}"
            flags = ["--models", REFERENCE, "--unix", own / "s", "--metrics", address, "--feedback", folder / FILE]
            line = stack.enter_context(process([*command, *flags], own))()
            assert line.startswith("ready "), line
            addresses.append(address)
        yield folder, addresses


def test_all_sidecars_show_it(pages: tuple[Path, list[str]]):
    folder, addresses = pages

    def shown() -> list[dict[tuple[str, str], float]]:
        found = []
        for address in addresses:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                found.append(samples(answer.read().decode()))
        return found

    assert shown() == [{}] * 3, "there is no file yet"
    write_summary([mark(1, Verdict.TRUE), mark(2, Verdict.TRUE), mark(3, Verdict.FALSE)], folder, NOW)
    expected = {
        ("dwcp_feedback_marks", "true"): 2, ("dwcp_feedback_marks", "false"): 1, ("dwcp_feedback_marks", "missed"): 0,
        ("dwcp_feedback_precision", ""): 2 / 3, ("dwcp_feedback_updated_timestamp_seconds", ""): NOW / 1e9,
    }  # fmt: skip
    assert shown() == [expected] * 3
    write_summary([mark(3, Verdict.MISSED)], folder, NOW)
    assert all(("dwcp_feedback_precision", "") not in found and found for found in shown()), "nothing was marked"
    for text in BAD.values():
        (folder / FILE).write_text(text)
        assert shown() == [{}] * 3, text
    (folder / FILE).unlink()
    assert shown() == [{}] * 3


@pytest.mark.parametrize("command", [[COMMAND, "serve"], [go_program.sidecar]], ids=["python", "go"])
def test_it_needs_a_page(command: list, tmp_path: Path):
    program = [part() if callable(part) else part for part in command]
    flags = ["--models", REFERENCE, "--unix", tmp_path / "s", "--feedback", tmp_path / FILE]
    done = subprocess.run([*program, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "--metrics HOST:PORT" in done.stderr


def test_the_file_is_protojson(tmp_path: Path):
    write_summary([mark(1, Verdict.TRUE)], tmp_path, NOW)
    assert json.loads((tmp_path / FILE).read_text())["true_alarms"] == 1
