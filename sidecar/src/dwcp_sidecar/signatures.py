"""Signatures of model sets: public keys are read, and `manifest.sig` is checked with them (rule A8).

Ed25519 comes from the library `cryptography`, which is imported only when keys are read: a process without keys neither
waits for it nor holds it in memory.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from dwcp_sidecar.errors import ContractError

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
KEY_BYTES = 32

MAX_KEY_FILE_BYTES = 1 << 16
"""Largest file of public keys that is read; a key takes 113 bytes in it."""

_BEGIN = re.compile(r"-----BEGIN ")
_BLOCK = re.compile(r"^-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n[A-Za-z0-9+/=\s]*?^-----END \1-----[ \t\r]*$", re.M)


class KeyFileError(Exception):
    """A file of keys cannot be used; the message names the file, what is in it, and the remedy."""


class PublicKeys:
    """The keys with which a reader checks signatures: a set that any of them has signed is accepted.

    So keys are rotated without a gap: give the readers the old key and the new one, sign with the new one, take the
    old one away.

    Example:
        >>> keys = PublicKeys.read("signing-key.pub.pem")              # doctest: +SKIP
        >>> models = ModelSet.open("models", public_keys=keys)         # doctest: +SKIP

    Args:
        raw: the keys, 32 bytes each (RFC 8032).

    Raises:
        ValueError: there is none, or one is no Ed25519 key. No keys at all would be no check at all.
    """

    def __init__(self, raw: Iterable[bytes]) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self.raw: tuple[bytes, ...] = tuple(dict.fromkeys(raw))
        if not self.raw:
            raise ValueError("there is no public key; without one nothing can be checked")
        self._keys = [Ed25519PublicKey.from_public_bytes(key) for key in self.raw]

    @classmethod
    def read(cls, *paths: str | Path) -> "PublicKeys":
        """Reads PEM files (`BEGIN PUBLIC KEY`, SPKI), each with one key or several, one after the other.

        Raises:
            KeyFileError: a file cannot be read, or holds anything but Ed25519 public keys.
        """
        raw = [key for path in paths for key in parse_public_keys(_contents(Path(path)), str(path))]
        if not raw:
            raise KeyFileError("no file of public keys is given")
        return cls(raw)

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether one of the keys made this signature of the message."""
        from cryptography.exceptions import InvalidSignature

        if len(signature) != SIGNATURE_BYTES:
            return False
        for key in self._keys:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
        return False

    def check(self, folder: Path, manifest: bytes) -> None:
        """Refuses a set whose manifest, which was read in this folder, none of the keys has signed (A8).

        Raises:
            ContractError: SIGNATURE_MISSING or SIGNATURE_INVALID.
        """
        try:
            with (folder / SIGNATURE).open("rb") as file:
                signature = file.read(SIGNATURE_BYTES + 1)
        except OSError as error:
            raise ContractError(
                "SIGNATURE_MISSING",
                SIGNATURE,
                f"{folder} has no {SIGNATURE} that can be read ({error.strerror}), and public keys are given: "
                "only signed sets are used here. Sign it where the key is: dwcp sign --models DIR --key KEY.pem.",
            ) from None
        self.check_bytes(signature, manifest)

    def check_bytes(self, signature: bytes, manifest: bytes) -> None:
        """Likewise, of a signature that was read already.

        Raises:
            ContractError: SIGNATURE_INVALID.
        """
        if len(signature) != SIGNATURE_BYTES:
            long = f"more than {SIGNATURE_BYTES}" if len(signature) > SIGNATURE_BYTES else str(len(signature))
            raise ContractError(
                "SIGNATURE_INVALID",
                SIGNATURE,
                f"{SIGNATURE} has {long} bytes; a signature has {SIGNATURE_BYTES}. Copy the whole set again.",
            )
        if not self.signed(signature, manifest):
            raise ContractError(
                "SIGNATURE_INVALID",
                SIGNATURE,
                f"{SIGNATURE} is no signature of this manifest.json by any of the {len(self.raw)} public keys. "
                "The set was changed after it was signed, or another key signed it: do not use it before you know.",
            )


def parse_public_keys(data: bytes, name: str) -> list[bytes]:
    """The Ed25519 public keys in the bytes of a PEM file, 32 bytes each; at least one.

    Text around the blocks is a comment, as in every PEM file. Everything else that is not such a key is refused: what
    somebody put there was meant to be trusted, and leaving it out in silence would refuse sets later.

    Args:
        data: contents of the file.
        name: of the file, for the message.

    Raises:
        KeyFileError: there is anything else.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = data.decode("latin-1")  # comments may be in any encoding
    blocks = list(_BLOCK.finditer(text))
    for block in blocks:
        if "PRIVATE KEY" in block[1]:
            raise KeyFileError(
                f"{name} holds a private key. Give the file of the public one, and keep the private one away from here."
            )
        if block[1] != "PUBLIC KEY":
            raise KeyFileError(f"{name} holds a {block[1]}, not a PUBLIC KEY. {_MAKE}")
    if not blocks or len(_BEGIN.findall(text)) != len(blocks):
        raise KeyFileError(f"{name} {'has a PEM block that is damaged' if blocks else 'holds no PUBLIC KEY'}. {_MAKE}")
    keys = []
    for block in blocks:
        try:
            key = load_pem_public_key(block[0].encode("latin-1"))
        except Exception as error:  # the library's errors have no common base class
            raise KeyFileError(
                f"{name} has a PUBLIC KEY that cannot be read ({type(error).__name__}). {_MAKE}"
            ) from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{name} has a public key of another kind than Ed25519. {_MAKE}")
        keys.append(key.public_bytes_raw())
    return keys


_MAKE = "Public keys are PEM files with BEGIN PUBLIC KEY lines, as `dwcp keys new` and openssl write them."


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}. Name a file of public keys.") from None
    if len(data) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} has more than {MAX_KEY_FILE_BYTES} bytes; that is no file of public keys. {_MAKE}")
    return data
