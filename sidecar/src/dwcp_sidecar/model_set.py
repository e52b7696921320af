"""Opens a model set: parse, check digests, audit, construct, run the golden vectors (rules A1 to A8)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.audit import audit_graph, audit_members, audit_metadata, check_version
from dwcp_sidecar.ensemble import ABSENT, Ensemble
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.golden import audit_golden, require_golden
from dwcp_sidecar.model import Model
from dwcp_sidecar.onnx_file import OnnxFile
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.signatures import SIGNATURE, PublicKeys

MANIFEST = "manifest.json"
_AGAIN = "Publish the set again."

T = TypeVar("T")


class ModelSet:
    """An open, verified model set.

    Example:
        >>> models = ModelSet.open("models/reference/v1")          # doctest: +SKIP
        >>> verdicts = models.model("isolation_forest").score([[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]])
        >>> verdicts.scores[0], verdicts.is_anomaly[0]             # doctest: +SKIP

    Attributes:
        id: SHA-256 of the manifest (A1).
        path: the resolved folder.
        models: detector name to model, those that can be scored.
        metadata: detector name to metadata, all models of the set.
        golden: detector name to golden vectors, those of `models`.
    """

    def __init__(
        self,
        id: str,
        path: Path,
        models: dict[str, Scorer],
        metadata: dict[str, model_pb2.ModelMetadata],
        golden: dict[str, golden_pb2.GoldenFile],
    ) -> None:
        self.id = id
        self.path = path
        self.models: Mapping[str, Scorer] = MappingProxyType(models)
        self.metadata: Mapping[str, model_pb2.ModelMetadata] = MappingProxyType(metadata)
        self.golden: Mapping[str, golden_pb2.GoldenFile] = MappingProxyType(golden)

    @classmethod
    def open(
        cls, path: str | Path, *, threads: int = 1, self_test: bool = True, public_keys: PublicKeys | None = None
    ) -> "ModelSet":
        """Opens the model set in a folder.

        Args:
            path: folder with `manifest.json`, for example `models`, `models/current` or `models/reference/v1`.
            threads: ONNX Runtime threads per model; scores do not depend on it.
            self_test: run the golden vectors. Left out only where a caller runs them itself.
            public_keys: accept only a set that one of these has signed (A8); None accepts any.

        Raises:
            ContractError: MANIFEST_MISSING, SIGNATURE_MISSING, SIGNATURE_INVALID, METADATA_INVALID,
                SCHEMA_FROM_FUTURE, FILE_MISSING, DIGEST_MISMATCH, GRAPH_INVALID or GOLDEN_MISMATCH; nothing stays open.
        """
        folder = resolve(Path(path))
        raw = _signed_manifest(folder, public_keys)
        manifest = protojson.parse(raw, model_pb2.Manifest(), MANIFEST)
        contents = _check_files(folder, manifest)
        models: dict[str, Scorer] = {}
        metadatas, goldens = {}, {}
        for entry in _ensemble_last(manifest):
            metadata = protojson.parse(contents[entry.metadata], model_pb2.ModelMetadata(), entry.metadata)
            audit_metadata(metadata, entry.metadata)
            if detectors.NAMES[entry.detector] != metadata.model_type or metadata.graph.file != entry.graph:
                raise ContractError(
                    "METADATA_INVALID", entry.metadata, f"it and {MANIFEST} name different models or graphs. {_AGAIN}"
                )
            metadatas[metadata.model_type] = metadata
            if not entry.golden:
                continue
            model: Scorer | None
            if entry.detector == model_pb2.DETECTOR_ENSEMBLE:
                audit_members(metadata, metadatas, entry.metadata)
                model = _joined(metadata, models, metadatas)
            else:
                audit_graph(metadata, OnnxFile.parse(contents[entry.graph], entry.graph))
                model = Model(metadata, contents[entry.graph], threads)
            golden = protojson.parse(contents[entry.golden], golden_pb2.GoldenFile(), entry.golden)
            check_version(golden.schema_version, entry.golden)
            audit_golden(golden, metadata.model_type, entry.golden)
            if model is not None:
                models[model.name], goldens[model.name] = model, golden
        metadatas, models, goldens = (_in_order(found) for found in (metadatas, models, goldens))
        if self_test:
            files = {detectors.NAMES[entry.detector]: entry.golden for entry in manifest.models}
            for name, model in models.items():
                require_golden(goldens[name], model, files[name])
        names = [detectors.NAMES[entry.detector] for entry in manifest.models]  # in the order of the enum
        models, metadatas, goldens = (
            {name: parts[name] for name in names if name in parts} for parts in (models, metadatas, goldens)
        )
        return cls(hashlib.sha256(raw).hexdigest(), folder, models, metadatas, goldens)

    def model(self, name: str) -> Scorer:
        """The model of a detector.

        Raises:
            ContractError: UNKNOWN_DETECTOR or DETECTOR_UNAVAILABLE (E2).
        """
        if name in self.models:
            return self.models[name]
        if name not in detectors.BY_NAME:
            raise ContractError(
                "UNKNOWN_DETECTOR", "detector", f"{name!r} is no detector; there are {', '.join(detectors.BY_NAME)}"
            )
        raise ContractError(
            "DETECTOR_UNAVAILABLE",
            "detector",
            f"{name} cannot be scored with this model set ({self.why_not(name)}); "
            f"it has {', '.join(self.models) or 'none'}",
        )

    def why_not(self, name: str) -> str:
        """Why a detector that is not among `models` cannot be scored."""
        return _why_not(name, self.metadata)


def _ensemble_last(manifest: model_pb2.Manifest) -> list[model_pb2.ModelEntry]:
    """The models of a set in an order in which they can be opened: an ensemble joins others, whatever their numbers."""
    return sorted(manifest.models, key=lambda entry: entry.detector == model_pb2.DETECTOR_ENSEMBLE)


def _in_order(found: Mapping[str, T]) -> dict[str, T]:
    """What was found by detector, in the order of the enum, as the manifest has it."""
    return {name: found[name] for name in detectors.BY_NAME if name in found}


def _joined(
    metadata: model_pb2.ModelMetadata,
    models: Mapping[str, Scorer],
    metadatas: Mapping[str, model_pb2.ModelMetadata],
) -> Ensemble | None:
    """The ensemble of the models opened so far, or None when it has none of its members (EN6)."""
    names = [detectors.NAMES[member.detector] for member in metadata.ensemble.members]
    reasons = {name: _why_not(name, metadatas) for name in names if name not in models}
    return None if len(reasons) == len(names) else Ensemble(metadata, models, reasons)


def _why_not(name: str, metadatas: Mapping[str, model_pb2.ModelMetadata]) -> str:
    """Why a detector cannot be scored with a set."""
    if name not in metadatas:
        return ABSENT
    metadata = metadatas[name]
    if metadata.HasField("ensemble"):
        members = [detectors.NAMES[member.detector] for member in metadata.ensemble.members]
        reasons = "; ".join(f"{member}: {_why_not(member, metadatas)}" for member in members)
        return f"none of its members can be scored: {reasons}"
    return metadata.graph.unavailable_reason


def resolve(path: Path) -> Path:
    """The folder that holds a set's files: where `manifest.json` really is (A6).

    Raises:
        ContractError: MANIFEST_MISSING naming the folder and the remedy; FILE_MISSING when the system lets nobody look;
            DIGEST_MISMATCH when a released file was replaced.
    """
    try:
        return _resolve(path)
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}. Give this user the right to read it."
        raise ContractError("FILE_MISSING", MANIFEST, what) from None


def _resolve(path: Path) -> Path:
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise ContractError(
            "MANIFEST_MISSING",
            MANIFEST,
            f"{path} is no model set: it has no {MANIFEST}. Train one with `make train-synthetic`, or name its folder.",
        )
    folder = manifest.resolve().parent
    if folder != path.resolve():
        # A signature is read beside the manifest alone; what stands under its name elsewhere is not looked at (A8).
        files = [file for file in folder.iterdir() if file.name != SIGNATURE]
        strangers = [f.name for f in files if (path / f.name).exists() and not (path / f.name).samefile(f)]
        if strangers:
            raise ContractError(
                "DIGEST_MISMATCH",
                strangers[0],
                f"{path / strangers[0]} was put in the place of the released file. "
                "Publish a new set instead of replacing single files.",
            )
    return folder


def verify(path: Path, public_keys: PublicKeys | None = None) -> str:
    """The id of the set in a folder (A1), signature and all digests checked. What has the id of an open set is that
    set, still whole.

    Raises:
        ContractError: as `ModelSet.open` for the manifest, its signature and the bytes of the files.
    """
    folder = resolve(path)
    raw = _signed_manifest(folder, public_keys)
    _check_files(folder, protojson.parse(raw, model_pb2.Manifest(), MANIFEST))
    return hashlib.sha256(raw).hexdigest()


def identify(path: Path, public_keys: PublicKeys | None = None) -> str:
    """The id of the set in a folder (A1), without opening it; the signature is checked where keys are given (A8).

    Raises:
        ContractError: MANIFEST_MISSING, SIGNATURE_MISSING or SIGNATURE_INVALID, or DIGEST_MISMATCH where a released
            file was replaced (A6).
    """
    return hashlib.sha256(_signed_manifest(resolve(path), public_keys)).hexdigest()


def _signed_manifest(folder: Path, public_keys: PublicKeys | None) -> bytes:
    """Bytes of the manifest, its signature checked before anybody parses it (A8)."""
    raw = _read(folder, MANIFEST)
    if public_keys is not None:
        public_keys.check(folder, raw)
    return raw


def _check_files(folder: Path, manifest: model_pb2.Manifest) -> dict[str, bytes]:
    """Contents of the SERVING files, all digests checked (A5)."""
    check_version(manifest.schema_version, MANIFEST)
    contents = {}
    for entry in manifest.files:
        if Path(entry.path).name != entry.path or entry.path in ("", ".", "..") or "\0" in entry.path:
            raise ContractError("METADATA_INVALID", MANIFEST, f"{entry.path!r} is not a plain file name. {_AGAIN}")
        if entry.role == model_pb2.FILE_ROLE_BYPRODUCT and not (folder / entry.path).exists():
            continue
        data = _read(folder, entry.path)
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != entry.size or digest != entry.sha256:
            raise ContractError(
                "DIGEST_MISMATCH",
                entry.path,
                f"{entry.path} has {len(data)} bytes with SHA-256 {digest[:12]}..., {MANIFEST} says {entry.size} bytes "
                f"with {entry.sha256[:12]}.... Copy the whole set again.",
            )
        if entry.role == model_pb2.FILE_ROLE_SERVING:
            contents[entry.path] = data
    if not manifest.models:
        raise ContractError("METADATA_INVALID", MANIFEST, f"{MANIFEST} names no models. Publish the set again.")
    last = 0
    for model in manifest.models:
        if model.detector not in detectors.NAMES or model.detector <= last:
            what = f"detector {model.detector} is unknown, there twice or out of order"
            raise ContractError("METADATA_INVALID", MANIFEST, f"{what}. {_AGAIN}")
        last = model.detector
        alone = model.detector == model_pb2.DETECTOR_ENSEMBLE  # its golden vectors are run without a graph (EN7)
        if bool(model.golden) != (bool(model.graph) or alone) or (alone and model.graph):
            what = f"{detectors.NAMES[model.detector]} has a graph without golden vectors, or the reverse"
            raise ContractError("METADATA_INVALID", MANIFEST, f"{what}. {_AGAIN}")
        for name in [model.metadata, *filter(None, (model.graph, model.golden))]:
            if name not in contents:
                what = f"it does not list {name!r} as a SERVING file"
                raise ContractError("METADATA_INVALID", MANIFEST, f"{what}. {_AGAIN}")
    return contents


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ContractError(
            "FILE_MISSING", name, f"{name} cannot be read: {error.strerror}. Copy the whole set again."
        ) from None
