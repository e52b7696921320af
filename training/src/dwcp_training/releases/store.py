"""What is in a model folder: its releases, read without running them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import MANIFEST, identify
from dwcp_training.console import RefusedError
from dwcp_training.releases.history import (
    RELEASES,
    current_release,
    previous_release,
    read_history,
    releases_by_age,
)

CANDIDATE = "candidate"
"""What commands call the challenger of the last retraining that did not become a release."""

WORK = ".retrain"
"""Folder of a model folder that retraining works in."""


@dataclass(frozen=True)
class Release:
    """A model set of a folder.

    Attributes:
        name: of its folder: the first 16 digits of its id; `candidate` for what is no release.
        folder: where it is.
        id: of the set (A1); empty when it is damaged.
        published: when it was written.
        size: bytes of its files, by-products too.
        state: `current`, `previous` or empty.
        metadata: detector to metadata, in the order of the manifest.
        fault: why it cannot be read; empty for a whole one.
    """

    name: str
    folder: Path
    id: str
    published: datetime
    size: int
    state: str
    metadata: dict[str, model_pb2.ModelMetadata] = field(default_factory=dict)
    fault: str = ""


def releases_of(models: Path) -> list[Release]:
    """All releases, newest first.

    Raises:
        RefusedError: the folder has none.
    """
    current, previous = current_release(models), previous_release(models)
    states = {previous: "previous", current: "current"}
    names = releases_by_age(models)
    if not names:
        raise RefusedError(
            f"{models} has no releases: dwcp train and dwcp retrain make them in the folder that they publish to."
        )
    return [_read(name, models / RELEASES / name, states.get(name, "")) for name in names]


def find_release(models: Path, text: str) -> Release:
    """The release that a text means: its name or the beginning of it, `current`, `previous` or `candidate`.

    Raises:
        RefusedError: it means none, or several.
    """
    if text == CANDIDATE:
        candidate = models / WORK / "challenger"
        if not (candidate / MANIFEST).is_file():
            raise RefusedError(f"{models} has no candidate: the last retraining left none.")
        return _read(CANDIDATE, candidate.resolve() / "current", "")
    releases = releases_of(models)
    found = [entry for entry in releases if text == entry.state or text == entry.name]
    found = found or [entry for entry in releases if text and entry.name.startswith(text)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} releases begin with {text!r}" if found else f"{models} has no release {text!r}"
    raise RefusedError(f"{what}. There are: {', '.join(entry.name for entry in releases)}.")


def rollback_target(models: Path) -> Release:
    """The release that was current before the current one.

    Raises:
        RefusedError: there is none.
    """
    name = previous_release(models)
    if not name:
        raise RefusedError(f"{models} has no release to go back to: {current_release(models) or 'none'} is all it has.")
    return find_release(models, name)


def since_when(models: Path, name: str) -> str:
    """When a release last became current, RFC 3339, as far as the history knows."""
    return next((switch.at for switch in reversed(read_history(models)) if switch.release == name), "")


def _read(name: str, folder: Path, state: str) -> Release:
    files = [path for path in folder.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    published = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    try:
        manifest = protojson.parse((folder / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
        metadata = {
            detectors.NAMES[entry.detector]: protojson.parse(
                (folder / entry.metadata).read_bytes(), model_pb2.ModelMetadata(), entry.metadata
            )
            for entry in manifest.models
        }
        return Release(name, folder, identify(folder), published, size, state, metadata)
    except (ContractError, OSError, KeyError) as error:
        return Release(name, folder, "", published, size, state, fault=str(error))
