"""The model sets that everything is judged on, and what is in a set, written out from the contract alone."""

import json
from pathlib import Path

from tests.conformance.cases import DETECTORS
from tests.conformance.go_program import ROOT

REFERENCE_SET = ROOT / "models" / "reference" / "v1"
"""Isolation forest and LSTM autoencoder, frozen."""

MORE_SET = ROOT / "models" / "reference" / "more-v1"
"""Dense autoencoder, local outlier factor and one-class SVM, frozen."""

HOME = {
    "isolation_forest": REFERENCE_SET,
    "lstm_autoencoder": REFERENCE_SET,
    "dense_autoencoder": MORE_SET,
    "local_outlier_factor": MORE_SET,
    "one_class_svm": MORE_SET,
}
"""Detector to the frozen set that has it."""

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
    found = tuple(name for name in DETECTORS if name in listed and _has_graph(models / listed[name]))
    if not found:
        raise ValueError(f"{models} has no model that can be scored: there is nothing to judge")
    return found


def _has_graph(metadata: Path) -> bool:
    return bool(json.loads(metadata.read_bytes())["graph"].get("available"))
