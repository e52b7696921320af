"""Ensemble: members' published scores on a common scale, joined by weights (S4-5, S4-6; rules EN1 to EN8)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.calibrate import midpoint_below
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.fingerprint import fingerprint
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split, window_starts, windows
from dwcp_training.detectors.base import HELD_OUT, Evaluation, Fitted, Floats, Progress, record_data, silent
from dwcp_training.detectors.fitted_weights import FittedWeights, fit_weights
from dwcp_training.detectors.member_scores import Member, items_of, members_of
from dwcp_training.profiles import EnsembleDefaults

log = logging.getLogger("dwcp.training")

NAME = "ensemble"
LAYOUT = "ensemble.v2"

KNEE = 7 / 3
"""What makes 0.3 of a member's threshold on the common scale: 1 / (1 + 7/3) (EN8)."""


class EnsembleReference:
    """EN4, EN7 and EN8 in numpy float64 on the members' published scores.

    Args:
        members: in the order of the metadata.
        metadata: has weights and scales; the threshold is read at each evaluation.
    """

    def __init__(self, members: Sequence[Member], metadata: model_pb2.ModelMetadata) -> None:
        self.members, self._metadata = list(members), metadata

    def normalized(self, items: Floats) -> Floats:
        """The members' scores on the common scale, float64 `[members, n]`, of items `[n, timesteps, features]`."""
        return self._on_common_scale([member.scores(items) for member in self.members])

    def _on_common_scale(self, published: Sequence[NDArray[np.float32]]) -> Floats:
        entries = self._metadata.ensemble.members
        return np.array([on_common_scale(s, e.low, e.threshold) for s, e in zip(published, entries, strict=True)])

    def scores(self, items: Floats) -> Floats:
        """Unrounded scores, float64 `[n]` (EN4)."""
        return weighted_mean(self.normalized(items), self._weights)

    def evaluate(self, items: Floats) -> Evaluation:
        verdicts = [member.model.run(member.of(items), Explain.ALWAYS) for member in self.members]
        normalized = self._on_common_scale([verdict.scores for verdict in verdicts])
        scores = weighted_mean(normalized, self._weights)
        parts = [weight * n for weight, n in zip(self._weights, normalized, strict=True)]
        total = sum(parts, np.zeros(len(items)))[:, np.newaxis]
        blamed = np.zeros((len(items), items.shape[2]))
        for part, verdict in zip(parts, verdicts, strict=True):
            blamed = blamed + part[:, np.newaxis] * verdict.contributions.astype(np.float64)
        loudest = np.argmax(np.array(parts), axis=0)
        expected = np.array([verdict.expected for verdict in verdicts])[loudest, np.arange(len(items))]
        return Evaluation(
            scores=scores,
            is_anomaly=scores.astype(np.float32).astype(np.float64) > self._metadata.threshold,
            contributions=np.divide(blamed, total, out=np.zeros_like(blamed), where=total != 0),
            expected=expected.astype(np.float64),
            expected_is_stored=True,
            inner=lambda: np.concatenate([member.unrounded(items) for member in self.members], axis=1),
        )

    @property
    def threshold(self) -> float:
        """Above it the ensemble alarms."""
        return float(self._metadata.threshold)

    @property
    def _weights(self) -> list[float]:
        return [entry.weight for entry in self._metadata.ensemble.members]


def on_common_scale(scores: NDArray[np.float32], low: float, threshold: float) -> Floats:
    """EN8, float64 `[n]`: 0 up to `low`, 0.3 at the threshold, and towards 1 beyond."""
    u = np.maximum((scores.astype(np.float64) - low) / (threshold - low), 0.0)
    return u / (u + KNEE)


def weighted_mean(normalized: Floats, weights: Sequence[float]) -> Floats:
    """EN4, float64 `[n]`, of normalized scores `[members, n]`: one addition after the other."""
    joined, total = np.zeros(normalized.shape[1]), 0.0
    for weight, n in zip(weights, normalized, strict=True):
        joined, total = joined + weight * n, total + weight
    return joined / total


