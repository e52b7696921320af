"""The file that carries a model set to a site without a network: a tar of manifest, signature and files.

A package is an uncompressed tar in the USTAR format, written so that equal sets give equal bytes: first
`manifest.json`, then `manifest.sig` where there is one, then the files of the manifest by name, all regular, with mode
0644, owner 0 and time 0. So the signature is checked before anything is parsed, and each file by size and digest as it
comes. Any tar program can list and unpack it.

A package comes from elsewhere. Nothing in it is believed before it is checked: the reader knows which names may come
and how large each may be before it reads a byte of it, and never gives a name of the tar to the file system.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import MANIFEST
from dwcp_sidecar.signatures import SIGNATURE, SIGNATURE_BYTES, PublicKeys

SUFFIX = ".dwcp.tar"

MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
MAX_PACKAGE_BYTES = 4 << 30
MAX_FILES = 1_000

_BLOCK = tarfile.BLOCKSIZE
_NAME_BYTES = 100  # what the header of USTAR holds in one piece


class PackageError(Exception):
    """A package is refused, before anything of it was used. The message names the file in it, and the remedy."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name or 'the package'}: {what}. {_REMEDY}")
        self.name = name


_REMEDY = "Carry the package again; if it stays so, do not use it, and ask where it was made."


@dataclass(frozen=True)
class Package:
    """What a package holds, all digests checked.

    Attributes:
        id: SHA-256 of the manifest (A1).
        manifest, signature: their bytes; no signature in an unsigned package.
        files: file name to bytes, those of the manifest that are there.
    """

    id: str
    manifest: bytes
    signature: bytes | None
    files: Mapping[str, bytes]


def write_package(file: BinaryIO, manifest: bytes, signature: bytes | None, files: Mapping[str, bytes]) -> None:
    """Writes a package. Equal arguments give equal bytes.

    Args:
        file: where to.
        manifest, signature: as in the set.
        files: file name to bytes, those of the manifest that shall be in it, in any order.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        signed = [] if signature is None else [(SIGNATURE, signature)]
        for name, data in [(MANIFEST, manifest), *signed, *sorted(files.items())]:
            tar.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The header of a file: nothing in it but name and size can differ."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    return member


def read_package(path: Path, public_keys: PublicKeys | None = None) -> Package:
    """Reads and checks a package: form, signature, and the digest of every file. Nothing is written.

    Args:
        path: of the package.
        public_keys: one of these must have signed it (A8); None asks for no signature.

    Raises:
        PackageError: it is no package of this form, or a file in it is not what the manifest says.
        ContractError: SIGNATURE_MISSING, SIGNATURE_INVALID, METADATA_INVALID or SCHEMA_FROM_FUTURE.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return read_from(file, public_keys)


def read_from(file: BinaryIO, public_keys: PublicKeys | None = None) -> Package:
    """As `read_package`, from an open file at its start."""
    members = _members(file)
    name, size = next(members, ("", 0))
    if name != MANIFEST:
        raise PackageError(name, f"the first file must be {MANIFEST}")
    manifest = _take(file, name, size, MAX_MANIFEST_BYTES)
    name, size = next(members, ("", 0))
    signature = None
    if name == SIGNATURE:
        signature = _take(file, name, size, SIGNATURE_BYTES)
        name, size = next(members, ("", 0))
    if public_keys is not None:  # before anything is parsed
        if signature is None:
            raise ContractError(
                "SIGNATURE_MISSING",
                SIGNATURE,
                "the package is not signed, and public keys are given. Sign the set where the key is (dwcp sign), "
                "and make the package again.",
            )
        public_keys.check_bytes(signature, manifest)
    listed = _listed(manifest)
    files: dict[str, bytes] = {}
    last = ""
    while name:
        entry = listed.get(name)
        if entry is None:
            raise PackageError(name, "the manifest does not list it")
        if name <= last:
            raise PackageError(name, "it is there twice, or out of order")
        if size != entry.size:
            raise PackageError(name, f"it has {size:,} bytes, and the manifest says {entry.size:,}")
        data = _take(file, name, size, MAX_FILE_BYTES)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise PackageError(name, "its SHA-256 is not that of the manifest")
        files[name] = data
        last = name
        name, size = next(members, ("", 0))
    missing = [
        name for name, entry in listed.items() if entry.role == model_pb2.FILE_ROLE_SERVING and name not in files
    ]
    if missing:
        raise PackageError(missing[0], "it is missing")
    return Package(hashlib.sha256(manifest).hexdigest(), manifest, signature, files)


def _listed(manifest: bytes) -> dict[str, model_pb2.FileEntry]:
    """The files that a manifest lists, plain names all, whose sizes are within the limits."""
    parsed = protojson.parse(manifest, model_pb2.Manifest(), MANIFEST)
    listed: dict[str, model_pb2.FileEntry] = {}
    for entry in parsed.files:
        name = entry.path
        if (
            name in listed
            or name in (MANIFEST, SIGNATURE, "", ".", "..")
            or "/" in name
            or "\\" in name
            or "\0" in name
        ):
            raise PackageError(name, f"{MANIFEST} lists it, which is no name of a file of a set, or lists it twice")
        if entry.size > MAX_FILE_BYTES:
            raise PackageError(name, f"{MANIFEST} says {entry.size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        listed[name] = entry
    total = sum(entry.size for entry in parsed.files)
    if len(listed) > MAX_FILES or total > MAX_PACKAGE_BYTES:
        raise PackageError("", f"{MANIFEST} lists {len(listed):,} files with {total:,} bytes, which is too much")
    return listed


def _members(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Name and size of each file, in order. Before the next one is asked for, its contents must have been read.

    Only what `write_package` writes is accepted: regular files, plain names, headers equal to the last byte. That
    leaves out links, devices, folders, sparse files, extended headers and whatever else tar has, without listing them.
    """
    for _ in range(MAX_FILES + 2):
        header = _exactly(file, _BLOCK)
        if header == bytes(_BLOCK):
            _end(file)
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise PackageError("", "it is no tar file, or is damaged") from None
        name = member.name
        if (
            not member.isreg()
            or not name
            or "/" in name
            or "\\" in name
            or name in (".", "..")
            or len(name) > _NAME_BYTES
        ):
            raise PackageError(name[:_NAME_BYTES], "it is no regular file with a plain name")
        try:
            same = header == _member(name, member.size).tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
        except ValueError:  # a size that the format has no digits for
            same = False
        if not same:
            raise PackageError(name, "its header is not as `dwcp package create` writes it")
        yield name, member.size
    raise PackageError("", f"it has more than {MAX_FILES:,} files")


def _take(file: BinaryIO, name: str, size: int, limit: int) -> bytes:
    """Contents of a file, and what fills its last block."""
    if size > limit:
        raise PackageError(name, f"it has {size:,} bytes; at most {limit:,} are read")
    try:
        data = _exactly(file, size)
        if any(_exactly(file, -size % _BLOCK)):
            raise PackageError(name, "there are bytes behind its end")
    except PackageError as error:
        raise error if error.name else PackageError(name, "it ends before its end") from None
    return data


def _end(file: BinaryIO) -> None:
    """Demands that nothing but what tar writes at the end is left: blocks of zeros up to a whole record."""
    rest = file.read(tarfile.RECORDSIZE)
    if len(rest) < _BLOCK or any(rest) or file.tell() % tarfile.RECORDSIZE or file.read(1):
        raise PackageError("", "there are bytes behind its end, or its end is missing")


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise PackageError("", "it ends before its end")
    return data
