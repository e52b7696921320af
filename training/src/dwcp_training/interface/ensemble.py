"""The ensemble: what several detectors say, on a common scale, joined by weights (S4-5, S4-6; EN1 to EN8)."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dwcp.anomaly.v1 import model_pb2, scoring_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.ensemble import Ensemble
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training import pipeline
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.base import Progress, silent
from dwcp_training.detectors.ensemble import joined_metadata, scale_of, shared, without_scale
from dwcp_training.interface.alignment import check_aligned
from dwcp_training.interface.arrays import items_of, schema_for, table, telemetry_of
from dwcp_training.interface.detector import Detector, candidate_of, changed, percentile_of
from dwcp_training.interface.detectors import (
    SINGLE,
    AutoencoderDetector,
    IsolationForestDetector,
    LocalOutlierFactorDetector,
    LSTMAutoencoderDetector,
    LSTMDetector,
    MahalanobisDetector,
    OneClassSVMDetector,
)
from dwcp_training.interface.errors import DetectorError, NoThresholdError, NotTrainedError
from dwcp_training.interface.sequences import as_series
from dwcp_training.profiles import EnsembleDefaults, load_profile
from dwcp_training.profiles.errors import ProfileError
from dwcp_training.publish import Candidate, check_writable, publish

log = logging.getLogger("dwcp.training")

NAME = "ensemble"

SHORT = {"autoencoder": "dense_autoencoder", "lstm": "lstm_classifier"}
"""Arguments that are called otherwise than the detector in the contract."""

KEYS = {
    "dense_autoencoder": "autoencoder_scores",
    "isolation_forest": "iforest_scores",
    "lstm_classifier": "lstm_scores",
}
"""Detector to the key of its scores in a result; that of any other is `<name>_scores`."""

LEVELS = {
    scoring_pb2.LEVEL_NORMAL: "normal",
    scoring_pb2.LEVEL_WARNING: "warning",
    scoring_pb2.LEVEL_CRITICAL: "critical",
}


@dataclass(frozen=True)
class _Published:
    """An ensemble as it is in a set, and what of its detectors it was made with."""

    scorer: Scorer
    candidates: list[Candidate]
    members: dict[str, Any]


class EnsembleDetector:
    """Joins detectors that are trained already, each with a weight. Who is not given is missing: the others share its
    weight.

    Args:
        autoencoder, isolation_forest, lstm: members, trained or loaded, or None.
        lstm_autoencoder, local_outlier_factor, one_class_svm, mahalanobis: further members; `weights` must name them.
        weights: member to weight, each above 0, summing to 1; without them those of the profile, which are 0.4 for the
            autoencoder, 0.3 for the isolation forest and 0.3 for the LSTM in `industrial`.
        profile: name or file of the profile whose defaults are used.
        hyperparameters: what shall differ from the profile: `warning_threshold`, `critical_threshold`, `seed`.

    Raises:
        ProfileError: no such profile or hyperparameter, or weights that cannot be.
        DetectorError: a member is a detector of another kind, or has no weight.
    """

    name: ClassVar[str] = NAME

    def __init__(
        self,
        autoencoder: AutoencoderDetector | None = None,
        isolation_forest: IsolationForestDetector | None = None,
        lstm: LSTMDetector | None = None,
        *,
        lstm_autoencoder: LSTMAutoencoderDetector | None = None,
        local_outlier_factor: LocalOutlierFactorDetector | None = None,
        one_class_svm: OneClassSVMDetector | None = None,
        mahalanobis: MahalanobisDetector | None = None,
        weights: Mapping[str, float] | None = None,
        profile: str | Path = "industrial",
        **hyperparameters: Any,
    ) -> None:
        given = {
            "autoencoder": autoencoder,
            "isolation_forest": isolation_forest,
            "lstm": lstm,
            "lstm_autoencoder": lstm_autoencoder,
            "local_outlier_factor": local_outlier_factor,
            "one_class_svm": one_class_svm,
            "mahalanobis": mahalanobis,
        }
        found = {SHORT.get(key, key): _checked(key, member) for key, member in given.items() if member is not None}
        self.members: dict[str, Detector] = {name: found[name] for name in detectors.BY_NAME if name in found}
        self._profile, self._profile_name = load_profile(profile), Path(profile).name
        if weights is not None:
            hyperparameters["weights"] = _by_contract(weights)
        self.settings: EnsembleDefaults = self._with(self._profile.detectors.ensemble, hyperparameters)
        self._telemetry: Telemetry | None = None
        self._published: _Published | None = None
        self._facts: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._check_weights(self.settings)

    # --- weights ---

    @property
    def weights(self) -> dict[str, float]:
        """Detector to weight, also of those that are missing."""
        return dict(self.settings.weights)

    def set_weights(self, **weights: float) -> Self:
        """Sets all weights, named as the arguments of the class: `set_weights(autoencoder=0.5, isolation_forest=0.5)`.

        Raises:
            ProfileError: they do not sum to 1, one is not above 0, or no detector is called so.
            DetectorError: a member has none.
        """
        self._change(self._with(self.settings, {"weights": _by_contract(weights)}))
        return self

    # --- training ---

    def train_model(self, X_train: ArrayLike, *, progress: Progress = silent, **hyperparameters: Any) -> Self:
        """Says which normal rows calibrate p-values and give golden vectors when the ensemble is saved.

        The members stay as they are. It is needed where no member was trained here: else the normal rows of the member
        with the longest sequence are taken.

        Args:
            X_train: rows `[n, features]` or sequences `[n, sequence_length, features]`, as for the members.
            progress: told how far it is.
            hyperparameters: what shall differ from now on, for example `warning_threshold=0.4`.

        Raises:
            NotTrainedError: a member has no model yet, or there is none.
            DataError: the rows cannot be used; nothing has changed then.
            ProfileError: no such hyperparameter, or a value that cannot be.
        """
        scorer = self._scorer("train_model")
        settings = self._with(self.settings, hyperparameters)
        values = _table(X_train, "X_train", scorer)
        rows, segments = as_series(values)
        progress(1, 1, "normal rows")
        schema = schema_for(rows.shape[1], scorer.feature_names, self._profile)
        telemetry = telemetry_of(rows, segments, schema, self._profile)
        self._change(settings)
        self._telemetry = telemetry
        return self

    def compute_threshold(
        self, X: ArrayLike, percentile: float | None = None, contamination: float | None = None
    ) -> float:
        """Moves the score above which the ensemble warns so that it lies at a percentile of the scores of normal data.

        Args:
            X: normal rows, or sequences, as for `predict`.
            percentile: share of their scores in percent that lies below.
            contamination: the same said otherwise, the share from 0 to 1 that lies above. Without either it is what the
                profile has, 0.3: where each member alone would alarm (EN8).

        Returns:
            The threshold: a midpoint of two neighbouring float32 numbers (D2).

        Raises:
            NotTrainedError: a member has no model yet, or there is none.
            DataError: `X` cannot be scored, the arguments make no sense, or the percentile lies at 0, or not below what
                is critical.
        """
        wanted = percentile_of(percentile, contamination)
        scores = self.predict(X)["ensemble_scores"].astype(np.float64)
        if wanted is None:
            warning = self._profile.detectors.ensemble.warning_threshold
        else:
            trained = float(np.percentile(scores, wanted))
            warning = 0.0
            with suppress(ValueError):
                warning = _just_above(midpoint_threshold(trained, scores))
            if not 0 < warning < self.settings.critical_threshold:
                raise DataError(
                    "X",
                    f"percentile {wanted:g} of the {len(scores):,} scores is {trained:g}; the ensemble warns above "
                    f"0 and below {self.settings.critical_threshold:g}.",
                    "Use normal data, another percentile, or a higher critical_threshold.",
                )
        self._change(self._with(self.settings, {"warning_threshold": warning}))
        return self.threshold

    @property
    def threshold(self) -> float:
        """Above it a score is an anomaly: `warning` or `critical`.

        Raises:
            NoThresholdError: a member has no model yet, or there is none.
        """
        try:
            return float(self._scorer("threshold").threshold)
        except NotTrainedError as error:
            raise NoThresholdError("threshold", error.message, error.remedy) from None

    # --- scoring ---

    def predict(self, X: ArrayLike | None = None, X_sequences: ArrayLike | None = None) -> dict[str, Any]:
        """Scores moments, by the code that serves (P2). One score depends on nothing else that is in the call (S4-6).

        With sequences there is one result for each, about the moment of its last row: members that score single rows
        score that one. With rows alone there is one for each row, or, where a member has a window, for each full
        sequence in them: the first is about row `sequence_length - 1`.

        Args:
            X: raw rows of one unbroken series `[n, features]`, oldest first; or sequences, as below.
            X_sequences: sequences of these rows `[m, sequence_length, features]`, as `create_sequences` makes them.

        Returns:
            `ensemble_scores`, float32 `[m]`, 0 to 1, higher is worse; `alert_levels`, text `[m]`: `normal`, `warning`
            or `critical`; `autoencoder_scores`, `iforest_scores`, `lstm_scores` and `<name>_scores` of any other
            member: its scores on the common scale, float64 `[m]`, 0 to 1, with its own threshold at 0.3. None for a
            missing one, and for one that is left out (`left_out`).

        Raises:
            NotTrainedError: a member has no model yet, or there is none.
            DataError: the arrays cannot be scored, or are not of the same moments.
            DetectorError: the members cannot be joined, or one failed.
        """
        scorer = self._scorer("predict")
        result: dict[str, Any] = {"ensemble_scores": None, "alert_levels": None, **dict.fromkeys(KEYS.values())}
        parts = [scorer.run(items, Explain.NEVER) for items in _items(X, X_sequences, scorer)]
        result["ensemble_scores"] = np.concatenate([part.scores for part in parts])
        result["alert_levels"] = np.array([LEVELS[level] for part in parts for level in part.levels.tolist()])
        result |= {KEYS.get(name, f"{name}_scores"): None for name in self.members}
        first = parts[0].members
        assert first is not None
        for k, detector in enumerate(first.detectors):
            name = detectors.NAMES[detector]
            key = KEYS.get(name, f"{name}_scores")
            failed = [part.members.missing[k] for part in parts if part.members and part.members.missing[k]]
            if name in self.members and failed:
                raise DetectorError("predict", f"{name}: {failed[0]}.", "Train this member again, or leave it out.")
            result[key] = None if failed else np.concatenate([p.members.normalized[k] for p in parts if p.members])
        return result

    # --- keeping ---

    def save(self, folder: str | Path) -> ModelSet:
        """Publishes members and ensemble into one folder, without by-products: nothing in it is a pickle.

        Returns:
            The model set, opened.

        Raises:
            NotTrainedError: a member has no model yet, there is none, or no normal rows are known.
            DataError: there is but one member, or too few normal rows.
            DetectorError: the members cannot be joined.
            PublishError, ExportFailedError, ContractError: as of every detector.
        """
        scorer = self._scorer("save")
        output = Path(folder)
        check_writable(output, "folder")
        if self._published is not None and scorer is self._published.scorer:
            return publish(output, self._published.candidates)
        telemetry = self._normal_rows()
        candidates = [replace(member.candidate(), byproducts={}) for member in self.members.values()]
        with TemporaryDirectory() as scratch:
            publish(Path(scratch), candidates)
            fitted = pipeline.fit(NAME, telemetry, self.settings, models=Path(scratch))
            joined, _ = pipeline.export(NAME, fitted, self.settings.seed)
        self._facts = fitted.facts
        return publish(output, [*candidates, joined])

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Opens the model set in a folder, whoever wrote it: digests checked, graphs audited, golden vectors run (A5).

        Raises:
            ContractError: it is no whole model set, or has no ensemble.
        """
        return cls.of_set(ModelSet.open(folder))

    @classmethod
    def of_set(cls, models: ModelSet) -> Self:
        """The ensemble of an open set; raises as `load` does."""
        scorer = models.model(NAME)
        said = scorer.metadata.ensemble
        weights = {detectors.NAMES[entry.detector]: entry.weight for entry in said.members}
        ensemble = cls(
            weights=weights,
            warning_threshold=_just_above(scorer.threshold),
            critical_threshold=_just_above(said.critical_threshold),
        )
        ensemble.members = {name: SINGLE[name].of_set(models) for name in weights if name in models.models}
        candidates = [candidate_of(models, name) for name in (*ensemble.members, NAME)]
        ensemble._published = _Published(scorer, candidates, ensemble._models())
        return ensemble

    # --- what it is ---

    @property
    def metadata(self) -> model_pb2.ModelMetadata:
        """Features, weights, scales and thresholds; once loaded also calibration and training record.

        Raises:
            NotTrainedError: a member has no model yet, or there is none.
        """
        return self._scorer("metadata").metadata

    @property
    def left_out(self) -> dict[str, str]:
        """Detectors that were given and are no members, with the reason: the threshold of such a one is not above the
        median of its held-out normal scores, so that it has no place on the common scale (EN8). The others share its
        weight. Raises as `metadata` does."""
        self._scorer("left_out")
        return dict(self._left_out)

    @property
    def facts(self) -> dict[str, str]:
        """What a person wants to know of the ensemble that was saved last, label to text; empty before."""
        return dict(self._facts)

    @property
    def sequence_length(self) -> int | None:
        """Rows in a sequence: the longest of the members'; None where none has one."""
        left_out = self._without_scale()
        lengths = [member.sequence_length or 0 for name, member in self.members.items() if name not in left_out]
        return max(lengths, default=0) or None

    # --- inside ---

    def _with(self, settings: EnsembleDefaults, changes: dict[str, Any]) -> EnsembleDefaults:
        return changed(settings, changes, f"{self._profile_name}, {NAME}")

    def _change(self, settings: EnsembleDefaults) -> None:
        """Other settings from now on: what was published is another ensemble then."""
        self._check_weights(settings)
        self.settings, self._published = settings, None

    def _check_weights(self, settings: EnsembleDefaults) -> None:
        for name in self.members:
            if settings.weights and name not in settings.weights:
                raise DetectorError(
                    "weights",
                    f"{name} is a member and has no weight; there are weights for {', '.join(settings.weights)}.",
                    "Give every member one, with weights={...} or set_weights(...), or leave the member out.",
                )

    def _models(self) -> dict[str, Any]:
        return {name: member.model for name, member in self.members.items()}

    def _without_scale(self) -> dict[str, str]:
        """Members, of those that have a model, that have no place on the common scale, and why; raises as
        `without_scale`."""
        trained = {name: model.metadata for name, model in self._models().items() if model is not None}
        return without_scale(trained) if trained else {}

    def _scorer(self, asked: str) -> Scorer:
        """What scores; raises as `predict` does where there is nothing."""
        models = self._models()
        if not models:
            raise NotTrainedError(
                asked,
                "EnsembleDetector has no member.",
                "Give it detectors, EnsembleDetector(autoencoder=..., isolation_forest=..., lstm=...), or call "
                "EnsembleDetector.load(folder) first.",
            )
        for name, model in models.items():
            if model is None:
                kind = type(self.members[name]).__name__
                raise NotTrainedError(
                    asked,
                    f"the member {name} has no model yet.",
                    f"Call train_model(X) of it or {kind}.load(folder) first, or leave it out.",
                )
        if self._published is not None and self._published.members == models:
            return self._published.scorer
        return Ensemble(self._provisional(models), models)

    def _provisional(self, models: Mapping[str, Scorer]) -> model_pb2.ModelMetadata:
        """All that scoring needs; p-values, which are not part of a result, are calibrated when it is saved."""
        first = next(iter(models.values()))
        for name, model in models.items():
            if model.feature_names != first.feature_names:
                raise DetectorError(
                    name,
                    f"it has the features {', '.join(model.feature_names[:8])}; {first.name} has "
                    f"{', '.join(first.feature_names[:8])} (EN1).",
                    "Train the members on the same columns, in one order, with the same names.",
                )
            if not model.exact:
                raise DetectorError(
                    name, "it is in the TOLERANCE class, and an ensemble is exact (EN4).", "Train it in float64."
                )
        left_out = self._without_scale()
        if left_out != self._left_out:
            for name, why in left_out.items():
                log.warning("%s is left out of the ensemble: %s", name, why)
            self._left_out = left_out
        members = {name: model for name, model in models.items() if name not in left_out}
        wanted = self.settings.weights or dict.fromkeys(members, 1.0)
        metadata = joined_metadata(list(members.values()), self.settings)
        metadata.ensemble.members.extend(
            scale_of(members[name].metadata, weight)
            for name, weight in shared({name: wanted[name] for name in members}).items()
        )
        metadata.calibration.scores.append(0.0)
        return metadata

    def _normal_rows(self) -> Telemetry:
        """Those of `train_model`, or of the member with the longest sequence of those that were trained here."""
        if self._telemetry is not None:
            return self._telemetry
        trained = [member for member in self.members.values() if member.telemetry is not None]
        if not trained:
            raise NotTrainedError(
                "save",
                "all members were loaded, so that no normal rows are known to calibrate the ensemble with.",
                "Call train_model(X) of the ensemble with normal rows first.",
            )
        telemetry = max(trained, key=lambda member: member.sequence_length or 1).telemetry
        assert telemetry is not None
        return replace(telemetry.normal(), labels=None)


