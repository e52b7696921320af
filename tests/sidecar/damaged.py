"""Sets with damaged JSON files, and the refusal that both languages must give."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from tests.conformance.go_program import GO_FOLDER, contract_score
from tests.sidecar.ensemble_set import digest

WAIT = 60


def edited(path: Path, name: str, change: Callable[[dict], object]) -> Path:
    """Changes a JSON file of a set in place, and the digests with it unless it is the manifest itself."""
    data = json.loads((path / name).read_bytes())
    before = json.dumps(data)
    change(data)
    assert json.dumps(data) != before
    (path / name).write_text(json.dumps(data))
    if name != "manifest.json":
        digest(path)
    return path


def assert_refused(path: Path, code: str, file: str) -> None:
    """Python and Go refuse the set with one code and file."""
    with pytest.raises(ContractError) as refused:
        ModelSet.open(path)
    assert (refused.value.code, refused.value.field) == (code, file), refused.value.message
    done = subprocess.run(
        [contract_score("native"), "--models", path, "--backend", "native"],
        cwd=GO_FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert code in done.stderr
    assert file in done.stderr
