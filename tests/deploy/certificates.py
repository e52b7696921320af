"""Throw-away certificates."""

import subprocess
from pathlib import Path

from tests.deploy.tools import tool

_DAYS = "30"


def make_certificates(folder: Path) -> None:
    """Writes ca.crt, and tls.crt with tls.key for 127.0.0.1 and localhost, fit for a server and for a client."""
    openssl = tool("openssl")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True, timeout=60)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", _DAYS, "-subj", "/CN=test authority")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    run("req", *curve, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=localhost", "-addext", names)
    (folder / "names").write_text(names)
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", _DAYS)
    run("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *signed)