def fit_ensemble(
    telemetry: Telemetry,
    settings: EnsembleDefaults,
    progress: Progress = silent,
    *,
    models: Path,
    labelled: Telemetry | None = None,
    given: bool = False,
) -> Fitted:
    """Joins the detectors of a published set.

    Nothing is trained on the rows: they calibrate p-values and give golden vectors. As much of their end by time is
    held out as by the member that held out least.

    Args:
        telemetry: normal rows, those that the members were trained on.
        settings: the weights; without any, all members have the same.
        models: folder of the set.
        labelled: rows with labels that the weights are fitted on instead.
        given: the weights were asked for one by one: each must be there. Else those that are not are left out.

    A member that alarms on half of its own held-out data has no place on the common scale (EN8): it is left out, which
    the training record says, as long as another one remains.

    Raises:
        DataError: too few members, or one that cannot be one; the features of members or rows differ; too few rows.
        ContractError: there is no whole model set in the folder.
    """
    opened = ModelSet.open(models)
    weights, left_out = _weights(opened, settings, given=given)
    members = members_of(opened, weights)
    _check_features(opened, members, telemetry, labelled)
    unfit = without_scale({member.name: member.model.metadata for member in members})
    for name, why in unfit.items():
        left_out.append(f"{name} is left out of the ensemble: {why}")
        log.warning(left_out[-1])
    members = [member for member in members if member.name not in unfit]
    weights = shared({member.name: weights[member.name] for member in members})
    timesteps = max(member.model.timesteps for member in members)
    metadata = joined_metadata([member.model for member in members], settings)
    metadata.cadence_seconds = telemetry.cadence_seconds or 0.0
    record_data(metadata.training, telemetry)
    metadata.training.warnings.extend(left_out)
    metadata.training.seed = settings.seed
    progress(0, 3, "scales of the members")
    for member in members:
        metadata.ensemble.members.append(scale_of(member.model.metadata, weights[member.name]))

    share = min([HELD_OUT, *(_held_out(member.model.metadata) for member in members)])
    metadata.training.warnings.extend(_strangers(members, telemetry))
    early, held_out = time_split(telemetry, share, gap=timesteps)
    reference = EnsembleReference(members, metadata)
    progress(1, 3, "weights")
    fitted: FittedWeights | None = None
    if labelled is not None:
        fitted = _fitted(reference, labelled, timesteps)
        for entry, weight in zip(metadata.ensemble.members, fitted.weights, strict=True):
            entry.weight = weight
        metadata.training.history["average_precision"].values.extend([fitted.equal, fitted.best])
        metadata.training.fitted_on = fitted.items
    progress(2, 3, "normal rows")
    held_out_items = windows(held_out.values, held_out.segments, timesteps)
    metadata.training.held_out = len(held_out_items)
    scores = reference.scores(held_out_items).astype(np.float32)
    progress(3, 3, "done")
    return Fitted(
        metadata=metadata,
        graph=_no_graph,
        cross_check=lambda _: {},
        operators=None,
        layout=LAYOUT,
        precision="",
        reference=reference,
        fitted_items=_some(early, timesteps, settings.seed),
        held_out_items=held_out_items,
        byproducts={},
        metadata_file="ensemble_metadata.json",
        graph_file="",
        facts={
            "members": ", ".join(f"{detectors.NAMES[e.detector]} {e.weight:.4g}" for e in metadata.ensemble.members),
            **({"left out": " ".join(left_out)} if left_out else {}),
            **({"weights": fitted.words()} if fitted else {}),
            "window": f"{timesteps} samples" if timesteps > 1 else "one sample",
            "thresholds": f"warning above {settings.warning_threshold:g}, critical above "
            f"{settings.critical_threshold:g}",
            "held-out normal rows": f"{len(scores):,}: {(scores > metadata.threshold).mean():.2%} alarm, "
            f"{(scores > metadata.ensemble.critical_threshold).mean():.2%} critical",
        },
    )


def _no_graph() -> onnx.ModelProto:
    raise NotImplementedError("an ensemble has no graph of its own (EN7)")


def _weights(opened: ModelSet, settings: EnsembleDefaults, *, given: bool) -> tuple[dict[str, float], list[str]]:
    """Weights of the members that can be, summing to 1, and why detectors were left out, in words."""
    usable = [name for name in opened.models if name != NAME]
    wanted = dict(settings.weights) or dict.fromkeys(usable, 1.0)
    missing = [name for name in wanted if name not in usable]
    if missing and given:
        raise DataError(
            "weights",
            f"the set has no {', '.join(missing)} that can be scored; it has {', '.join(usable) or 'none'}.",
            "Train it into the same folder, or give weights for those that are there.",
        )
    present = {name: weight for name, weight in wanted.items() if name in usable}
    if len(present) < 2:
        raise DataError(
            "models",
            f"an ensemble joins two or more detectors, and the set has {', '.join(present) or 'none'} of "
            f"{', '.join(wanted) or 'any'}.",
            "Train more of them into the same folder, or name others with --weights.",
        )
    for name in present:
        if not opened.models[name].exact:
            raise DataError(
                name,
                "it is in the TOLERANCE class, and members of an ensemble have scores that are the same everywhere.",
                "Train it with --precision float64, or name other members with --weights.",
            )
    left_out = [f"{name} is not in the set; the others share its weight." for name in missing]
    left_out += [f"{name} has no weight and is no member." for name in usable if name not in present]
    return shared(present), left_out


