"""Signing keys, and `dwcp keys new` and `dwcp sign` (rule A8)."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dwcp_sidecar.model_set import MANIFEST, ModelSet
from dwcp_sidecar.signatures import SIGNATURE, KeyFileError, PublicKeys
from dwcp_training.console import guarded, out, print_warning
from dwcp_training.publish import PublishError, check_writable, sign_published

PRIVATE_KEY = "signing-key.pem"
PUBLIC_KEY = "signing-key.pub.pem"

_MAX_BYTES = 1 << 16
_MAKE = "Make a pair with `dwcp keys new --output FOLDER`."


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Reads a PEM file (PKCS8, without a password) with one key.

        Raises:
            KeyFileError: it cannot be read, or is anything else.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise KeyFileError(f"{path} cannot be read: {error.strerror}. {_MAKE}") from None
        if b"PRIVATE KEY" not in data and b"PUBLIC KEY" in data:
            raise KeyFileError(f"{path} is a public key, which cannot sign. Give the private one of the pair.")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except TypeError:
            raise KeyFileError(
                f"{path} needs a password. Write a copy without one: openssl pkey -in {path.name} -out {PRIVATE_KEY}."
            ) from None
        except Exception as error:  # the library's errors have no common base class
            raise KeyFileError(f"{path} is no private key in PEM ({type(error).__name__}). {_MAKE}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path} is a private key of another kind than Ed25519. {_MAKE}")
        return cls(key)

    @property
    def public_keys(self) -> PublicKeys:
        """The public key that belongs to it."""
        return PublicKeys([self._key.public_key().public_bytes_raw()])

    def sign(self, manifest: bytes) -> bytes:
        """The signature of the bytes of a manifest, 64 bytes (A8). Equal bytes give equal signatures."""
        return self._key.sign(manifest)


def fingerprint(public_keys: PublicKeys) -> str:
    """SHA-256 of a public key, to compare keys by, as `openssl pkey -pubin -outform DER | sha256sum` gives it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(public_keys.raw[0])
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def read_signing_key(path: Path | None) -> SigningKey | None:
    """The key of a flag, with a warning where others of this machine can read it; None where none is given.

    Raises:
        KeyFileError: it cannot be used.
    """
    if path is None:
        return None
    key = SigningKey.read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        print_warning(f"others on this machine may read {path}: whoever has it can sign. chmod 600 it.")
    return key


def new_keys(output: Path) -> PublicKeys:
    """Writes a new pair of keys into a folder: `PRIVATE_KEY`, which only its owner can read, and `PUBLIC_KEY`.

    Raises:
        PublishError: one of the files is there already, or the folder cannot be written to.
    """
    private, public = output / PRIVATE_KEY, output / PUBLIC_KEY
    for path in (private, public):
        if os.path.lexists(path):
            raise PublishError(f"{path} is there already, and a key that is lost is lost. Name another folder.")
    check_writable(output)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    spki = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _write_new(public, spki, 0o644)
        try:
            _write_new(private, pem, 0o600)
        except OSError:
            public.unlink(missing_ok=True)  # half a pair is of no use
            raise
    except OSError as error:
        raise PublishError(f"--output {output}: cannot be written ({error.strerror}).") from None
    return SigningKey(key).public_keys


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Writes a file that must not be there yet. It never has a wider mode than it will have."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def run_new_keys(output: Path) -> int:
    """Makes a pair of keys for a person; returns the exit status, as `run.run` does."""

    def command() -> None:
        keys = new_keys(output)
        out.print(f"private key: {output / PRIVATE_KEY}, for where models are trained. Whoever has it can sign.")
        out.print(f"public key:  {output / PUBLIC_KEY}, for every site: dwcp-sidecar serve --public-key FILE")
        out.print(f"SHA-256 of the public key: {fingerprint(keys)}")

    return guarded(command, "No keys were made.")


def run_sign(models: Path, key: Path) -> int:
    """Signs the set in a folder for a person; returns the exit status, as `run.run` does."""

    def command() -> None:
        signer = read_signing_key(key)
        assert signer is not None
        opened = ModelSet.open(models)  # a set that nobody could use is not signed
        sign_published(models, opened, signer)
        ModelSet.open(models, public_keys=signer.public_keys, self_test=False)
        out.print(f"signed: model set {opened.id}")
        out.print(f"in {opened.path / SIGNATURE}, over {MANIFEST}")
        out.print(f"SHA-256 of the public key: {fingerprint(signer.public_keys)}")

    return guarded(command, "Nothing was signed.")
