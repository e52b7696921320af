"""Says that the server answers: one line on standard output, and in a file for whoever started it."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dwcp_sidecar.server.settings import StartError


@contextlib.contextmanager
def announced(addresses: Sequence[str], model_set_id: str, ready_file: Path | None) -> Iterator[None]:
    """Prints `ready ADDRESS... model_set=ID`; while the block lasts the file holds that line too.

    Raises:
        StartError: the file cannot be written.
    """
    line = " ".join(["ready", *addresses, f"model_set={model_set_id}"])
    if ready_file is not None:
        _write(ready_file, line)
    try:
        print(line, flush=True)
        yield
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


def _write(path: Path, line: str) -> None:
    """Writes the file so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(line + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StartError(f"--ready-file {path}: {error.strerror}; choose a folder that can be written to") from None
