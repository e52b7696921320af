"""A few seconds of each fuzz target; `make fuzz` gives each a minute."""

import re
import subprocess
import sys

import pytest

from tests.fuzz import targets

SECONDS = 1


OFTEN = ("requests", "artifacts")
"""Targets of `make test`; the others, which share most of their code, are in `make test-slow`."""


@pytest.mark.parametrize(
    "target",
    [pytest.param(name, marks=() if name in OFTEN else (pytest.mark.slow,)) for name in vars(targets.TARGETS)],
)
def test_nothing_is_found(target):
    command = [sys.executable, "-m", "tests.fuzz.targets", target, "--seconds", str(SECONDS), "--seed", "1"]
    done = subprocess.run(command, cwd=targets.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    runs = int(re.search(r"Done (\d+) runs", done.stderr).group(1))
    assert runs > 100, "too few inputs to mean anything"


def test_a_leak_would_be_found():
    with pytest.raises(AssertionError, match="Traceback"):
        targets._tells_nothing(b"Traceback (most recent call last)")
    with pytest.raises(AssertionError):
        targets._tells_nothing(f"cannot read {targets.ROOT}/models")
