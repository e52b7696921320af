"""Good model sets that differ from a frozen one in their metadata."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def with_metadata(models: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a set in which `change` was made to the metadata of each model, with digests to match."""
    shutil.copytree(models, to)
    manifest = json.loads((to / "manifest.json").read_bytes())
    for entry in manifest["files"]:
        if entry["path"].endswith("metadata.json"):
            path = to / entry["path"]
            metadata = json.loads(path.read_bytes())
            change(metadata)
            data = json.dumps(metadata).encode()
            path.write_bytes(data)
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to
