"""From telemetry to a published model set: fit, export, cross-check, calibrate, golden vectors, publish."""

import logging
import platform
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import BaseModel

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar.audit import audit_graph, audit_metadata
from dwcp_sidecar.ensemble import Ensemble
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.onnx_file import OnnxFile
from dwcp_sidecar.signatures import SIGNATURE
from dwcp_training.alarm_budget import OVERRIDDEN, AlarmBudget, keep_budget
from dwcp_training.calibrate import calibration_scores
from dwcp_training.data.errors import DataError
from dwcp_training.data.fingerprint import fingerprint
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.base import Fitted, Progress, silent
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.drift_reference import describe
from dwcp_training.export.graph import operator_counts
from dwcp_training.golden import make_golden
from dwcp_training.golden.drafts import drafts_for
from dwcp_training.publish import Candidate, Signer, check_writable, publish

log = logging.getLogger("dwcp.training")

LIBRARIES = ("scikit-learn", "numpy", "keras", "tensorflow-cpu", "onnx", "onnxruntime", "skl2onnx", "tf2onnx")


LATER_SETTINGS = {"window_stride": 1}
"""Settings that came after the first sets, with the value that those had: it goes unsaid, so that the same data and
settings give a set of the same id as then."""


class ExportCheckError(RuntimeError):
    """The exported graph is not what was asked for."""


@dataclass(frozen=True)
class Trained:
    """Outcome of a training run.

    Attributes:
        models: the published set.
        detector: name of what was trained.
        facts: what to tell the person who trains, label to text.
        warning: why there is no ONNX graph, or an empty text.
        no_drift: why there is no drift reference, or an empty text.
    """

    models: ModelSet
    detector: str
    facts: dict[str, str]
    warning: str
    no_drift: str = ""


def train(
    detector: str,
    telemetry: Telemetry,
    settings: BaseModel,
    output: Path,
    progress: Progress = silent,
    *,
    signer: Signer | None = None,
    **options: Any,
) -> Trained:
    """Trains one detector and publishes it into a folder.

    Args:
        detector: name in the registry.
        telemetry: confirmed-normal data.
        settings: the detector's hyperparameters.
        output: folder of the model set.
        signer: signs the published set (A8); None leaves it unsigned.
        options: further arguments of the detector's fit, for example `precision`; and `alarm_budget`, which says where
            the threshold is in place of the settings (C5).

    Raises:
        DataError: when there is too little data, or the alarm budget cannot be kept.
        PublishError: when the folder cannot be written.
        ContractError: when the set does not pass its own verification.
    """
    check_writable(output)
    fitted = fit(detector, telemetry, settings, progress, **options)
    candidate, warning = export(detector, fitted, settings.seed)
    models = publish(output, [candidate], signer)
    facts = {**fitted.facts, "model set": f"{models.id[:16]} in {output}"}
    if signer is not None:
        facts["signed"] = f"{SIGNATURE}, readers with the public key accept it"
    if candidate.golden:
        facts["golden vectors"] = f"{len(candidate.golden.cases)} cases, all passed"
    return Trained(models, detector, facts, warning, fitted.no_drift)


def fit(
    detector: str,
    telemetry: Telemetry,
    settings: BaseModel,
    progress: Progress = silent,
    *,
    alarm_budget: AlarmBudget | None = None,
    drift: bool = True,
    **options: Any,
) -> Fitted:
    """Fits one detector and writes down what it was fitted on and with. Arguments and errors as of `train`.

    Args:
        drift: make a drift reference; a set of a fleet does without (FL9).
    """
    _check_varies(telemetry)
    if alarm_budget is not None:
        alarm_budget.share(telemetry.cadence_seconds)  # before the long work
    fitted = DETECTORS[detector].fit(telemetry, settings, progress, **options)
    if alarm_budget is not None:
        keep_budget(fitted, alarm_budget, telemetry.cadence_seconds)
    record = fitted.metadata.training
    record.data_fingerprint = fingerprint(telemetry.values)
    record_settings(record, settings, OVERRIDDEN if alarm_budget is not None else ())
    if drift and detector != "ensemble":  # its members have their own
        _describe(fitted, telemetry, settings.seed)  # type: ignore[attr-defined]  # every detector's settings have one
    return fitted


def record_settings(record: model_pb2.TrainingRecord, settings: BaseModel, left_out: Collection[str] = ()) -> None:
    """Writes down the hyperparameters, but for some, and the versions of the libraries."""
    for name, setting in settings.model_dump().items():
        if name in left_out:
            continue
        if name not in LATER_SETTINGS or LATER_SETTINGS[name] != setting:
            record.hyperparameters[name] = str(setting)
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):  # scikit-learn's detectors need no TensorFlow (S2-7)
            record.library_versions[library] = version(library)
    record.library_versions["python"] = platform.python_version()


