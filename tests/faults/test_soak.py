"""Twenty seconds of the soak; `make soak` gives it ten minutes."""

import pytest

from tests.faults.endpoint import COMMANDS
from tests.faults.soak import soak


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "go" else (pytest.mark.slow,)) for kind in COMMANDS]
)
def test_soak(kind):
    said: list[str] = []
    assert soak(kind, 6, every=0.5, say=said.append) == [], said
