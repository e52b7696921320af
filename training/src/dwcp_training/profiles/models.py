"""What a profile says, as closed, frozen, strict models: an unknown key or a value of another type is refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Feature(_Closed):
    """One metric of a sample. Fields as in the message `Feature` of ``features.proto``.

    Attributes:
        name: name as in CSV headers and error fields.
        unit: unit of the raw value.
        minimum: smallest plausible raw value, checked when training data is read.
        maximum: largest plausible raw value, checked likewise.
        warning: raw value at which an operator wants to be warned.
        critical: raw value at which an operator wants to be woken; below `warning` when low is bad.
    """

    name: Name
    unit: str
    minimum: Finite
    maximum: Finite
    warning: Finite
    critical: Finite

    @property
    def low_is_bad(self) -> bool:
        """Whether the metric alarms an operator when it falls, as bandwidth does."""
        return self.critical < self.warning

    @model_validator(mode="after")
    def _levels_inside_range(self) -> Self:
        if not self.minimum < self.maximum:
            raise ValueError(f"{self.name}: minimum {self.minimum} must be less than maximum {self.maximum}")
        for level in ("warning", "critical"):
            value = getattr(self, level)
            if not self.minimum <= value <= self.maximum:
                raise ValueError(f"{self.name}: {level} {value} is outside {self.minimum}..{self.maximum}")
        if self.warning == self.critical:
            raise ValueError(
                f"{self.name}: warning and critical are both {self.warning}; their order says which side is bad"
            )
        return self


class FeatureSchema(_Closed):
    """An ordered list of metrics (F1). ``FeatureSchema(**schema.model_dump())`` makes the protobuf message."""

    name: str
    version: Count
    features: tuple[Feature, ...] = Field(min_length=1, strict=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The feature names in the order of the values of a sample."""
        return tuple(feature.name for feature in self.features)

    def index(self, name: str) -> int:
        """Column of the feature `name`. Raises `KeyError` for an unknown one."""
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(f"{name!r} is not a feature of {self.name}: {', '.join(self.names)}") from None

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"feature names must differ, {', '.join(twice)} is there twice")
        return self


class Recommended(_Closed):
    """Amount of training data below which a warning is given: rows, and days between the first and the last."""

    samples: Annotated[int, Field(ge=0)] = 10_000
    days: Annotated[float, Field(ge=0)] = 7.0


class IsolationForestDefaults(_Closed):
    """Hyperparameters of the isolation forest, named as in scikit-learn; a command-line flag wins over them."""

    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    n_estimators: Count = 100
    max_samples: Literal["auto"] | Annotated[int, Field(ge=2)] = "auto"
    max_features: Annotated[float, Field(gt=0, le=1)] = 1.0
    bootstrap: bool = False
    seed: Seed = 42


class LstmAutoencoderDefaults(_Closed):
    """Hyperparameters of the LSTM autoencoder; a command-line flag wins over them.

    Layers: LSTM `hidden_units`, dropout, LSTM `encoding_dim`, repeat, LSTM `encoding_dim`, dropout, LSTM
    `hidden_units`, dense. The learning rate is multiplied by `learning_rate_factor` after `learning_rate_patience`
    epochs without progress.
    """

    window_size: Annotated[int, Field(ge=1, le=256)] = 10
    epochs: Count = 50
    batch_size: Count = 32
    encoding_dim: Count = 32
    hidden_units: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    loss: Literal["mse", "mae"] = "mse"
    validation_split: Annotated[float, Field(gt=0, lt=1)] = 0.2
    early_stopping_patience: Count = 10
    learning_rate_patience: Count = 5
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    learning_rate_floor: Annotated[float, Field(ge=0)] = 1e-5
    threshold_percentile: Annotated[float, Field(gt=0, le=100)] = 95.0
    seed: Seed = 42


class Detectors(_Closed):
    """Defaults of each detector, by its name in the contract."""

    isolation_forest: IsolationForestDefaults = IsolationForestDefaults()
    lstm_autoencoder: LstmAutoencoderDefaults = LstmAutoencoderDefaults()


class Profile(_Closed):
    """A feature schema with all that training needs to know about the data of one kind of source.

    Attributes:
        feature_schema: the metrics, in order.
        timestamp_column: column with ISO-8601 times; null for data that has none.
        recommended: amount of data below which a warning is given.
        detectors: defaults of the hyperparameters.
    """

    feature_schema: FeatureSchema
    timestamp_column: Name | None = "timestamp"
    recommended: Recommended = Recommended()
    detectors: Detectors = Detectors()

    @model_validator(mode="after")
    def _timestamp_is_not_a_feature(self) -> Self:
        if self.timestamp_column in self.feature_schema.names:
            raise ValueError(f"timestamp_column {self.timestamp_column} is also a feature")
        return self
