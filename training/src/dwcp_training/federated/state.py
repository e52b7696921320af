"""The state of a run at the server, in one file that is written whole after every step: a run that stopped goes on."""

import io
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from dwcp_training.data.writers import whole_file
from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.plan import Plan

VERSION = 1


@dataclass
class Round:
    """What is known of a round: losses, clients, bytes, seconds. The held-out loss is that of the weights before it."""

    number: int
    loss: float
    held_out_loss: float
    clients: int
    up: int
    down: int
    seconds: float


@dataclass
class State:
    """How far a run has come.

    Attributes:
        plan: with the features that were agreed on.
        cadence: seconds between samples, as the clients say.
        rows: rows that all clients fit, those of the first question.
        mean, scale: of the scaler, float64 `[features]`; empty before they are known.
        values: histograms of scaled values, int64 `[features, bins]`.
        weights: after the last round, float32.
        best: the weights with the lowest held-out loss yet.
        best_loss: that loss; infinite before there is one.
        best_round: the round after which they were.
        rounds: the rounds that are done.
        trees: of a forest.
        scores: histogram of held-out scores.
    """

    plan: Plan
    cadence: float = 0.0
    rows: float = 0.0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    weights: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)
    best_loss: float = float("inf")
    best_round: int = 0
    rounds: list[Round] = field(default_factory=list)
    trees: list[np.ndarray] = field(default_factory=list)
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def save(self, path: Path) -> None:
        """Writes all of it, in one rename."""
        record = {
            "version": VERSION,
            "plan": self.plan.to_json(),
            "cadence": self.cadence,
            "rows": self.rows,
            "best_loss": self.best_loss,
            "best_round": self.best_round,
            "rounds": [vars(done) for done in self.rounds],
        }
        arrays = {"record": np.array(json.dumps(record))}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                arrays[item.name] = value
            elif item.name in ("weights", "best", "trees"):
                arrays |= {f"{item.name}.{k}": array for k, array in enumerate(value)}
        file = io.BytesIO()
        np.savez(file, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as target:
            target.write(file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "State":
        """Reads what `save` wrote.

        Raises:
            FederatedError: the file is damaged, or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file.items())
            record = json.loads(str(arrays.pop("record")))
            if record["version"] != VERSION:
                raise ValueError(f"version {record['version']}, and {VERSION} is read")
            lists: dict[str, list[np.ndarray]] = {"weights": [], "best": [], "trees": []}
            for name, found in lists.items():
                while f"{name}.{len(found)}" in arrays:
                    found.append(arrays.pop(f"{name}.{len(found)}"))
            return cls(
                plan=Plan.from_json(record["plan"]),
                cadence=record["cadence"],
                rows=record["rows"],
                best_loss=record["best_loss"],
                best_round=record["best_round"],
                rounds=[Round(**done) for done in record["rounds"]],
                **lists,
                **arrays,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise FederatedError(
                "--state", f"{path} cannot be read: {error}.", "Name another file, or remove it to begin anew."
            ) from None
