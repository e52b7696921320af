"""Sets with drift references, made from the frozen ones, which are older than those."""

import functools
import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from dwcp_training.data import Telemetry, forest_rows
from dwcp_training.drift_reference import describe
from tests.conformance.edited_set import with_metadata

ROWS = 2000
"""Training rows of the references."""


@functools.cache
def training_rows() -> Telemetry:
    """The rows that the references are made of."""
    return forest_rows(ROWS, seed=7)


@functools.cache
def _reference() -> str:
    described = describe(training_rows(), seed=7)
    assert described.reference is not None
    return json_format.MessageToJson(described.reference.message(), preserving_proto_field_name=True)


def drift_json() -> Any:
    """A sound reference as it stands in the metadata, anew for each caller."""
    return json.loads(_reference())


def with_drift(models: Path, to: Path) -> Path:
    """A copy of a set of the seven metrics in which every model but an ensemble has the reference."""

    def change(metadata: dict[str, Any]) -> None:
        if metadata["model_type"] != "ensemble":
            metadata["drift"] = drift_json()

    return with_metadata(models, to, change)
