"""Keys and signatures for tests of rule A8."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dwcp_sidecar.signatures import SIGNATURE, PublicKeys


class Keys:
    """A new pair of keys."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.raw = self.private.public_key().public_bytes_raw()
        self.public = PublicKeys([self.raw])
        self.pem = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, folder: Path) -> Path:
        """Signs the set in a folder."""
        manifest = (folder / "manifest.json").resolve()
        manifest.with_name(SIGNATURE).write_bytes(self.private.sign(manifest.read_bytes()))
        return folder

    def write(self, path: Path) -> Path:
        """Writes the public key as PEM."""
        path.write_bytes(self.pem)
        return path
