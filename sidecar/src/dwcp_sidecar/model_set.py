"""Opens a model set: parse, check digests, audit, construct, run the golden vectors (rules A1 to A7)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.audit import audit_graph, audit_metadata, check_version
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.golden import audit_golden, require_golden
from dwcp_sidecar.model import Model
from dwcp_sidecar.onnx_file import OnnxFile

MANIFEST = "manifest.json"
_AGAIN = "Publish the set again."


class ModelSet:
    """An open, verified model set.

    Example:
        >>> models = ModelSet.open("models/reference/v1")          # doctest: +SKIP
        >>> verdicts = models.model("isolation_forest").score([[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]])
        >>> verdicts.scores[0], verdicts.is_anomaly[0]             # doctest: +SKIP

    Attributes:
        id: SHA-256 of the manifest (A1).
        path: the resolved folder.
        models: detector name to model, those with a graph.
        metadata: detector name to metadata, all models of the set.
        golden: detector name to golden vectors, those with a graph.
    """

    def __init__(
        self,
        id: str,
        path: Path,
        models: dict[str, Model],
        metadata: dict[str, model_pb2.ModelMetadata],
        golden: dict[str, golden_pb2.GoldenFile],
    ) -> None:
        self.id = id
        self.path = path
        self.models: Mapping[str, Model] = MappingProxyType(models)
        self.metadata: Mapping[str, model_pb2.ModelMetadata] = MappingProxyType(metadata)
        self.golden: Mapping[str, golden_pb2.GoldenFile] = MappingProxyType(golden)

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 1, self_test: bool = True) -> "ModelSet":
        """Opens the model set in a folder.

        Args:
            path: folder with `manifest.json`, for example `models`, `models/current` or `models/reference/v1`.
            threads: ONNX Runtime threads per model; scores do not depend on it.
            self_test: run the golden vectors. Left out only where a caller runs them itself.

        Raises:
            ContractError: MANIFEST_MISSING, METADATA_INVALID, SCHEMA_FROM_FUTURE, FILE_MISSING, DIGEST_MISMATCH,
                GRAPH_INVALID or GOLDEN_MISMATCH; nothing stays open.
        """
        folder = resolve(Path(path))
        raw = _read(folder, MANIFEST)
        manifest = protojson.parse(raw, model_pb2.Manifest(), MANIFEST)
        contents = _check_files(folder, manifest)
        models, metadatas, goldens = {}, {}, {}
        for entry in manifest.models:
            metadata = protojson.parse(contents[entry.metadata], model_pb2.ModelMetadata(), entry.metadata)
            audit_metadata(metadata, entry.metadata)
            if detectors.NAMES[entry.detector] != metadata.model_type or metadata.graph.file != entry.graph:
                raise ContractError(
                    "METADATA_INVALID", entry.metadata, f"it and {MANIFEST} name different models or graphs. {_AGAIN}"
                )
            metadatas[metadata.model_type] = metadata
            if not metadata.graph.available:
                continue
            audit_graph(metadata, OnnxFile.parse(contents[entry.graph], entry.graph))
            model = Model(metadata, contents[entry.graph], threads)
            golden = protojson.parse(contents[entry.golden], golden_pb2.GoldenFile(), entry.golden)
            check_version(golden.schema_version, entry.golden)
            audit_golden(golden, model.name, entry.golden)
            if self_test:
                require_golden(golden, model, entry.golden)
            models[model.name], goldens[model.name] = model, golden
        return cls(hashlib.sha256(raw).hexdigest(), folder, models, metadatas, goldens)

    def model(self, name: str) -> Model:
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
        reason = self.metadata[name].graph.unavailable_reason if name in self.metadata else "it was not trained"
        raise ContractError(
            "DETECTOR_UNAVAILABLE",
            "detector",
            f"{name} cannot be scored with this model set ({reason}); it has {', '.join(self.models) or 'none'}",
        )


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
        strangers = [f.name for f in folder.iterdir() if (path / f.name).exists() and not (path / f.name).samefile(f)]
        if strangers:
            raise ContractError(
                "DIGEST_MISMATCH",
                strangers[0],
                f"{path / strangers[0]} was put in the place of the released file. "
                "Publish a new set instead of replacing single files.",
            )
    return folder


def verify(path: Path) -> str:
    """The id of the set in a folder (A1), all digests checked. What has the id of an open set is that set, still whole.

    Raises:
        ContractError: as `ModelSet.open` for the manifest and the bytes of the files.
    """
    folder = resolve(path)
    raw = _read(folder, MANIFEST)
    _check_files(folder, protojson.parse(raw, model_pb2.Manifest(), MANIFEST))
    return hashlib.sha256(raw).hexdigest()


def identify(path: Path) -> str:
    """The id of the set in a folder (A1), without opening it.

    Raises:
        ContractError: MANIFEST_MISSING, or DIGEST_MISMATCH where a released file was replaced (A6).
    """
    return hashlib.sha256(_read(resolve(path), MANIFEST)).hexdigest()


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
    seen = set()
    for model in manifest.models:
        if model.detector not in detectors.NAMES or model.detector in seen:
            what = f"detector {model.detector} is unknown or there twice"
            raise ContractError("METADATA_INVALID", MANIFEST, f"{what}. {_AGAIN}")
        seen.add(model.detector)
        for name in [model.metadata] + ([model.graph, model.golden] if model.graph else []):
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
