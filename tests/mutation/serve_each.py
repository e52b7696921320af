"""Starts `dwcp-sidecar serve` on one folder after the other, in one process.

Importing ONNX Runtime and gRPC a hundred times would take longer than all refusals together. Reads folders from
standard input, a line each; writes one JSON object for each: exit status, standard output and error.
"""

import contextlib
import io
import json
import sys

from dwcp_sidecar import cli


def main() -> None:
    """Answers every line."""
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(["serve", "--models", line.rstrip("\n"), "--listen", "127.0.0.1:0"])
        print(json.dumps({"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