def shared(weights: Mapping[str, float]) -> dict[str, float]:
    """The same weights, one to another, summing to 1 (EN1)."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _check_features(
    opened: ModelSet, members: Sequence[Member], telemetry: Telemetry, labelled: Telemetry | None
) -> None:
    """EN1: all speak of the same features in the same order, and so do the rows."""
    first = members[0]
    for member in members[1:]:
        if member.model.feature_names != first.model.feature_names:
            raise DataError(
                member.name,
                f"it scores {', '.join(member.model.feature_names[:8])}; {first.name} scores "
                f"{', '.join(first.model.feature_names[:8])}. Members have the same features in the same order.",
                "Train them on the same data into one folder.",
            )
    for rows in (telemetry, labelled):
        if rows is not None and list(rows.schema.names) != first.model.feature_names:
            raise DataError(
                "profile",
                f"the members score {', '.join(first.model.feature_names[:8])}; the metrics of {rows.source} are "
                f"{', '.join(rows.schema.names[:8])}.",
                "Give the data and the profile of the members.",
            )


def joined_metadata(models: Sequence[Scorer], settings: EnsembleDefaults) -> model_pb2.ModelMetadata:
    """What an ensemble of detectors with the same features has, but for its members' scales and the training record."""
    first = models[0]
    metadata = model_pb2.ModelMetadata(
        schema_version=1,
        model_type=NAME,
        n_features=len(first.feature_names),
        feature_names=first.feature_names,
        feature_schema=first.metadata.feature_schema,
        threshold=midpoint_below(settings.warning_threshold),
        parity_class=model_pb2.PARITY_CLASS_EXACT,
        graph=model_pb2.Graph(available=False, layout=LAYOUT),
    )
    metadata.ensemble.critical_threshold = midpoint_below(settings.critical_threshold)
    if any(model.windowed for model in models):
        metadata.timesteps = max(model.timesteps for model in models)
    return metadata


def scale_of(metadata: model_pb2.ModelMetadata, weight: float) -> model_pb2.EnsembleMember:
    """A member with its scale, from its own metadata: the median of the calibration becomes 0, the threshold 0.3."""
    return model_pb2.EnsembleMember(
        detector=detectors.BY_NAME[metadata.model_type],
        weight=weight,
        threshold=metadata.threshold,
        low=_median(metadata),
    )


def without_scale(members: Mapping[str, model_pb2.ModelMetadata]) -> dict[str, str]:
    """Members that have no place on the common scale, and why: their threshold is not above the median of held-out
    normal scores (EN8).

    Args:
        members: name to metadata.

    Raises:
        DataError: none has one.
    """
    found = {
        name: f"its threshold {metadata.threshold:g} is not above {_median(metadata):g}, the median score of held-out "
        "normal data: half of all normal data alarms."
        for name, metadata in members.items()
        if not metadata.threshold > _median(metadata)
    }
    if len(found) == len(members):
        raise DataError(
            "models",
            "no detector can be a member; " + " ".join(f"{name}: {why}" for name, why in found.items()),
            "The end of the data is unlike the rest: train on data that is normal to its end, or set the thresholds "
            "from the held-out end, with --alarm-budget.",
        )
    return found


def _median(metadata: model_pb2.ModelMetadata) -> float:
    """`low` of EN3 and EN8: the median of the calibration scores."""
    return float(np.median(np.array(metadata.calibration.scores, np.float64)))


def _held_out(metadata: model_pb2.ModelMetadata) -> float:
    """Share of its training data that a member held out."""
    return float(metadata.training.hyperparameters.get("validation_split", HELD_OUT))


def _strangers(members: Sequence[Member], telemetry: Telemetry) -> list[str]:
    """What to say about members that were trained on other rows: which of these they have seen is not known."""
    own = fingerprint(telemetry.values)
    others = [m.name for m in members if m.model.metadata.training.data_fingerprint != own]
    if not others:
        return []
    return [f"{', '.join(others)}: trained on other data than these rows; p-values assume that the end was held out."]


def _fitted(reference: EnsembleReference, labelled: Telemetry, timesteps: int) -> FittedWeights:
    if labelled.labels is None:
        raise DataError("labels", "weights are fitted on labelled rows.", code=DataErrorCode.NO_LABELS)
    parts = [reference.normalized(items) for items in items_of(labelled, timesteps)]
    if not parts:
        raise DataError(
            "fit_on",
            f"no window of {timesteps} samples fits into a run of {labelled.source}.",
            "Use data with longer runs.",
            code=DataErrorCode.TOO_SHORT,
        )
    ends = window_starts(labelled.segments, timesteps) + timesteps - 1
    return fit_weights(np.concatenate(parts, axis=1), labelled.labels[ends])


def _some(early: Telemetry, timesteps: int, seed: int, most: int = 500) -> Floats:
    """Items for golden vectors, drawn at random, in the order of time."""
    items = windows(early.values, early.segments, timesteps)
    chosen = np.sort(np.random.default_rng(seed).choice(len(items), min(most, len(items)), replace=False))
    return items[chosen]
