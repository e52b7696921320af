"""What every detector of the interface can do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ValidationError

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import MANIFEST, ModelSet
from dwcp_training import pipeline
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.base import Fitted, Progress, silent
from dwcp_training.interface.arrays import items_of, schema_for, table, telemetry_of
from dwcp_training.interface.errors import ExportFailedError, NoThresholdError, NotTrainedError
from dwcp_training.interface.sequences import as_series, labels_of_series
from dwcp_training.profiles import load_profile
from dwcp_training.profiles.errors import from_validation
from dwcp_training.publish import Candidate, check_writable, publish


class Detector:
    """A detector that is trained on normal rows and then tells anomalies from them.

    Args:
        input_dim: number of features; where it is given, `train_model` refuses any other.
        feature_names: names of the columns; without them those of the profile, or `x0`, `x1` and so on.
        profile: name or file of the profile whose defaults are used; `industrial` has those of the industrial ensemble.
        hyperparameters: what shall differ from the profile, named as in `dwcp profile show`.

    Raises:
        ProfileError: no such profile or hyperparameter, or a value that cannot be.
    """

    name: ClassVar[str]
    """Name of the detector in the contract."""

    def __init__(
        self,
        input_dim: int | None = None,
        *,
        feature_names: Sequence[str] | None = None,
        profile: str | Path = "industrial",
        **hyperparameters: Any,
    ) -> None:
        self._input_dim = input_dim
        self._given_names = feature_names
        self._profile, self._profile_name = load_profile(profile), Path(profile).name
        self.settings: Any = self._with(getattr(self._profile.detectors, self.name), hyperparameters)
        self._fitted: Fitted | None = None
        self._model: Model | None = None
        self._loaded: Candidate | None = None
        self._telemetry: Telemetry | None = None

    # --- training ---

    def train_model(self, X_train: ArrayLike, *, progress: Progress = silent, **hyperparameters: Any) -> Self:
        """Trains on confirmed-normal rows, the last of which are held out to calibrate (C3), and sets the threshold.

        Args:
            X_train: `[n, features]`, oldest first, raw units: the scaler is part of the model.
            progress: told how far it is.
            hyperparameters: what shall differ from now on, for example `epochs=100`.

        Returns:
            The detector itself.

        Raises:
            DataError: the rows cannot be used; nothing has changed then.
            ProfileError: no such hyperparameter, or a value that cannot be.
            MissingLibraryError: a library is not installed; the message says which.
            ExportFailedError: the trained model could not be turned into a graph.
        """
        settings = self._with(self.settings, hyperparameters)
        return self._train(table(X_train, "X_train", self._length(settings)), None, settings, progress)

    def _train(
        self, values: NDArray[np.float64], labels: NDArray[np.bool_] | None, settings: Any, progress: Progress
    ) -> Self:
        """Trains on a checked table; `labels`, where there are any, one for each row or sequence."""
        rows, segments = as_series(values)
        if labels is not None and values.ndim == 3:
            labels = labels_of_series(labels, segments, values.shape[1])
        width = rows.shape[1]
        if self._input_dim not in (None, width):
            raise DataError(
                "X_train", f"{width} columns; input_dim is {self._input_dim}.", "Make the two agree, or leave it out."
            )
        schema = schema_for(width, self._given_names, self._profile)
        telemetry = telemetry_of(rows, segments, schema, self._profile, labels)
        fitted = pipeline.fit(self.name, telemetry, settings, progress)
        self._model = _scoring(fitted, settings.seed)
        self._fitted, self._loaded, self.settings, self._telemetry = fitted, None, settings, telemetry
        return self

    def compute_threshold(
        self, X: ArrayLike, percentile: float | None = None, contamination: float | None = None
    ) -> float:
        """Moves the threshold so that it lies at a percentile of the scores of normal data.

        Args:
            X: normal rows, or sequences, as for `predict`; best such that were not trained on.
            percentile: share of their scores in percent that lies below; more means fewer alarms.
            contamination: the same said otherwise, the share from 0 to 1 that lies above. Without either it is what
                training used.

        Returns:
            The threshold: a midpoint of two neighbouring float32 numbers (D2).

        Raises:
            NotTrainedError: there is no model yet.
            NoThresholdError: the model was loaded, and a published set is never changed.
            DataError: `X` cannot be scored, the arguments make no sense, or the scores give no threshold.
        """
        fitted = self._movable()
        wanted = self._percentile(percentile, contamination)
        scores = self.predict(X)[0].astype(np.float64)
        trained = float(np.percentile(scores, wanted))
        try:
            threshold = self._threshold_at(trained, scores)
        except ValueError:
            raise DataError(
                "X",
                f"percentile {wanted:g} of the {len(scores):,} scores is {trained:g}, which is no threshold.",
                "Use normal rows that differ from each other, or another percentile.",
            ) from None
        self._note_percentile(fitted.metadata, wanted, len(scores))
        self._move(fitted, threshold, f"percentile {wanted:g} of {len(scores):,} scores given to compute_threshold")
        return threshold

    @property
    def threshold(self) -> float:
        """The decision threshold: a row with a higher score is an anomaly (D1).

        Raises:
            NoThresholdError: the detector is not trained yet.
        """
        if self._model is None:
            raise NoThresholdError(
                "threshold",
                f"{type(self).__name__} has no threshold yet.",
                "Call train_model(X), which sets one, then compute_threshold(X) to move it; or load a model.",
            )
        return float(self.metadata.threshold)

    # --- scoring ---

    def predict(self, X: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores rows, by the code that serves (P2).

        Args:
            X: raw rows `[n, features]`.

        Returns:
            Published scores, float32 `[n]`, higher is worse; labels, int64 `[n]`: 1 for an anomaly, 0 for a normal row.

        Raises:
            NotTrainedError: there is no model yet.
            DataError: `X` cannot be scored.
        """
        model = self._require_model("predict")
        values = table(X, "X", self.sequence_length, model.feature_names)
        parts = [model.run(items, Explain.NEVER) for items in items_of(values, self.sequence_length or 1)]
        scores = np.concatenate([part.scores for part in parts])
        return scores, np.concatenate([part.is_anomaly for part in parts]).astype(np.int64)

    # --- keeping ---

    def save(self, folder: str | Path) -> ModelSet:
        """Publishes the model into a folder, beside those of other detectors that are there.

        It is cross-checked with other converters, gets golden vectors, and is opened as any reader would (A2).

        Returns:
            The model set, opened.

        Raises:
            NotTrainedError: there is no model yet.
            PublishError: the folder cannot be written.
            ExportFailedError: the graph does not score as the model does; the set in use stays.
            ContractError: the set does not pass its own verification; the set in use stays.
        """
        self._require_model("save")
        output = Path(folder)
        check_writable(output, "folder")
        return publish(output, [self.candidate()])

    def candidate(self) -> Candidate:
        """What `save` publishes: cross-checked, with golden vectors. Raises as `save` does."""
        self._require_model("save")
        candidate = self._loaded
        if self._fitted is not None:
            candidate, warning = pipeline.export(self.name, self._fitted, self.settings.seed)
            if warning:
                raise ExportFailedError("save", warning, "Train it again; if that does not help, report it.")
        assert candidate is not None  # what has a model was trained or loaded
        return candidate

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Opens the model set in a folder, whoever wrote it: digests checked, graph audited, golden vectors run (A5).

        Raises:
            ContractError: it is no whole model set, or has no model of this detector.
        """
        return cls.of_set(ModelSet.open(folder))

    @classmethod
    def of_set(cls, models: ModelSet) -> Self:
        """The detector of an open set; raises as `load` does."""
        model = models.model(cls.name)
        assert isinstance(model, Model)  # all but an ensemble have a graph
        detector = cls(feature_names=tuple(model.feature_names))
        detector._model, detector._loaded = model, candidate_of(models, cls.name)
        return detector

    # --- what it is ---

    @property
    def metadata(self) -> model_pb2.ModelMetadata:
        """All that is known about the model: features, scaler, threshold, training record with its history.

        Raises:
            NotTrainedError: there is no model yet.
        """
        return self._require_model("metadata").metadata

    @property
    def model(self) -> Model | None:
        """What scores, the serving core; None before training."""
        return self._model

    @property
    def telemetry(self) -> Telemetry | None:
        """What it was trained on; None for a model that was loaded."""
        return self._telemetry

    @property
    def facts(self) -> dict[str, str]:
        """What a person who trains wants to know, label to text; empty for a model that was loaded."""
        return {} if self._fitted is None else dict(self._fitted.facts)

    @property
    def sequence_length(self) -> int | None:
        """Rows in a sequence; None for a detector that scores single rows."""
        return self._length(self.settings)

    # --- inside ---

    @staticmethod
    def _length(settings: Any) -> int | None:
        """`sequence_length` with these settings."""
        return None

    def _with(self, settings: BaseModel, changes: dict[str, Any]) -> Any:
        return changed(settings, changes, f"{self._profile_name}, {self.name}")

    def _require_model(self, asked: str) -> Model:
        if self._model is None:
            kind = type(self).__name__
            raise NotTrainedError(
                asked, f"{kind} has no model yet.", f"Call train_model(X) or {kind}.load(folder) first."
            )
        return self._model

    def _movable(self) -> Fitted:
        """What was fitted; raises as `compute_threshold` does where there is nothing whose threshold may move."""
        self._require_model("compute_threshold")
        if self._fitted is None:
            raise NoThresholdError(
                "compute_threshold",
                f"this {type(self).__name__} was loaded, and a published model set is never changed (A2).",
                "Train a detector with train_model(X), move its threshold, and save that.",
            )
        return self._fitted

    def _percentile(self, percentile: float | None, contamination: float | None) -> float:
        wanted = percentile_of(percentile, contamination)
        return self._trained_percentile() if wanted is None else wanted

    @staticmethod
    def _threshold_at(trained: float, scores: NDArray[np.float64]) -> float:
        """The midpoint nearest to a percentile of scores; raises ValueError where there is none."""
        return midpoint_threshold(trained, scores)

    def _trained_percentile(self) -> float:
        """The percentile that training uses."""
        settings = self.settings
        if (percentile := getattr(settings, "threshold_percentile", None)) is not None:
            return float(percentile)
        if (contamination := getattr(settings, "contamination", None)) is not None:
            return 100.0 * (1.0 - contamination)
        raise DataError("percentile", f"{self.name} was trained without one.", "Give percentile or contamination.")

    def _note_percentile(self, metadata: model_pb2.ModelMetadata, percentile: float, count: int) -> None:
        """Writes down the percentile of `count` scores where the metadata have a place for it."""
        if metadata.HasField("lstm"):
            metadata.lstm.threshold_percentile = percentile
        elif metadata.HasField("dense"):
            metadata.dense.threshold_percentile = percentile
        else:  # of 100 % below, less than one in all the scores and the next
            metadata.contamination = max(1.0 - percentile / 100.0, 1.0 / (count + 1))

    def _move(self, fitted: Fitted, threshold: float, said: str) -> None:
        """Makes all decide at another threshold; `said` is where it comes from."""
        fitted.metadata.training.hyperparameters["threshold"] = said
        fitted.facts["threshold"] = f"{threshold:.6f}: {said}"
        fitted.move_threshold(threshold)
        self._model = _scoring(fitted, self.settings.seed)


def _scoring(fitted: Fitted, seed: int) -> Model:
    """The serving core with the graph of what was fitted."""
    try:
        return Model(fitted.metadata, pipeline.built(fitted, seed)[1])
    except Exception as error:  # whatever a converter raises
        raise ExportFailedError(
            "train_model", f"{type(error).__name__}: {error}.", "Train with other settings; if it stays, report it."
        ) from error


def changed(settings: BaseModel, changes: dict[str, Any], source: str) -> Any:
    """Settings with some of them changed. Raises ProfileError that says where they are from."""
    kind = type(settings)
    try:
        return kind.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        raise from_validation(error, kind, source) from None


def percentile_of(percentile: float | None, contamination: float | None) -> float | None:
    """The percentile that is asked for, in either way; None without any. Raises DataError for what makes no sense."""
    if percentile is not None and contamination is not None:
        raise DataError("contamination", "given together with percentile.", "Give one of the two.")
    if contamination is not None:
        if not 0 < contamination < 1:
            raise DataError("contamination", f"{contamination} is no share.", "Give one between 0 and 1.")
        return 100.0 * (1.0 - contamination)
    if percentile is not None and not 0 < percentile <= 100:
        raise DataError("percentile", f"{percentile} is no percentile.", "Give one above 0, up to 100.")
    return percentile


def candidate_of(models: ModelSet, name: str) -> Candidate:
    """A model of an open set, to be published as it is, without by-products."""
    manifest = protojson.parse((models.path / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
    metadata = models.metadata[name]
    (file,) = (entry.metadata for entry in manifest.models if entry.detector == detectors.BY_NAME[name])
    graph = (models.path / metadata.graph.file).read_bytes() if metadata.graph.available else None
    return Candidate(name, file, metadata, graph, models.golden[name], {})
