"""What was measured, in a file for each series that is written after each answer: a run that ends goes on there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dwcp_training.data.writers import whole_file
from tests.bench.quality_scorers import Answer
from tests.bench.quality_sets import Floats

Found = dict[str, Any]
"""Scorer to figures, or to the reason why it has none."""


class Kept:
    """The figures and scores of one series.

    Args:
        folder: of the series; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "figures.json"
        self.found: Found = json.loads(self._file.read_text()) if self._file.exists() else {}

    @classmethod
    def of(cls, root: Path, data_set: str, series: str) -> Kept:
        """That of a series of a set."""
        return cls(root / _plain(data_set) / _plain(series))

    def forget(self, *names: str) -> None:
        """Nothing was measured of these scorers; of none where no name is given."""
        if not names:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.found = {name: found for name, found in self.found.items() if names and name not in names}

    def keep(self, name: str, content: Any, scores: Floats | None = None) -> None:
        """Adds what was found out, and writes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if scores is not None:
            np.save(self._scores_file(name), scores)
        self.found[name] = content
        with whole_file(self._file) as file:
            file.write(json.dumps(self.found, indent=1).encode())

    def scores(self, name: str) -> Floats:
        """The scores that were kept of a scorer."""
        scores: Floats = np.load(self._scores_file(name))
        return scores

    def answer(self, name: str, found: Answer, figures: Callable[[Floats], dict[str, float]]) -> None:
        """Keeps an answer with its figures, or why there is none."""
        if found.scores is None:
            self.keep(name, {"why_not": found.why_not})
            return
        said = {"members": found.members} if found.members else {}
        self.keep(name, {**figures(found.scores), "seconds": round(found.seconds, 2), **said}, found.scores)

    def _scores_file(self, name: str) -> Path:
        return self.folder / f"{_plain(name)}.npy"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
