"""What a profile says, as closed, frozen, strict models: an unknown key or a value of another type is refused."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dwcp_sidecar.detectors import BY_NAME
from dwcp_training.profiles.errors import nearest

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Contamination = Annotated[float, Field(gt=0, le=0.5)]
Share = Annotated[float, Field(gt=0, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Percentile = Annotated[float, Field(gt=0, le=100)]
WindowSize = Annotated[int, Field(ge=1, le=256)]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
KeptRows = Annotated[int, Field(ge=2, le=100_000)]


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

    A limit that a profile leaves out is taken from the training data, see `data.layout.completed`.
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


class DriftDefaults(_Closed):
    """What counts as drift of a model's data, recorded with the model; a flag of `dwcp drift` wins over the thresholds.

    Attributes:
        rate: share of comparisons without drift in which any metric may exceed its critical value.
        psi_threshold, wasserstein_threshold: statistics up to these are no drift, however significant.
    """

    rate: Annotated[float, Field(ge=0.001, le=0.5)] = 0.01
    psi_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    wasserstein_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.15


class Recommended(_Closed):
    """Amount of training data below which a warning is given: rows, and days between the first and the last."""

    samples: Annotated[int, Field(ge=0)] = 10_000
    days: Annotated[float, Field(ge=0)] = 7.0


class IsolationForestDefaults(_Closed):
    """Hyperparameters of the isolation forest, named as in scikit-learn; a command-line flag wins over them."""

    contamination: Contamination = 0.01
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

    window_size: WindowSize = 10
    window_stride: Count = 1
    epochs: Count = 50
    batch_size: Count = 32
    encoding_dim: Count = 32
    hidden_units: Count = 64
    dropout: Dropout = 0.2
    optimizer: Optimizer = "adam"
    learning_rate: LearningRate = 1e-3
    loss: Literal["mse", "mae"] = "mse"
    validation_split: Share = 0.2
    early_stopping_patience: Count = 10
    learning_rate_patience: Count = 5
    learning_rate_factor: Share = 0.5
    learning_rate_floor: Annotated[float, Field(ge=0)] = 1e-5
    threshold_percentile: Percentile = 95.0
    seed: Seed = 42


class DenseAutoencoderDefaults(_Closed):
    """Hyperparameters of the dense autoencoder; a command-line flag wins over them.

    Layers: one for each of `encoder_units`, the `bottleneck`, the encoder backwards, and the output.
    """

    encoder_units: Annotated[tuple[Width, ...], Field(min_length=1, max_length=31, strict=False)] = (64, 32, 16)
    bottleneck: Width = 8
    activation: Literal["relu", "tanh"] = "relu"
    epochs: Count = 50
    batch_size: Count = 32
    learning_rate: LearningRate = 1e-3
    optimizer: Optimizer = "adam"
    loss: Literal["mse", "mae"] = "mse"
    dropout: Dropout = 0.2
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    early_stopping_patience: Count = 10
    validation_split: Share = 0.1
    threshold_percentile: Percentile = 95.0
    seed: Seed = 42


class LocalOutlierFactorDefaults(_Closed):
    """Hyperparameters of the local outlier factor; a command-line flag wins over them.

    Attributes:
        n_neighbors: training rows that a sample is compared with.
        contamination: share of the training rows above the threshold.
        max_rows: most training rows that neighbours are looked for among; of more, as many are chosen by seed. The
            time of a score and the size of the model grow with them, the time of training with their square.
        seed: of that choice.
    """

    n_neighbors: Count = 20
    contamination: Contamination = 0.01
    max_rows: KeptRows = 5_000
    seed: Seed = 42


class OneClassSvmDefaults(_Closed):
    """Hyperparameters of the one-class SVM, named as in scikit-learn; a command-line flag wins over them.

    Attributes:
        nu: at most this share of the training rows is outside, and at least this share becomes support vectors.
        gamma: rate of the kernel in scaled units: ``scale`` is 1 / (features * variance of the scaled values),
            ``auto`` is 1 / features.
        contamination: share of the training rows above the threshold; null leaves the threshold where the SVM puts
            it, with at most `nu` above.
        max_rows: most training rows; of more, as many are chosen by seed. The time of training grows with their square.
        seed: of that choice.
    """

    nu: Annotated[float, Field(gt=0, le=1)] = 0.05
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "scale"
    contamination: Contamination | None = None
    max_rows: KeptRows = 5_000
    seed: Seed = 42


class LstmClassifierDefaults(_Closed):
    """Hyperparameters of the LSTM classifier; a command-line flag wins over them.

    Attributes:
        window_size: samples in a window; its label is that of its last sample.
        window_stride: samples from the start of one training window to the next.
        units: of the first and the second LSTM layer and the dense one.
        dropout: share of the units of an LSTM layer that is left out in a training step.
        class_weights: ``balanced``: normal and anomalous windows count for the same in all, however rare one of them
            is. ``none``: every window counts for the same.
        threshold_percentile: percentile of the held-out normal windows' scores that becomes the threshold; null is a
            probability of one half.
        seed: of every random choice.
    """

    window_size: WindowSize = 100
    window_stride: Count = 1
    units: Annotated[tuple[Width, Width, Width], Field(strict=False)] = (64, 32, 16)
    epochs: Count = 50
    batch_size: Count = 32
    dropout: Dropout = 0.0
    optimizer: Optimizer = "adam"
    learning_rate: LearningRate = 1e-3
    class_weights: Literal["balanced", "none"] = "balanced"
    validation_split: Share = 0.2
    early_stopping_patience: Count = 10
    threshold_percentile: Percentile | None = None
    seed: Seed = 42


class EnsembleDefaults(_Closed):
    """Settings of the ensemble; a command-line flag wins over them.

    Attributes:
        weights: detector to weight, summing to 1; without any, all detectors of the set are members with equal weights.
            A detector that is not in the set is left out, and the others share its weight.
        warning_threshold: score above which the ensemble alarms; 0.3 is where each member alone would (EN8).
        critical_threshold: score above which an alarm is critical. A member is at 0.7 where its score is 5.4 times as
            far above the median of normal ones as its threshold is (EN8).
        seed: of the choice of calibration scores and golden vectors.
    """

    weights: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    warning_threshold: Share = 0.3
    critical_threshold: Share = 0.7
    seed: Seed = 42

    @model_validator(mode="after")
    def _weights_of_detectors(self) -> Self:
        members = [name for name in BY_NAME if name != "ensemble"]
        for name in self.weights:
            if name not in members:
                raise ValueError(f"weights.{name}: no detector is called {name}. {nearest(name, members)}")
        total = sum(self.weights.values())
        if self.weights and not abs(total - 1) <= 1e-9:
            raise ValueError(f"weights sum to {total:g}, and must sum to 1")
        if not self.warning_threshold < self.critical_threshold:
            raise ValueError(
                f"warning_threshold {self.warning_threshold:g} must be below critical_threshold "
                f"{self.critical_threshold:g}"
            )
        return self


class MahalanobisDefaults(_Closed):
    """Hyperparameters of the Mahalanobis distance; a command-line flag wins over them.

    Attributes:
        lags: samples before the last one that are scored with it; 0 scores single samples.
        ridge: added to the variance of each scaled metric, which is 1 in training. More of it trusts less that metrics
            go together exactly as they did in training.
        contamination: share of the held-out windows above the threshold.
        limits: a metric alone at the critical value of its schema is an alarm (rule MD3).
        seed: of the choice of calibration scores and golden vectors.
    """

    lags: Annotated[int, Field(ge=0, le=255)] = 4
    ridge: Annotated[float, Field(ge=1e-5, le=1e3)] = 0.01
    contamination: Contamination = 0.01
    limits: bool = True
    seed: Seed = 42


class Detectors(_Closed):
    """Defaults of each detector, by its name in the contract."""

    isolation_forest: IsolationForestDefaults = IsolationForestDefaults()
    lstm_autoencoder: LstmAutoencoderDefaults = LstmAutoencoderDefaults()
    dense_autoencoder: DenseAutoencoderDefaults = DenseAutoencoderDefaults()
    local_outlier_factor: LocalOutlierFactorDefaults = LocalOutlierFactorDefaults()
    one_class_svm: OneClassSvmDefaults = OneClassSvmDefaults()
    lstm_classifier: LstmClassifierDefaults = LstmClassifierDefaults()
    ensemble: EnsembleDefaults = EnsembleDefaults()
    mahalanobis: MahalanobisDefaults = MahalanobisDefaults()


class Gate(_Closed):
    """What a challenger of `dwcp retrain` must do to become the current release.

    Attributes:
        held_out: share of the collected time, its end, that both models are measured on and none is trained on.
        events: injected faults of each kind, spread over the metrics.
        confidence: of the intervals of all kinds and detectors together.
        resamples: of the bootstrap.
        recall_margin: recall of a kind that may be lost in any case.
        false_alarm_factor: share of held-out rows that may alarm, in multiples of the share that the threshold was
            made for: the contamination, or what lies above the percentile.
        alarm_budget: alarms that a detector may raise in held-out rows, such as ``2/day`` or ``0.1/week``; alarms of
            rows that follow each other are one. Null leaves it to `false_alarm_factor`.
        champion_alarms: which rows that the champion alarmed on are left out of training. ``excess``: the longest runs
            of them, beyond as many as its calibration says normal rows raise. ``all`` of them: then a share of the
            normal rows is lost with every retraining, and false alarms become more from month to month. ``none``.
        most_alarms: share of the rows to train on that may be left out so; with more, the data has drifted and a person
            must look.
        latency_ms: most milliseconds of a single score, in the median.
        size_mb: most megabytes of the files that are needed to serve.
    """

    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    events: Count = 140
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    recall_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    false_alarm_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    alarm_budget: Annotated[str, Field(pattern=r"^\d+(\.\d+)?/(hour|day|week)$")] | None = None
    champion_alarms: Literal["excess", "all", "none"] = "excess"
    most_alarms: Share = 0.05
    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    size_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0


class Profile(_Closed):
    """A feature schema with all that training needs to know about the data of one kind of source.

    Attributes:
        description: what the profile is for, in a sentence.
        feature_schema: the metrics, in order.
        timestamp_column: column with times; null for data that has none.
        reader: how files become rows.
        scaling: where the scaler comes from.
        recommended: amount of data below which a warning is given.
        drift: what counts as drift of the data.
        detectors: defaults of the hyperparameters.
        gate: what a retrained model must do to be promoted.
    """

    description: str = ""
    feature_schema: FeatureSchema
    timestamp_column: Annotated[str, Field(min_length=1)] | None = "timestamp"
    reader: Reader = Reader()
    scaling: Scaling = Scaling()
    recommended: Recommended = Recommended()
    drift: DriftDefaults = DriftDefaults()
    detectors: Detectors = Detectors()
    gate: Gate = Gate()

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
