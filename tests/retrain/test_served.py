"""Both sidecars serve a release within seconds after it was promoted or gone back to, with no restart."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from dwcp_sidecar.client import Client
from tests.conformance import go_program
from tests.retrain.conftest import Bench
from tests.sidecar.conftest import serving
from tests.training.test_cli import invoke

WAIT = 20
ROW = [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]


@pytest.mark.parametrize("language", ["python", pytest.param("go", marks=pytest.mark.slow)])
def test_promotion_and_rollback_reach_the_sidecar(language: str, bench: Bench, tmp_path: Path) -> None:
    start = functools.partial(serving, command=(go_program.sidecar(),)) if language == "go" else serving
    first = bench.current
    with (
        start("--listen", "127.0.0.1:0", "--watch", "0.1", models=bench.models) as server,
        Client(server.address, timeout=WAIT) as client,
    ):

        def served() -> tuple[str, float]:
            answer = client.score("isolation_forest", [ROW])
            return answer.model_set_id[:16], answer.verdict.score

        def wait_for(release: str) -> float:
            end = time.monotonic() + WAIT
            while True:
                found, score = served()
                if found == release:
                    return score
                assert time.monotonic() < end, f"{found} is served, {release} is current"
                time.sleep(0.05)

        before = wait_for(first)
        assert bench.retrain("--data", bench.data(2)).exit_code == 0
        second = bench.current
        assert second != first
        assert wait_for(second) != before
        assert invoke("releases", "rollback", "--models", bench.models).exit_code == 0
        assert wait_for(first) == before, "the same score, to the last bit"
        assert invoke("releases", "promote", second, "--models", bench.models).exit_code == 0
        wait_for(second)
        assert server.stop() == 0
