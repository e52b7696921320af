"""The drift vectors are what their program writes, and the Python readers agree with them (rules DR1 to DR5)."""

import json

import numpy as np
import pytest
from google.protobuf import json_format

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.drift import Reference, Sketch
from tests.vectors import drift

FILE = json.loads(drift.FILE.read_bytes())


def reference_of(number: int) -> Reference:
    message = json_format.ParseDict(FILE["references"][number], model_pb2.DriftReference())
    names = [f"f{j}" for j in range(len(message.features))]
    found = Reference.of(model_pb2.ModelMetadata(feature_names=names, drift=message))
    assert found is not None
    return found


def test_the_file_is_what_the_program_writes():
    assert drift.FILE.read_text() == drift.text()


@pytest.mark.parametrize("case", FILE["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_python(case, pieces):
    reference = reference_of(case["reference"])
    sketch = Sketch(reference)
    for rows in np.array_split(np.array(case["rows"]), pieces):
        sketch.add(rows)
    found = reference.compare(sketch)
    assert len(found) == len(case["features"])
    for got, wanted in zip(found, case["features"], strict=True):
        for name in ("psi", "psi_critical", "wasserstein", "wasserstein_critical"):
            assert getattr(got, name) == pytest.approx(wanted[name], rel=1e-12, abs=1e-15), name
        assert got.drifted == wanted["drifted"]


def test_every_branch_is_in_the_file():
    drifted = {feature["drifted"] for case in FILE["cases"] for feature in case["features"]}
    assert drifted == {True, False}
    assert any(feature["wasserstein"] == drift.LARGEST for case in FILE["cases"] for feature in case["features"])
