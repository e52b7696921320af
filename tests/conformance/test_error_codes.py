"""Refusals that no golden vector and no single request line can cause: DETECTOR_UNAVAILABLE, BATCH_TOO_LARGE,
MODEL_SET_MISMATCH (rules E1, E2, W4)."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.client import Client
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from tests.conformance.implementations import BUILDERS, NEEDS_SERVER, RunError
from tests.conformance.server import serving
from tests.mutation.set_copy import MANIFEST, SetCopy

SECONDS = 20.0
TOO_MANY = np.zeros((16_385, 7))


@pytest.fixture(scope="module")
def forest_only(reference_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set without LSTM autoencoder."""
    copy = SetCopy(reference_set, tmp_path_factory.mktemp("forest") / "set")
    copy.edit_json(MANIFEST, lambda data: data.update(models=data["models"][:1]))
    return copy.path


@pytest.fixture(scope="module")
def servers(forest_only: Path) -> Iterator[dict[str, str]]:
    with serving(forest_only, "python") as python, serving(forest_only, "go") as go:
        yield {"python": python, "go": go}


@pytest.fixture(params=["python", "go"])
def address(request: pytest.FixtureRequest, servers: dict[str, str]) -> str:
    return servers[request.param]


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_detector_that_the_set_does_not_have(name: str, batch: int, forest_only: Path, servers, tmp_path: Path):
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    lines = [{"id": k, "detector": "lstm_autoencoder", "samples": samples} for k, samples in enumerate([[], [[1.0]]])]
    lines.append({"id": 2, "detector": "isolation_forest", "samples": []})  # this one it has: the samples are at fault
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    BUILDERS[name](forest_only, servers).run(requests, answers, len(lines), batch, 1)
    errors = [json.loads(line)["error"] for line in answers.read_text().splitlines()]
    unavailable = ("DETECTOR_UNAVAILABLE", "detector")
    assert [(e["code"], e["field"]) for e in errors] == [unavailable, unavailable, ("NO_SAMPLES", "samples")]


def test_a_batch_that_is_too_large(forest_only: Path, address: str):
    with pytest.raises(ContractError) as refusal:
        ModelSet.open(forest_only).model("isolation_forest").score_batch(TOO_MANY)
    assert (refusal.value.code, refusal.value.field) == ("BATCH_TOO_LARGE", "rows")
    with Client(address, timeout=SECONDS) as client, pytest.raises(ContractError) as refusal:
        client.score_batch("isolation_forest", TOO_MANY)
    assert (refusal.value.code, refusal.value.field) == ("BATCH_TOO_LARGE", "rows")


def test_another_model_set(address: str):
    with Client(address, timeout=SECONDS) as client, pytest.raises(ContractError) as refusal:
        client.score("isolation_forest", [[1.0] * 7], model_set_id="0" * 64)
    assert (refusal.value.code, refusal.value.field) == ("MODEL_SET_MISMATCH", "model_set_id")


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", sorted(NEEDS_SERVER))
def test_a_server_that_has_another_set(name: str, batch: int, reference_set: Path, servers, tmp_path: Path):
    """Refused before the first line (Go) or as the answer to every line (Python); never scored."""
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    requests.write_text('{"id": 1, "detector": "isolation_forest", "samples": [[1, 2, 3, 4, 5, 6, 7]]}\n')
    said = ""
    try:
        BUILDERS[name](reference_set, servers).run(requests, answers, 1, batch, 1)
    except RunError as error:
        said = str(error)
    said += answers.read_text()
    assert "MODEL_SET_MISMATCH" in said
    assert "score_bits" not in said
