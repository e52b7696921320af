"""Opens every set of a fleet, one after the other, and says which are refused (`dwcp-sidecar check`)."""

import sys
import time
from collections import Counter
from pathlib import Path

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.signatures import SIGNATURE, PublicKeys

_REDRAW_SECONDS = 0.2
_MOST_LISTED = 20


def check(path: Path, public_keys: PublicKeys | None) -> int:
    """Prints what it found; progress goes to standard error where that is a terminal.

    Returns:
        The exit status: 0, or 1 when a set is refused.

    Raises:
        ContractError: the index is refused.
    """
    fleet = Fleet.open(path, max_sets=1, public_keys=public_keys)
    ids = sorted(fleet.index.set_ids())
    refused: list[tuple[str, ContractError]] = []
    cases = 0
    progress = _Progress(len(ids))
    for done, id in enumerate(ids):
        progress.show(done, len(refused))
        try:
            cases += sum(len(file.cases) for file in fleet.open_set(id).golden.values())
        except ContractError as error:
            refused.append((id, error))
    progress.end()
    used = Counter(fleet.index.series.values())
    for id, refusal in refused[:_MOST_LISTED]:
        print(f"set {id[:16]} of {used[id]:,} series is refused: {refusal}")
    if len(refused) > _MOST_LISTED:
        print(f"and {len(refused) - _MOST_LISTED:,} further sets are refused")
    others = f"others by set {fleet.index.global_set_id[:16]}" if fleet.index.global_set_id else "others are an error"
    print(f"series        {len(fleet.index.series):,}; {others}")
    print(f"model sets    {len(ids) - len(refused):,} of {len(ids):,} passed")
    print(f"golden cases  {cases:,} passed")
    print(f"\nfleet {fleet.id}\nin {fleet.path}")
    if public_keys is not None and not refused:
        print(f"signed: {SIGNATURE} of each set is by one of the public keys")
    return 1 if refused else 0


class _Progress:
    """One line on a terminal, with how far it is and how long it will take."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begin = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def show(self, done: int, refused: int) -> None:
        """Redraws the line, not too often."""
        now = time.monotonic()
        if not self._terminal or now - self._shown < _REDRAW_SECONDS:
            return
        self._shown = now
        left = f", {(now - self._begin) / done * (self._total - done):.0f} s left" if done else ""
        bar = ("#" * (20 * done // self._total)).ljust(20, ".")
        line = f"[{bar}] {done:,} of {self._total:,} sets, {refused:,} refused{left}"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clears the line."""
        if self._terminal:
            print(f"\r{'':78}\r", end="", file=sys.stderr, flush=True)
