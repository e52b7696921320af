"""Publishes model sets: written aside, verified as a reader would, switched in one rename (rules A1, A2, A6, A8)."""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.drift import Reference
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import MANIFEST, ModelSet, resolve
from dwcp_sidecar.signatures import SIGNATURE, PublicKeys
from dwcp_training.data.writers import whole_file
from dwcp_training.drift_reference import BY_PRODUCT, as_arrays
from dwcp_training.releases.history import (
    CURRENT,
    HISTORY,
    RELEASES,
    current_release,
    previous_release,
    record_switch,
    releases_by_age,
)

log = logging.getLogger("dwcp.training")

ID_DIGITS = 16
KEPT_RELEASES = 5


class PublishError(RuntimeError):
    """The output cannot be written; the message says what to do."""


class Signer(Protocol):
    """Signs manifests (A8)."""

    @property
    def public_keys(self) -> PublicKeys:
        """What its signatures are checked with."""
        ...

    def sign(self, manifest: bytes) -> bytes:
        """The signature of a manifest's bytes."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One model to publish.

    Attributes:
        detector: its name.
        metadata_file: name of its metadata file.
        metadata: the metadata; `graph.file` names the graph, if there is one.
        graph: bytes of the graph, or None when there is none.
        golden: golden vectors, or None for a model that cannot be scored.
        byproducts: file name to bytes.
    """

    detector: str
    metadata_file: str
    metadata: model_pb2.ModelMetadata
    graph: bytes | None
    golden: golden_pb2.GoldenFile | None
    byproducts: Mapping[str, bytes]

    @property
    def golden_file(self) -> str:
        return f"{self.detector}.golden.json" if self.golden else ""

    def entry(self) -> model_pb2.ModelEntry:
        """What the manifest says about it."""
        return model_pb2.ModelEntry(
            detector=detectors.BY_NAME[self.detector],
            metadata=self.metadata_file,
            graph=self.metadata.graph.file,
            golden=self.golden_file,
        )

    def serving_files(self) -> dict[str, bytes]:
        """File name to bytes of what is needed to serve."""
        files = {self.metadata_file: protojson.dumps(self.metadata).encode()}
        if self.golden is not None:
            files[self.golden_file] = protojson.dumps(self.golden).encode()
        if self.graph is not None:
            files[self.metadata.graph.file] = self.graph
        return files


def set_files(candidates: list[Candidate], signer: Signer | None = None) -> dict[str, bytes]:
    """File name to bytes of a set of these models alone, without by-products, with its manifest, and its signature
    where there is a signer (A1, A8)."""
    serving: dict[str, bytes] = {}
    for candidate in candidates:
        serving |= candidate.serving_files()
    manifest = protojson.dumps(
        _manifest({candidate.detector: candidate.entry() for candidate in candidates}, serving, {})
    ).encode()
    files = {**serving, MANIFEST: manifest}
    if signer is not None:
        files[SIGNATURE] = signer.sign(manifest)
    return files


