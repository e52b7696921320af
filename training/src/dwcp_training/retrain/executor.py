"""Golden vectors of a set in another implementation: a program such as `contract-score` of the Go package."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dwcp_training.retrain.gate import Row

SECONDS = 300


def run_executor(program: Path, folder: Path) -> Row:
    """Runs ``PROGRAM --models FOLDER --golden``, which ends with 0 when every golden vector has passed (V1)."""
    measure = f"golden vectors in {program.name}"
    try:
        done = subprocess.run(
            [program, "--models", folder, "--golden"], capture_output=True, text=True, timeout=SECONDS
        )  # fmt: skip
    except OSError as error:
        return Row("all", measure, None, None, f"it runs: {error.strerror}", False, "count")
    except subprocess.TimeoutExpired:
        return Row("all", measure, None, None, f"it ends within {SECONDS} s", False, "count")
    said = " ".join((done.stdout if done.returncode == 0 else done.stderr or done.stdout).split())
    return Row("all", measure, None, float(done.returncode == 0), said[:200] or "all", done.returncode == 0, "count")
