"""Sets with drift references, made from the frozen ones, which are older than those."""

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from dwcp_training.data import Telemetry, forest_rows
from dwcp_training.drift_reference import describe

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
    shutil.copytree(models, to)
    manifest = json.loads((to / "manifest.json").read_bytes())
    for entry in manifest["files"]:
        path = to / entry["path"]
        if entry["path"].endswith("metadata.json"):
            metadata = json.loads(path.read_bytes())
            if metadata["model_type"] != "ensemble":
                path.write_text(json.dumps({**metadata, "drift": drift_json()}))
                data = path.read_bytes()
                entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (to / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return to
