"""`fleet.json` and the sets beside it: written whole, checked as a reader does (rules FL1, FL6)."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from dwcp.anomaly.v1 import features_pb2, fleet_pb2, model_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet_index import INDEX, SETS, check_index
from dwcp_sidecar.model_set import MANIFEST, ModelSet, verify
from dwcp_training.data.writers import whole_file
from dwcp_training.publish import ID_DIGITS, Candidate, Signer, set_files


def set_path(fleet: Path, set_id: str) -> Path:
    """The folder of a set."""
    return fleet / SETS / set_id[:ID_DIGITS]


def put_set(fleet: Path, candidates: list[Candidate], signer: Signer | None = None) -> str:
    """Writes a set aside, opens it as a reader would, golden vectors and all, and puts it among the sets (A2).

    A set that is there already stays. Several processes may do this at once.

    Returns:
        Its id.

    Raises:
        ContractError: the set does not pass its own verification.
        OSError: the folder cannot be written.
    """
    files = set_files(candidates, signer)
    set_id = hashlib.sha256(files[MANIFEST]).hexdigest()
    target = set_path(fleet, set_id)
    if has_set(fleet, set_id) and (signer is None or _is_signed(target, signer)):
        return set_id
    aside = target.with_name(f".writing-{target.name}-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            with (aside / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        ModelSet.open(aside, public_keys=None if signer is None else signer.public_keys)
        shutil.rmtree(target, ignore_errors=True)  # damaged, or without this signature
        try:
            aside.rename(target)
        except OSError:  # another process has put the same set there meanwhile
            if not has_set(fleet, set_id):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return set_id


def has_set(fleet: Path, set_id: str) -> bool:
    """Whether a set is there with this id, all files with the bytes that its manifest says."""
    try:
        return verify(set_path(fleet, set_id)) == set_id
    except ContractError:
        return False


def _is_signed(folder: Path, signer: Signer) -> bool:
    try:
        signer.public_keys.check(folder, (folder / MANIFEST).read_bytes())
    except (ContractError, OSError):
        return False
    return True


def features_of_set(fleet: Path, set_id: str) -> features_pb2.FeatureSchema:
    """The metrics of a set."""
    folder = set_path(fleet, set_id)
    manifest = protojson.parse((folder / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
    name = manifest.models[0].metadata
    return protojson.parse((folder / name).read_bytes(), model_pb2.ModelMetadata(), name).feature_schema


def write_index(fleet: Path, index: fleet_pb2.FleetIndex) -> str:
    """Writes `fleet.json` in the place of the one before, in one rename; the fleet's id.

    Raises:
        ContractError: METADATA_INVALID, no reader would take it (FL6).
    """
    check_index(index)
    data = protojson.dumps(index).encode()
    with whole_file(fleet / INDEX) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def set_ids(index: fleet_pb2.FleetIndex) -> set[str]:
    """Ids of all sets that an index names."""
    return {series.model_set_id for series in index.series} | ({index.global_set_id} - {""})


def clear_leftovers(fleet: Path) -> None:
    """Removes what writers that were killed have left. Called while no other is at work."""
    for path in [*(fleet / SETS).glob(".writing-*")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in fleet.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def prune_sets(fleet: Path, kept: Iterable[fleet_pb2.FleetIndex]) -> Sequence[str]:
    """Removes the sets that none of these indexes names; names of those removed."""
    named = {set_id[:ID_DIGITS] for index in kept for set_id in set_ids(index)}
    others = [path for path in sorted((fleet / SETS).iterdir()) if path.name not in named and path.name[0] != "."]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in others]