def candidate_of(models: ModelSet, detector: str) -> Candidate:
    """What was published of a detector, to be published again beside others."""
    folder = models.path
    manifest = protojson.parse((folder / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
    (entry,) = [entry for entry in manifest.models if detectors.NAMES[entry.detector] == detector]
    return Candidate(
        detector=detector,
        metadata_file=entry.metadata,
        metadata=models.metadata[detector],
        graph=(folder / entry.graph).read_bytes() if entry.graph else None,
        golden=models.golden.get(detector),
        byproducts={name: (folder / name).read_bytes() for name in BYPRODUCTS[detector] if (folder / name).is_file()},
    )


def check_writable(output: Path, flag: str = "--output") -> None:
    """Tries to write where the output will be, and leaves nothing there; called before anything is trained.

    Raises:
        PublishError: when nothing can be written there.
    """
    folder = output.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # a writer at work clears what it takes for leftovers
    except OSError as error:
        raise PublishError(
            f"{flag} {output}: cannot be written ({error.strerror}). Name a folder that you may write to."
        ) from None


def publish(output: Path, candidates: list[Candidate], signer: Signer | None = None) -> ModelSet:
    """Publishes models into a folder, beside the models of other detectors that are already there.

    Args:
        signer: signs the set (A8), with all models in it; None leaves it unsigned.

    Returns:
        The published set, opened and verified.

    Raises:
        PublishError: when the folder cannot be written.
        ContractError: when the set does not pass its own verification; the set in use stays.
    """
    with _writing(output):
        return _publish(output, candidates, signer)


def publish_set(
    output: Path,
    folder: Path,
    by: str,
    keep: int = KEPT_RELEASES,
    flag: str = "--output",
    replaces: str | None = None,
    signer: Signer | None = None,
) -> ModelSet:
    """Publishes a whole set that is in another folder: no model of the set in use is kept beside its own.

    Args:
        output: folder of the model set.
        folder: of the other set.
        by: what the history says about who did it.
        keep: releases to keep, as of `prune`.
        flag: names `output` in messages.
        replaces: name of the release that must be current still, empty for none; None for any.
        signer: signs the set (A8); None takes the signature along that it has, if it has one.

    Raises:
        PublishError: when the folder cannot be written, or another release became current meanwhile.
        ContractError: as of `publish`.
    """
    with _writing(output, flag):
        if replaces not in (None, current_release(output)):
            raise PublishError(
                f"{flag} {output}: {current_release(output) or 'nothing'} is current now, and was not when this began "
                f"({replaces or 'nothing'} was). Run it again."
            )
        _clear_leftovers(output)
        source = ModelSet.open(folder).path
        files = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
        if signer is not None:
            files[SIGNATURE] = signer.sign(files[MANIFEST])
        elif SIGNATURE not in files:
            _compare_signatures(output, {}, None)
        return _put(output, files, by, keep, None if signer is None else signer.public_keys)


def promote(output: Path, release: str, by: str = "promote", flag: str = "--output") -> ModelSet:
    """Makes a release the current one, after it was opened and has passed its golden vectors.

    Args:
        output: folder of the model set.
        release: name of a folder in its `releases`.
        by, flag: as of `publish_set`.

    Raises:
        PublishError, ContractError: as of `publish`.
    """
    with _writing(output, flag):
        _clear_leftovers(output)
        ModelSet.open(output / RELEASES / release)
        return _make_current(output, release, by)


def prune(output: Path, keep: int, flag: str = "--output") -> list[str]:
    """Removes releases beyond the newest `keep`, but never the current one nor the one before it.

    Returns:
        Names of those that were removed.

    Raises:
        PublishError: when the folder cannot be written.
    """
    with _writing(output, flag):
        _clear_leftovers(output)
        return _prune(output, keep)


@contextmanager
def _writing(output: Path, flag: str = "--output") -> Iterator[None]:
    """One writer at a time, in a folder that can be written to; it is made where it is not there."""
    check_writable(output, flag)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with _locked(output):
            yield
    except OSError as error:
        raise PublishError(f"{flag} {output}: {error}. The set in use was not touched.") from None


def _publish(output: Path, candidates: list[Candidate], signer: Signer | None) -> ModelSet:
    _clear_leftovers(output)
    entries, serving, byproducts = _others(output, candidates)
    _compare_signatures(output, entries, signer)
    for candidate in candidates:
        entries[candidate.detector] = candidate.entry()
        serving |= candidate.serving_files()
        byproducts |= candidate.byproducts
    byproducts |= _drift_references(entries, serving)
    manifest = protojson.dumps(_manifest(entries, serving, byproducts)).encode()
    files = {**serving, **byproducts, MANIFEST: manifest}
    if signer is not None:
        files[SIGNATURE] = signer.sign(manifest)
    by = "train " + ", ".join(candidate.detector for candidate in candidates)
    return _put(output, files, by, KEPT_RELEASES, None if signer is None else signer.public_keys)


def publish_files(
    output: Path,
    files: Mapping[str, bytes],
    by: str,
    public_keys: PublicKeys | None = None,
) -> ModelSet:
    """Publishes a set that was made elsewhere, as it is, in the place of the one in a folder.

    Args:
        files: file name to bytes: the manifest, its signature where it has one, and of what the manifest lists all or
            all but by-products.
        by: what the history says about who did it.
        public_keys: one of these must have signed it; None asks for no signature.

    Raises:
        PublishError: when the folder cannot be written.
        ContractError: when the set is refused; the set in use stays.
    """
    with _writing(output):
        _clear_leftovers(output)
        return _put(output, files, by, KEPT_RELEASES, public_keys)


def _put(
    output: Path, files: Mapping[str, bytes], by: str, keep: int, public_keys: PublicKeys | None = None
) -> ModelSet:
    """Writes the files of a set aside, opens them as a reader would (A2), and makes them the current release."""
    release = output / RELEASES / hashlib.sha256(files[MANIFEST]).hexdigest()[:ID_DIGITS]
    aside = output / RELEASES / f".writing-{os.getpid()}"
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            _write(aside / name, data)
        ModelSet.open(aside, public_keys=public_keys)
        if not _is_whole(
            release, files.keys() - {SIGNATURE}
        ):  # the same set may be there already, even in use: then it stays
            shutil.rmtree(release, ignore_errors=True)
            aside.rename(release)
        elif SIGNATURE in files:
            _sign_release(release, files[SIGNATURE])
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    models = _make_current(output, release.name, by, public_keys)
    _prune(output, keep)
    return models


def _make_current(output: Path, release: str, by: str, public_keys: PublicKeys | None = None) -> ModelSet:
    """Switches `current` in one rename, and then the links beside it (A6)."""
    before = current_release(output)
    _link(output / CURRENT, Path(RELEASES) / release)
    record_switch(output, release, before, by)
    names = sorted(path.name for path in (output / RELEASES / release).iterdir() if path.name != MANIFEST)
    for name in [*names, MANIFEST]:  # a new folder is complete when it has a manifest
        _link(output / name, Path(CURRENT) / name)
    for link in output.iterdir():
        if link.is_symlink() and not link.exists():  # a file that the new set no longer has
            link.unlink()
    return ModelSet.open(output, public_keys=public_keys)


def sign_published(output: Path, models: ModelSet, signer: Signer) -> None:
    """Signs a set that is published already: in its release, and as a link through `current` where there is one (A6).

    Raises:
        PublishError: when the folder cannot be written.
        ContractError: MODEL_SET_MISMATCH, the folder holds another set by now.
    """
    check_writable(models.path, "--models")
    manifest = (models.path / MANIFEST).read_bytes()
    if hashlib.sha256(manifest).hexdigest() != models.id:
        raise ContractError(
            "MODEL_SET_MISMATCH", MANIFEST, f"the set in {output} changed meanwhile. Look, and try again."
        )
    try:
        _sign_release(models.path, signer.sign(manifest))
        if (output / CURRENT).is_symlink() and (output / CURRENT).resolve() == models.path:
            _link(output / SIGNATURE, Path(CURRENT) / SIGNATURE)
    except OSError as error:
        raise PublishError(f"--models {output}: {error}. The set is as it was.") from None


def _sign_release(release: Path, signature: bytes) -> None:
    """Puts a signature beside a manifest, in one rename; a reader sees the former one or this one."""
    path = release / SIGNATURE
    if not path.is_file() or path.read_bytes() != signature:
        with whole_file(path) as file:
            file.write(signature)


def _compare_signatures(output: Path, kept: Mapping[str, model_pb2.ModelEntry], signer: Signer | None) -> None:
    """Warns where a signature says less than before, or would say more than somebody has checked."""
    try:
        folder = resolve(output)
    except ContractError:
        return
    if signer is None:
        if (folder / SIGNATURE).exists():
            log.warning(
                "the model set that was in %s is signed and the new one is not: readers with public keys refuse it. "
                "Train with --sign-key, or sign it: dwcp sign --models %s --key KEY.pem", output, output,
            )  # fmt: skip
        return
    try:
        signer.public_keys.check(folder, (folder / MANIFEST).read_bytes())
    except (ContractError, OSError):
        if kept:
            log.warning(
                "%s, which stood in %s already, is signed along, and was not signed by this key before: be sure that "
                "you know where it comes from", ", ".join(kept), output,
            )  # fmt: skip


def _others(
    output: Path, candidates: list[Candidate]
) -> tuple[dict[str, model_pb2.ModelEntry], dict[str, bytes], dict[str, bytes]]:
    """Entries and files of the models already there that are not replaced. A damaged set is not carried on.

    Nor is an ensemble of which a member becomes another one: the scale of that member would be wrong (EN2).
    """
    replaced = {candidate.detector for candidate in candidates}
    entries: dict[str, model_pb2.ModelEntry] = {}
    serving: dict[str, bytes] = {}
    byproducts: dict[str, bytes] = {}
    try:
        ModelSet.open(output)
    except ContractError as error:
        if error.code != "MANIFEST_MISSING":
            log.warning("the model set that was in %s is damaged and no model of it is kept: %s", output, error)
        return entries, serving, byproducts
    folder = resolve(output)
    manifest = protojson.parse((folder / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
    outdated = _outdated_members(folder, manifest, candidates)
    if outdated and "ensemble" not in replaced:
        log.warning(
            "the ensemble that was in %s is removed: %s became another model, and its scale was made for the one "
            "before. Train it again: dwcp train ensemble --models %s --data ...", output, ", ".join(outdated), output,
        )  # fmt: skip
        replaced.add("ensemble")
    for entry in manifest.models:
        name = detectors.NAMES[entry.detector]
        if name in replaced:
            continue
        entries[name] = entry
        for file in filter(None, (entry.metadata, entry.graph, entry.golden)):
            serving[file] = (folder / file).read_bytes()
        for file in BYPRODUCTS[name]:
            if (folder / file).exists():
                byproducts[file] = (folder / file).read_bytes()
    return entries, serving, byproducts


def _outdated_members(folder: Path, manifest: model_pb2.Manifest, candidates: list[Candidate]) -> list[str]:
    """Members of the ensemble in a set, if there is one, that candidates replace by something else (EN2)."""
    files = {detectors.NAMES[entry.detector]: entry.metadata for entry in manifest.models}
    if "ensemble" not in files:
        return []
    ensemble = protojson.parse((folder / files["ensemble"]).read_bytes(), model_pb2.ModelMetadata(), files["ensemble"])
    members = {detectors.NAMES[member.detector] for member in ensemble.ensemble.members}

    def differs(candidate: Candidate) -> bool:
        new = candidate.serving_files()
        return any(not (folder / name).is_file() or (folder / name).read_bytes() != data for name, data in new.items())

    return [item.detector for item in candidates if item.detector in members and differs(item)]


def _drift_references(entries: Mapping[str, model_pb2.ModelEntry], serving: Mapping[str, bytes]) -> dict[str, bytes]:
    """The drift references of a set as one file, where any of its models has one (S3-2)."""
    found = {}
    for name in sorted(entries, key=lambda name: detectors.BY_NAME[name]):
        file = entries[name].metadata
        reference = Reference.of(protojson.parse(serving[file], model_pb2.ModelMetadata(), file))
        if reference is not None:
            found[name] = reference
    return {BY_PRODUCT: as_arrays(found)} if found else {}


BYPRODUCTS = {
    "isolation_forest": ("isolation_forest.pkl", "scaler.pkl"),
    "lstm_autoencoder": ("lstm_autoencoder.h5", "lstm_autoencoder.keras", "lstm_scaler.pkl"),
    "dense_autoencoder": ("dense_autoencoder.keras", "dense_autoencoder_scaler.pkl"),
    "local_outlier_factor": ("local_outlier_factor.pkl", "local_outlier_factor_scaler.pkl"),
    "one_class_svm": ("one_class_svm.pkl", "one_class_svm_scaler.pkl"),
    "lstm_classifier": ("lstm_classifier.keras", "lstm_classifier_scaler.pkl"),
    "ensemble": (),
    "mahalanobis": ("mahalanobis.npz", "mahalanobis_scaler.pkl"),
}
"""Files that each detector leaves for people and other tools."""


def _manifest(
    entries: Mapping[str, model_pb2.ModelEntry], serving: Mapping[str, bytes], byproducts: Mapping[str, bytes]
) -> model_pb2.Manifest:
    files = [(name, data, model_pb2.FILE_ROLE_SERVING) for name, data in serving.items()]
    files += [(name, data, model_pb2.FILE_ROLE_BYPRODUCT) for name, data in byproducts.items()]
    return model_pb2.Manifest(
        schema_version=1,
        models=sorted(entries.values(), key=lambda entry: entry.detector),
        files=[
            model_pb2.FileEntry(path=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data), role=role)
            for name, data, role in sorted(files)
        ],
    )


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """One writer at a time: the scripts of two detectors may run side by side."""
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear_leftovers(output: Path) -> None:
    """Removes what a writer that was killed has left. Called under the lock: no other writer is at work."""
    for folder in (output / RELEASES).glob(".writing-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for link in output.glob(".*"):
        if link.is_symlink() or link.name.startswith((".probe-", f".{HISTORY}.")):
            link.unlink(missing_ok=True)


def _is_whole(release: Path, files: Iterable[str]) -> bool:
    """Whether a release can be opened and has all these files."""
    try:
        ModelSet.open(release)
    except ContractError:
        return False
    return all((release / name).is_file() for name in files)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(link: Path, target: Path) -> None:
    """Points a symbolic link at a target in one rename."""
    new = link.with_name(f".{link.name}-{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _prune(output: Path, keep: int) -> list[str]:
    """Removes all but the newest releases; the one in use and the one before it always stay."""
    current = current_release(output)
    protected = {current, previous_release(output)}
    others = [name for name in releases_by_age(output) if name not in protected]
    spare = max(0, keep - sum(bool(name) for name in protected))
    for name in others[spare:]:
        shutil.rmtree(output / RELEASES / name, ignore_errors=True)
    return others[spare:]
