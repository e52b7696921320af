"""The handbook names every flag with its true default."""

import re
import subprocess
from pathlib import Path

import pytest

from dwcp_sidecar.cli import main
from tests.deploy.tools import ROOT

HANDBOOK = (ROOT / "docs/operations.md").read_text()
PYTHON_ALONE = {"--workers", "--workers-threads", "--traces"}


def table() -> dict[str, tuple[str, str]]:
    """Flags of the handbook: default and explanation."""
    rows = re.findall(r"^\| (`--[^|]*) \|([^|]*)\|([^|]*)\|$", HANDBOOK, re.M)
    return {
        flag: (default.strip(), text.strip())
        for flags, default, text in rows
        for flag in re.findall(r"--[\w-]+", flags)
    }


def python_flags(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Flags of `dwcp-sidecar serve` and what its help says of each."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    return split(capsys.readouterr().out, r"^  (--[\w-]+)")


def split(text: str, pattern: str) -> dict[str, str]:
    parts = re.split(pattern, text, flags=re.M)[1:]
    return {flag: " ".join(rest.split()) for flag, rest in zip(parts[::2], parts[1::2], strict=True)}


def test_flags_of_the_python_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    flags = python_flags(capsys)
    assert flags.keys() == table().keys()
    for flag, text in flags.items():
        check(flag, text, table()[flag][0])


def test_flags_of_the_go_sidecar(go_sidecar: Path) -> None:
    done = subprocess.run([go_sidecar, "--help"], capture_output=True, text=True, timeout=60)
    flags = {f"-{flag}": text for flag, text in split(done.stdout.partition("Flags:")[2], r"^  (-[\w-]+)").items()}
    assert flags.keys() == table().keys() - PYTHON_ALONE
    for flag, text in flags.items():
        check(flag, text, table()[flag][0].partition("Go ")[2] or table()[flag][0])


def test_flags_of_one_sidecar_alone_say_so() -> None:
    alone = {flag for flag, (_, text) in table().items() if text.startswith("Python alone")}
    assert alone == PYTHON_ALONE


def check(flag: str, help: str, stated: str) -> None:
    """Holds a number in the help's `(default: 5.0)` or `(default 5)` against the handbook."""
    default = re.search(r"\(default:? ([\d.]+)\)", help)
    number = re.match(r"[\d.]+(?![\d.]*:)", stated)
    assert bool(default) == bool(number), f"{flag}: {help!r}, {stated!r}"
    if default and number:
        assert float(default[1]) == float(number[0]), flag
