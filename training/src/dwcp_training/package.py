"""`dwcp package`: carries a model set in one file to where there is no network, and publishes it there."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.model_set import MANIFEST, ModelSet
from dwcp_sidecar.signatures import SIGNATURE, PublicKeys
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_warning
from dwcp_training.data.writers import whole_file
from dwcp_training.package_file import SUFFIX, Package, PackageError, read_package, write_package
from dwcp_training.publish import PublishError, check_writable, publish_files
from dwcp_training.signing import SigningKey, read_signing_key


def create_package(
    models: Path, output: Path, *, byproducts: bool = False, signer: SigningKey | None = None
) -> Package:
    """Writes the set in a folder as a package, which appears whole or not at all.

    Args:
        models: folder of the set.
        output: the package.
        byproducts: take the files along that serving does not need, pickles among them.
        signer: signs the manifest in the package; None takes the signature of the set along, if it has one.

    Raises:
        ContractError: the set is refused.
        PublishError: the package cannot be written.
    """
    check_writable(output.parent)
    opened = ModelSet.open(models)
    manifest = (opened.path / MANIFEST).read_bytes()
    parsed = protojson.parse(manifest, model_pb2.Manifest(), MANIFEST)
    names = [
        entry.path
        for entry in parsed.files
        if entry.role == model_pb2.FILE_ROLE_SERVING or (byproducts and (opened.path / entry.path).exists())
    ]
    files = {name: (opened.path / name).read_bytes() for name in names}
    signature = (opened.path / SIGNATURE).read_bytes() if (opened.path / SIGNATURE).is_file() else None
    if signer is not None:
        signature = signer.sign(manifest)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as file:
            write_package(file, manifest, signature, files)
    except OSError as error:
        raise PublishError(f"--output {output}: cannot be written ({error.strerror}).") from None
    except ValueError as error:  # the header of a tar has 100 ASCII characters for a name
        raise RefusedError(f"the set has a file whose name a package cannot hold: {error}.") from None
    return read_package(output, None if signer is None else signer.public_keys)


def run_create(models: Path, output: Path, byproducts: bool, sign_key: Path | None) -> int:
    """Makes a package for a person; returns the exit status, as `run.run` does."""

    def command() -> None:
        if not output.name.endswith(SUFFIX):
            raise UsageError(f"--output {output}: write a file that ends in {SUFFIX}")
        package = create_package(models, output, byproducts=byproducts, signer=read_signing_key(sign_key))
        _print(package, output, None)
        if package.signature is None:
            print_warning("it is not signed: nobody can tell at the site who made it. Give --sign-key.")
        if byproducts:
            print_warning("it has by-products, pickles among them: keep them away from machines that serve.")

    return guarded(command, "No package was made.")


def run_verify(path: Path, public_key: list[Path]) -> int:
    """Verifies a package for a person; returns the exit status, as `run.run` does."""

    def command() -> None:
        _print(_read(path, _keys(public_key)), path, bool(public_key))
        if not public_key:
            print_warning("nobody's signature was checked: digests alone say that it is whole, not who made it.")

    return guarded(command, f"{path} is refused.")


def run_unpack(path: Path, models: Path, public_key: list[Path]) -> int:
    """Publishes a package into a folder for a person; returns the exit status, as `run.run` does."""

    def command() -> None:
        keys = _keys(public_key)
        package = _read(path, keys)
        signature = {} if package.signature is None else {SIGNATURE: package.signature}
        files = {**package.files, MANIFEST: package.manifest, **signature}
        published = publish_files(models, files, f"package unpack {path.name}", keys)
        _print(package, path, bool(public_key))
        out.print(f"published as {published.path}, which {models / 'current'} leads to")
        if not public_key:
            print_warning("nobody's signature was checked. Give --public-key.")

    return guarded(command, f"{path} is refused; what is in {models} was not touched.")


def _keys(files: list[Path]) -> PublicKeys | None:
    return PublicKeys.read(*files) if files else None


def _read(path: Path, keys: PublicKeys | None) -> Package:
    try:
        return read_package(path, keys)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}.") from None
    except PackageError as error:
        raise RefusedError(str(error)) from None


def _print(package: Package, path: Path, checked: bool | None) -> None:
    """What is in a package.

    Args:
        checked: whether the signature was checked; None where it was made here.
    """
    signed = {None: "yes", True: "yes, by one of the public keys", False: "yes, but not checked: no --public-key"}
    table = Table(title=str(path), show_header=False, title_justify="left")
    table.add_row("signed", "no" if package.signature is None else signed[checked])
    for name, data in sorted(package.files.items()):
        table.add_row(name, f"{len(data):,} bytes")
    out.print(table)
    out.print(f"model set {package.id}")
