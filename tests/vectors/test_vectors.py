"""Lint of the golden files: those in this folder and those of the frozen sets (rules V1 to V5)."""

from pathlib import Path

import numpy as np
import pytest

from dwcp.anomaly.v1 import errors_pb2, golden_pb2
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.golden.common import _EXTREMES
from tests.conformance.cases import DETECTORS
from tests.conformance.golden_files import code_of, read_golden
from tests.conformance.invalid import LINE_FAULTS
from tests.conformance.sets import HOME, SETS

FOLDER = Path(__file__).resolve().parent / "v1"
LARGEST_FILE = 1_000_000
SAMPLE_CODES = {"NO_SAMPLES", "TOO_MANY_SAMPLES", "WRONG_WIDTH", "NOT_FINITE"}
"""Codes of a request that samples alone can cause; an LSTM autoencoder adds WINDOW_TOO_SHORT."""

ELSEWHERE = {
    "INVALID_REQUEST": "lines of the judge",
    "UNKNOWN_DETECTOR": "lines of the judge",
    "DETECTOR_UNAVAILABLE": "tests/conformance/test_error_codes.py",
    "BATCH_TOO_LARGE": "tests/conformance/test_error_codes.py",
    "MODEL_SET_MISMATCH": "tests/conformance/test_error_codes.py",
    "UNKNOWN_SERIES": "tests/fleet_serving",
}
"""Codes of a request that no golden case can cause, because a case is samples: where they are tested."""


@pytest.fixture(params=DETECTORS)
def detector(request) -> str:
    return request.param


@pytest.fixture(params=["own", "v1"])
def file(request, detector: str) -> golden_pb2.GoldenFile:
    folder = HOME[detector] if request.param == "own" else FOLDER
    return read_golden(folder / f"{detector}.golden.json")


def test_files_are_those_expected():
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(f"{d}.golden.json" for d in DETECTORS)}
    for detector in DETECTORS:
        path = FOLDER / f"{detector}.golden.json"
        assert path.stat().st_size <= LARGEST_FILE
        assert read_golden(path).model_type == detector
        assert len(read_golden(path).cases) >= 250


def test_every_case_documents_itself(file: golden_pb2.GoldenFile):
    assert file.schema_version == 1
    ids = [case.id for case in file.cases]
    assert len(set(ids)) == len(ids) > 0
    for case in file.cases:
        assert case.id.strip("/") == case.id != ""
        assert case.comment.endswith(".")
        assert case.flags
        assert case.WhichOneof("outcome") is not None
    assert {flag for case in file.cases for flag in case.flags} == set(file.flags)
    assert all(file.flags.values())


def test_scores_and_bits_agree(file: golden_pb2.GoldenFile):
    metadata = ModelSet.open(HOME[file.model_type], self_test=False).metadata[file.model_type]
    scored = [case.score for case in file.cases if case.HasField("score")]
    assert scored
    for score in scored:
        assert int(np.float32(score.score).view(np.uint32)) == score.score_bits
        assert score.is_anomaly == (score.score > metadata.threshold)
        assert len(score.contributions) == len(score.expected) == metadata.n_features
        nothing_differs = not any(score.contributions)  # a sample that is the reference itself (SV4)
        assert nothing_differs or sum(score.contributions) == pytest.approx(1, abs=1e-6)
        assert score.HasField("depth_sum") == (file.model_type == "isolation_forest")
    assert {score.is_anomaly for score in scored} == {True, False}


def test_every_code_that_samples_can_cause_is_there(file: golden_pb2.GoldenFile):
    codes = {code_of(case.error) for case in file.cases if case.HasField("error")}
    metadata = ModelSet.open(HOME[file.model_type], self_test=False).metadata[file.model_type]
    assert codes == SAMPLE_CODES | ({"WINDOW_TOO_SHORT"} if metadata.timesteps > 1 else set())


def test_every_code_of_a_request_is_tested_somewhere():
    requests = {code_of(errors_pb2.ErrorInfo(code=n)) for n in errors_pb2.ErrorCode.values() if 0 < n < 20}
    assert requests == SAMPLE_CODES | {"WINDOW_TOO_SHORT"} | set(ELSEWHERE)
    assert {"text", "unknown_detector"} <= set(LINE_FAULTS)


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.name)
def test_the_sets_own_vectors_probe_every_metric_and_every_extreme(folder: Path):
    models = ModelSet.open(folder, self_test=False)
    for detector, metadata in models.metadata.items():
        cases = {case.id: case for case in models.golden[detector].cases}
        for j, feature in enumerate(metadata.feature_schema.features):
            for limit in ("warning", "critical"):
                values = cases[f"limit/{feature.name}/{limit}"].samples[-1].values
                assert values[j] == pytest.approx(getattr(feature, limit), rel=1e-4)  # moved by V4 at most
            for fault in ("nan", "infinity", "negative_infinity"):
                assert f"error/{fault}/{feature.name}" in cases
        for name in _EXTREMES:
            assert f"extreme/{name}/everywhere" in cases


def test_split_cases_stand_on_either_side(reference_set: Path):
    """Between `on` and `above` the path changes, for at least one split of every metric."""
    file = read_golden(reference_set / "isolation_forest.golden.json")
    sums = {case.id: case.score.depth_sum for case in file.cases if "split" in case.flags}
    pairs = [id.removesuffix("/on") for id in sums if id.endswith("/on") and id.replace("/on", "/above") in sums]
    assert all(sums[f"{pair}/on"] != sums[f"{pair}/above"] for pair in pairs)
    names = ModelSet.open(reference_set, self_test=False).metadata["isolation_forest"].feature_names
    assert {pair.split("/")[1] for pair in pairs} == set(names)
