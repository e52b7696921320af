"""What a federated training is asked to do: chosen at the server, known to every client."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.federated.errors import FederatedError
from dwcp_training.profiles import FeatureSchema

Robust = Literal["none", "trimmed-mean", "median", "krum"]

FEDERATED = ("dense_autoencoder", "lstm_autoencoder", "isolation_forest")
"""Detectors that can be trained so."""

ROWS_IN_A_TREE = 256
"""`max_samples` where the settings say `auto`, as scikit-learn has it for data that is large enough."""


@dataclass(frozen=True)
class Privacy:
    """Differential privacy of the weights, at the level of a client.

    Attributes:
        clipping_norm: largest L2 norm of a client's change of the weights in a round.
        noise_multiplier: standard deviation of the noise on the sum, in clipping norms.
        delta: at which the privacy loss is said.
    """

    clipping_norm: float
    noise_multiplier: float
    delta: float = 1e-5


@dataclass(frozen=True)
class Plan:
    """One federated training.

    Attributes:
        detector: one of `FEDERATED`.
        settings: its hyperparameters, as of `DETECTORS[detector].settings`.
        features: names of the metrics, in order; none for those that most clients have.
        rounds: of averaging; for a forest there is one, in which trees are collected.
        local_epochs: passes of a client over its rows in a round.
        minimum: clients without whose answers nothing goes on.
        secure: the server reads only sums (SecAgg+).
        robust: how the server averages when some clients may lie.
        liars: how many.
        privacy: differential privacy of the weights, or None.
        scaling: name of the profile's scaling, and its divisors.
    """

    detector: str
    settings: dict[str, Any]
    rounds: int = 20
    local_epochs: int = 1
    minimum: int = 2
    features: tuple[str, ...] = ()
    secure: bool = False
    robust: Robust = "none"
    liars: int = 0
    privacy: Privacy | None = None
    scaling: str = "standard"
    divisors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.detector not in FEDERATED:
            names = ", ".join(FEDERATED)
            raise FederatedError("--detector", f"{self.detector!r} cannot be trained so.", f"Use {names}.")
        for name in ("rounds", "local_epochs", "minimum"):
            if getattr(self, name) < 1:
                raise FederatedError(f"--{name.replace('_', '-')}", f"{getattr(self, name)} must be 1 or more.")
        if self.secure and self.robust != "none":
            raise FederatedError(
                "--robust",
                "secure aggregation hides from the server what each client says, and a robust average needs to see it.",
                "Give --secure or --robust.",
            )
        if self.secure and self.minimum < 3:
            raise FederatedError(
                "--min-clients",
                f"with {self.minimum} clients each could take its own part from the sum and read the other's.",
                "Use at least 3 with --secure.",
            )
        if (self.robust == "none") != (self.liars == 0) or self.liars < 0:
            raise FederatedError("--liars", "goes with --robust: how many clients may lie.", "Give both, or neither.")
        if self.robust != "none" and self.minimum < 2 * self.liars + 1:
            raise FederatedError(
                "--liars",
                f"{self.liars} of {self.minimum} clients are too many: what most of them say would be a lie.",
                f"Use --min-clients {2 * self.liars + 1} or more.",
            )
        if self.robust == "krum" and self.minimum < 2 * self.liars + 3:
            raise FederatedError("--liars", f"Krum needs {2 * self.liars + 3} clients for {self.liars} liars.")
        if self.privacy is not None and (self.privacy.clipping_norm <= 0 or self.privacy.noise_multiplier <= 0):
            raise FederatedError("--dp-noise", "noise and clipping norm must be above 0.")
        if self.privacy is not None and (self.robust != "none" or self.detector == "isolation_forest"):
            raise FederatedError(
                "--dp-noise",
                "noise is added to an average of weights: a robust average is none, and a forest has none.",
                "Leave --robust away, or train an autoencoder.",
            )
        if self.scaling not in ("standard", "none", "divisors"):
            raise FederatedError(
                "profile",
                f"scaling {self.scaling!r} needs the smallest values or the quartiles of all rows, which no sum tells.",
                "Use the scaling standard, divisors or none.",
            )
        if self.detector == "isolation_forest" and self.settings.get("max_features", 1.0) != 1.0:
            raise FederatedError("max_features", "pooled trees look at all features.", "Leave it at 1.")

    @property
    def hyperparameters(self) -> Any:
        """The settings, checked again: a client has them from the server."""
        model: type[BaseModel] = DETECTORS[self.detector].settings
        return model.model_validate(self.settings)

    @property
    def rows_in_a_tree(self) -> int:
        """`max_samples` of every tree."""
        asked = self.hyperparameters.max_samples
        return ROWS_IN_A_TREE if asked == "auto" else int(asked)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan of a text that `to_json` made.

        Raises:
            FederatedError: the text is no plan of this version.
        """
        try:
            given = json.loads(text)
            privacy = given.pop("privacy")
            features = tuple(given.pop("features"))
            return cls(**given, features=features, privacy=Privacy(**privacy) if privacy else None)
        except (ValueError, TypeError, KeyError) as error:
            raise FederatedError("plan", f"is none of this version: {error}.", "Use one version everywhere.") from None

    @property
    def digest(self) -> str:
        """Tells plans apart."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def check_features(wanted: tuple[str, ...], schema: FeatureSchema, who: str) -> None:
    """Refuses a client whose features are not those of the run, in the order of the run.

    Raises:
        SchemaError: says which are missing and which are too many.
    """
    from dwcp_training.federated.errors import SchemaError

    own = tuple(schema.names)
    if own == wanted:
        return
    missing = [name for name in wanted if name not in own]
    more = [name for name in own if name not in wanted]
    parts = []
    if missing:
        parts.append(f"{', '.join(missing[:5])} missing")
    if more:
        parts.append(f"{', '.join(more[:5])} not asked for")
    said = "; ".join(parts) or "their order is another"
    raise SchemaError(
        who,
        f"has {len(own)} metrics, and the run trains on {len(wanted)}: {said}.",
        "Use the profile of the server.",
    )
