"""The model sets that everything is judged on, and what is in a set, written out from the contract alone."""

import json
from pathlib import Path
from typing import Any

from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.conformance.go_program import ROOT

REFERENCE_SET = ROOT / "models" / "reference" / "v1"
"""Isolation forest and LSTM autoencoder, frozen."""

MORE_SET = ROOT / "models" / "reference" / "more-v1"
"""Dense autoencoder, local outlier factor and one-class SVM, frozen."""

ENSEMBLE_SET = ROOT / "models" / "reference" / "ensemble-v1"
"""LSTM classifier, two other members and an ensemble of the three, frozen."""

MAHALANOBIS_SET = ROOT / "models" / "reference" / "mahalanobis-v1"
"""Mahalanobis distance with a window, frozen."""

HOME = {
    "isolation_forest": REFERENCE_SET,
    "lstm_autoencoder": REFERENCE_SET,
    "dense_autoencoder": MORE_SET,
    "local_outlier_factor": MORE_SET,
    "one_class_svm": MORE_SET,
    "lstm_classifier": ENSEMBLE_SET,
    "ensemble": ENSEMBLE_SET,
    "mahalanobis": MAHALANOBIS_SET,
}
"""Detector to the frozen set that it is judged on. Others may have it, too, as a member of an ensemble."""

SETS = tuple(dict.fromkeys(HOME.values()))
"""The frozen sets."""

METADATA = {detector: f"{detector}_metadata.json" for detector in DETECTORS} | {
    "isolation_forest": "model_metadata.json",
    "lstm_autoencoder": "lstm_metadata.json",
}
"""Detector to the name of its metadata file."""


def detectors_of(models: Path) -> tuple[str, ...]:
    """Detectors that a set can score, in the order of the enum.

    Raises:
        ValueError: when the folder has no manifest, or the set has none.
    """
    try:
        manifest = json.loads((models / "manifest.json").read_bytes())
    except OSError as error:
        raise ValueError(f"{models} is no model set: manifest.json: {error.strerror}") from None
    listed = {model["detector"].removeprefix("DETECTOR_").lower(): model["metadata"] for model in manifest["models"]}
    files = {name: json.loads((models / file).read_bytes()) for name, file in listed.items()}
    found = tuple(name for name in DETECTORS if name in files and _can_be_scored(files[name], files))
    if not found:
        raise ValueError(f"{models} has no model that can be scored: there is nothing to judge")
    return found


def _can_be_scored(metadata: dict[str, Any], others: dict[str, dict[str, Any]]) -> bool:
    """Whether a detector has a graph, or for an ensemble a member that has one (EN6)."""
    if metadata["model_type"] != ENSEMBLE:
        return bool(metadata["graph"].get("available"))
    members = [member["detector"].removeprefix("DETECTOR_").lower() for member in metadata["ensemble"]["members"]]
    return any(_can_be_scored(others[name], others) for name in members if name in others)
