"""The Python half of the cases of rule M4; the Go half is `go-contract/internal/server/alarm_budget_test.go`."""

import json

import pytest
from google.protobuf import json_format

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.alarm_budget import SECONDS, trained_share
from dwcp_training.alarm_budget import AlarmBudget
from tests.vectors.alarm_budget import PATH, text

CASES = json.loads(PATH.read_text())["cases"]


def test_the_file_is_what_the_program_writes():
    assert PATH.read_text() == text(), "run python -m tests.vectors.alarm_budget"
    assert len({case["id"] for case in CASES}) == len(CASES) > 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_share(case):
    metadata = json_format.ParseDict(case["metadata"], model_pb2.ModelMetadata())
    assert trained_share(metadata) == case["share"]


@pytest.mark.parametrize("alarms", [0.1, 1e-7, 3, 1 / 3, 12.5])
@pytest.mark.parametrize("per", SECONDS)
def test_what_training_writes_is_read(alarms, per):
    """A budget as it stands in the training record gives the share that the threshold was made for."""
    budget = AlarmBudget.parse(str(AlarmBudget(alarms, per)))
    metadata = model_pb2.ModelMetadata(cadence_seconds=60)
    metadata.training.hyperparameters["alarm_budget"] = str(budget)
    assert trained_share(metadata) == budget.share(60.0)
