"""What a profile says, as closed, frozen, strict models: an unknown key or a value of another type is refused."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dwcp_training.profiles.errors import nearest

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

    A limit that a profile leaves out is taken from the training data, see `data.schema.completed`.
    """

    name: Name
    unit: str
    minimum: Finite | None = None
    maximum: Finite | None = None
    warning: Finite | None = None
    critical: Finite | None = None

    @property
    def low_is_bad(self) -> bool:
        """Whether the metric alarms an operator when it falls, as bandwidth does."""
        return self.warning is not None and self.critical is not None and self.critical < self.warning

    @model_validator(mode="after")
    def _levels_inside_range(self) -> Self:
        lowest = -math.inf if self.minimum is None else self.minimum
        highest = math.inf if self.maximum is None else self.maximum
        if not lowest < highest:
            raise ValueError(f"{self.name}: minimum {self.minimum} must be less than maximum {self.maximum}")
        if (self.warning is None) != (self.critical is None):
            raise ValueError(f"{self.name}: give both warning and critical, or neither")
        for level in ("warning", "critical"):
            value = getattr(self, level)
            if value is not None and not lowest <= value <= highest:
                raise ValueError(f"{self.name}: {level} {value} is outside {self.minimum}..{self.maximum}")
        if self.warning is not None and self.warning == self.critical:
            raise ValueError(
                f"{self.name}: warning and critical are both {self.warning}; their order says which side is bad"
            )
        return self


class FeatureSchema(_Closed):
    """An ordered list of metrics (F1). ``FeatureSchema(**schema.model_dump())`` makes the protobuf message.

    It is empty only in a profile whose features are the columns of the data; `read_table` fills it.
    """

    name: str
    version: Count
    features: tuple[Feature, ...] = Field(default=(), strict=False)

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


class Baseline(_Closed):
    """Which part of the data is normal: rows of the `first` files.

    Attributes:
        column: the column that names the file that a row came from; null when each file given is one.
        first: how many different names, in the order in which they appear, or how many files.
    """

    column: str | None = None
    first: Count


class Reader(_Closed):
    """How files become rows.

    Attributes:
        format: ``table``: CSV, Parquet or `.npy` files, or folders of them. ``runs``: run folders, each
            `<stamp>_<label>/` with a `telemetry.csv`, and optionally a `meta.json` and a `trojan_intervals.csv`.
        features: ``listed``: the features are those of the schema. ``numeric``: they are the columns of the first
            file that hold numbers, in its order, without times, labels and `metadata`.
        columns: feature name to its column in the data, where the two differ.
        metadata: columns that are never features; ``*`` stands for any text.
        delimiter: what separates the cells of a CSV file.
        timestamp_format: ``iso``: ISO-8601 text, or the times of a typed file. ``seconds``, ``milliseconds``: numbers,
            since 1970 or any other moment.
        label_column: a row with a label that is not normal is left out of training.
        normal_labels: labels that mean normal, besides an empty one and zero.
        series: ``joined``: all files together are one series in time. ``files``: each is a series of its own. A window
            never crosses from one series to the next.
        series_column: rows with different values here are of different series, for example of different devices.
        baseline: which part of the data is normal.
        padded_to: width of `.npy` rows that are divided by `scaling.divisors` already and padded with zeros.
    """

    format: Literal["table", "runs"] = "table"
    features: Literal["listed", "numeric"] = "listed"
    columns: dict[Name, str] = {}
    metadata: tuple[str, ...] = Field(default=(), strict=False)
    delimiter: Literal[",", ";", "\t", "|"] = ","
    timestamp_format: Literal["iso", "seconds", "milliseconds"] = "iso"
    label_column: str | None = None
    normal_labels: tuple[str, ...] = Field(default=(), strict=False)
    series: Literal["joined", "files"] = "joined"
    series_column: str | None = None
    baseline: Baseline | None = None
    padded_to: Count | None = None

    def column(self, feature: str) -> str:
        """The column of a feature."""
        return self.columns.get(feature, feature)


class Scaling(_Closed):
    """Where the scaler of the model set comes from.

    Attributes:
        method: ``standard``: mean and standard deviation of the training rows. ``minmax``: their smallest value and
            their range. ``robust``: median and interquartile range. ``none``: raw values as they are. ``divisors``: the
            scales below, so that a model sees ``x / divisor``. All are a mean and a scale, as rule S1 wants.
        version: version of the divisors, recorded with the model.
        divisors: feature name to divisor.
    """

    method: Literal["standard", "minmax", "robust", "none", "divisors"] = "standard"
    version: Count = 1
    divisors: dict[Name, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}


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
    window_stride: Count = 1
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
        description: what the profile is for, in a sentence.
        feature_schema: the metrics, in order.
        timestamp_column: column with times; null for data that has none.
        reader: how files become rows.
        scaling: where the scaler comes from.
        recommended: amount of data below which a warning is given.
        detectors: defaults of the hyperparameters.
    """

    description: str = ""
    feature_schema: FeatureSchema
    timestamp_column: Annotated[str, Field(min_length=1)] | None = "timestamp"
    reader: Reader = Reader()
    scaling: Scaling = Scaling()
    recommended: Recommended = Recommended()
    detectors: Detectors = Detectors()

    @model_validator(mode="after")
    def _timestamp_is_not_a_feature(self) -> Self:
        if self.timestamp_column in self.feature_schema.names:
            raise ValueError(f"timestamp_column {self.timestamp_column} is also a feature")
        return self

    @model_validator(mode="after")
    def _features_are_listed_or_found(self) -> Self:
        if self.reader.features == "listed" and not self.feature_schema.features:
            raise ValueError(
                "feature_schema.features is empty: list the metrics, or take them from the data "
                "with reader.features: numeric"
            )
        if self.reader.features == "numeric" and self.feature_schema.features:
            raise ValueError(
                "reader.features: numeric takes the metrics from the data, but feature_schema.features lists some"
            )
        return self

    @model_validator(mode="after")
    def _names_are_features(self) -> Self:
        names = self.feature_schema.names
        for key, mapping in (("reader.columns", self.reader.columns), ("scaling.divisors", self.scaling.divisors)):
            for name in mapping:
                if names and name not in names:
                    raise ValueError(f"{key}.{name}: no feature is called {name}. {nearest(name, names)}")
        if self.scaling.method == "divisors":
            missing = [name for name in names if name not in self.scaling.divisors]
            if missing or not names:
                raise ValueError(f"scaling.divisors: missing are {', '.join(missing) or 'listed features'}")
        return self