def _checked(argument: str, member: Detector) -> Detector:
    kind = SINGLE[SHORT.get(argument, argument)]
    if not isinstance(member, kind):
        raise DetectorError(argument, f"it is a {type(member).__name__}.", f"Give a {kind.__name__}, or None.")
    return member


def _by_contract(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights by the names of the contract; raises ProfileError where one is given twice."""
    named = {SHORT.get(name, name): weight for name, weight in weights.items()}
    if len(named) < len(weights):
        raise ProfileError("weights", f"a detector is there twice: {', '.join(weights)}.", "Give each one weight.")
    if not named:
        raise ProfileError("weights", "there are none.", "Give every member one; they sum to 1.")
    return named


def _just_above(midpoint: float) -> float:
    """The float32 number above a midpoint of D2: `midpoint_below` of it is that midpoint again."""
    near = np.float32(midpoint)
    return float(near if float(near) > midpoint else np.nextafter(near, np.float32(np.inf)))


def _sequence_length(X: ArrayLike, scorer: Scorer) -> int | None:
    """How long sequences in `X` must be: as the members want it, or as they are where none has a window."""
    if scorer.windowed:
        return scorer.timesteps
    try:
        shape = np.shape(X)
    except ValueError:  # a ragged list has no shape; `table` refuses it
        return None
    return shape[1] if len(shape) == 3 else None


def _items(X: ArrayLike | None, X_sequences: ArrayLike | None, scorer: Scorer) -> Iterator[NDArray[np.float64]]:
    """What is scored, `[n, timesteps, features]`, in parts."""
    if X is None and X_sequences is None:
        raise DataError("X", "neither rows nor sequences are given.", "Give X, X_sequences, or both.")
    rows = None if X is None else _table(X, "X", scorer)
    sequences = None if X_sequences is None else _table(X_sequences, "X_sequences", scorer)
    if sequences is None:
        assert rows is not None
        return items_of(rows if rows.ndim == 2 else rows[:, -scorer.timesteps :], scorer.timesteps)
    if sequences.ndim != 3:
        raise DataError(
            "X_sequences",
            f"its shape is {list(sequences.shape)}, that of rows.",
            "Make sequences with create_sequences(X), or give rows as X alone.",
        )
    if rows is not None:
        if rows.ndim != 2:
            raise DataError("X", "sequences are given twice.", "Give rows as X, or sequences alone.")
        check_aligned(rows, sequences)
    return items_of(sequences[:, -scorer.timesteps :], scorer.timesteps)


def _table(X: ArrayLike, argument: str, scorer: Scorer) -> NDArray[np.float64]:
    return table(X, argument, _sequence_length(X, scorer), scorer.feature_names)


BY_NAME: dict[str, type[Detector] | type[EnsembleDetector]] = {**SINGLE, NAME: EnsembleDetector}
"""Name of a detector in the contract to its class."""