def _describe(fitted: Fitted, telemetry: Telemetry, seed: int) -> None:
    """Adds what later rows are compared with to see drift (DR1 to DR4), or the reason why it cannot be."""
    described = describe(telemetry, seed)
    if described.reference is None:
        fitted.no_drift = f"no drift reference: {described.warning}"
        fitted.metadata.training.warnings.append(fitted.no_drift)
        return
    fitted.metadata.drift.CopyFrom(described.reference.message())
    fitted.facts["drift"] = f"reference of {described.reference.rows:,} normal rows"


def _check_varies(telemetry: Telemetry) -> None:
    """One constant metric is a warning; if none ever changes there is nothing to learn."""
    if len(telemetry) > 1 and bool((telemetry.values == telemetry.values[0]).all()):
        raise DataError(
            "rows",
            f"no metric ever changes in {len(telemetry):,} rows: {', '.join(telemetry.schema.names[:5])} and so on.",
            "Check the export of the data; a model can learn nothing from constants.",
        )


def export(detector: str, fitted: Fitted, seed: int, *, quick: bool = False) -> tuple[Candidate, str]:
    """Exports, cross-checks, calibrates and makes golden vectors.

    A failing conversion is a warning, never a lost training run (S1-9): the candidate then has no graph, and says why.

    Args:
        quick: leave out the comparison with the graph of another converter, where the detector's check has a part
            without (`Fitted.quick_check`).
    """
    metadata = fitted.metadata
    if not fitted.graph_file:
        return Candidate(detector, fitted.metadata_file, metadata, None, _joined(fitted, seed), fitted.byproducts), ""
    graph: bytes | None = None
    golden: golden_pb2.GoldenFile | None = None
    warning = ""
    try:
        graph, golden = _exported(fitted, seed, quick)
    except Exception as error:  # whatever a converter raises
        warning = f"no ONNX graph: {type(error).__name__}: {error}"
        log.debug(warning, exc_info=True)  # the caller shows the warning
        metadata.ClearField("graph")
        metadata.graph.unavailable_reason = warning
        scores = fitted.reference.evaluate(fitted.held_out_items).scores
        _calibrate(fitted, scores.astype(np.float32), seed)
    return Candidate(detector, fitted.metadata_file, metadata, graph, golden, fitted.byproducts), warning


def built(fitted: Fitted, seed: int) -> tuple[onnx.ModelProto, bytes]:
    """The graph and its bytes, with what the metadata say about it, calibrated (C1): all that is needed to score.

    Raises:
        ExportCheckError: when the graph is not what was asked for; a converter may raise anything.
    """
    metadata = fitted.metadata
    onnx_model = fitted.graph()
    counts = operator_counts(onnx_model)
    if fitted.operators is not None and counts != dict(sorted(fitted.operators.items())):
        raise ExportCheckError(f"operators of the graph are {counts}, wanted {fitted.operators}")
    graph = onnx_model.SerializeToString(deterministic=True)
    metadata.graph.file, metadata.graph.available = fitted.graph_file, True
    metadata.graph.layout, metadata.graph.precision = fitted.layout, fitted.precision
    for operator, count in counts.items():
        metadata.graph.operator_counts[operator] = count
    # Calibrated by the code that serves: with provisional calibration the model can already score.
    metadata.calibration.scores.append(0.0)
    _calibrate(fitted, Model(metadata, graph).run(fitted.held_out_items, Explain.NEVER).scores, seed)
    return onnx_model, graph


def _exported(fitted: Fitted, seed: int, quick: bool) -> tuple[bytes, golden_pb2.GoldenFile]:
    onnx_model, graph = built(fitted, seed)
    check = fitted.quick_check if quick and fitted.quick_check is not None else fitted.cross_check
    for other, finding in check(onnx_model).items():
        fitted.facts[f"against {other}"] = finding
    audit_metadata(fitted.metadata, fitted.metadata_file)
    audit_graph(fitted.metadata, OnnxFile.parse(graph, fitted.graph_file))
    model = Model(fitted.metadata, graph)
    golden = make_golden(model, fitted.reference, drafts_for(fitted, seed))
    return graph, golden


def _joined(fitted: Fitted, seed: int) -> golden_pb2.GoldenFile:
    """Golden vectors of an ensemble, which is calibrated here. Its members are verified already, as parts of a set."""
    metadata = fitted.metadata
    metadata.calibration.scores.append(0.0)
    ensemble = Ensemble(metadata, {member.name: member.model for member in fitted.reference.members})
    _calibrate(fitted, ensemble.run(fitted.held_out_items, Explain.NEVER).scores, seed)
    audit_metadata(metadata, fitted.metadata_file)
    return make_golden(ensemble, fitted.reference, drafts_for(fitted, seed))


def _calibrate(fitted: Fitted, scores: np.ndarray, seed: int) -> None:
    calibration = fitted.metadata.calibration
    del calibration.scores[:]
    if fitted.calibration is not None:
        found, calibration.source = fitted.calibration
        calibration.scores.extend(calibration_scores(found, seed).tolist())
        return
    calibration.scores.extend(calibration_scores(scores, seed).tolist())
    calibration.source = (
        f"{len(calibration.scores)} of {len(scores)} held-out scores, the end of the training data by time"
    )
