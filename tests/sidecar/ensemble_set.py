"""A small set with an ensemble, put together from the frozen sets; its answers by plain Python (EN1 to EN8)."""

import hashlib
import itertools
import json
import shutil
import statistics
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.model_set import ModelSet
from tests.conformance.sets import MAHALANOBIS_SET, METADATA, MORE_SET, REFERENCE_SET

FOREST, LSTM, DENSE, LOF, SVM = (
    "isolation_forest", "lstm_autoencoder", "dense_autoencoder", "local_outlier_factor", "one_class_svm",
)  # fmt: skip
WEIGHTS = {FOREST: 0.3, LSTM: 0.25, DENSE: 0.2, LOF: 0.15, SVM: 0.1}
"""Weights of the ensemble that the tests put together, in the order of the enum."""

MAHALANOBIS = "mahalanobis"
"""A detector whose number is above that of the ensemble."""

CLAMPED, OPEN = "ensemble.v1", "ensemble.v2"
"""Layouts: the common scale ends at 1 (EN3), or does not end (EN8)."""

ENSEMBLE = "ensemble"
METADATA_FILE, GOLDEN_FILE = "ensemble_metadata.json", "ensemble.golden.json"
NOT_THERE = "it is not part of the set"

_HOME = {name: REFERENCE_SET if name in (FOREST, LSTM) else MORE_SET for name in WEIGHTS}
_HOME[MAHALANOBIS] = MAHALANOBIS_SET


@dataclass(frozen=True)
class Said:
    """What plain Python says of one window: unrounded score, contributions and expected values, and the members."""

    score: float
    is_anomaly: bool
    level: str
    contributions: list[float]
    expected: list[float]
    members: list[dict[str, Any]]


@cache
def frozen(models: Path) -> ModelSet:
    """A frozen set, opened once."""
    return ModelSet.open(models)


def float32(x: float) -> float:
    """The nearest float32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def midpoint_below(x: float) -> float:
    """The midpoint of two neighbouring float32 numbers next below a positive number (D2)."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    near = [struct.unpack("<f", struct.pack("<I", b))[0] for b in range(bits - 2, bits + 3)]
    return max(middle for a, b in itertools.pairwise(near) if (middle := (a + b) / 2) < x)


def parameters(weights: Mapping[str, float] = WEIGHTS, layout: str = CLAMPED) -> dict[str, Any]:
    """The `ensemble` of the metadata (EN1 to EN5, EN8)."""
    members = []
    for name, weight in weights.items():
        metadata = frozen(_HOME[name]).metadata[name]
        low = statistics.median(metadata.calibration.scores)
        members.append({
            "detector": f"DETECTOR_{name.upper()}", "weight": weight, "threshold": metadata.threshold,
            "low": low, "high": low + (metadata.threshold - low) / 0.3 if layout == CLAMPED else 0.0,
        })  # fmt: skip
    return {"members": members, "critical_threshold": midpoint_below(0.7)}


def plain(
    ensemble: Mapping[str, Any], threshold: float, window: Sequence[Sequence[float]], missing: Collection[str] = ()
) -> Said:
    """EN3 to EN8 for one window, one float64 operation after the other."""
    answered, members = [], []
    for member in ensemble["members"]:
        name = member["detector"].removeprefix("DETECTOR_").lower()
        if name in missing:
            members.append({"detector": name, "weight": 0.0, "score": None, "normalized": None})
            continue
        model = frozen(_HOME[name]).models[name]
        verdict = model.verdict(window[-model.timesteps :])
        if member["high"]:
            n = (verdict.score - member["low"]) / (member["high"] - member["low"])
            n = 0.0 if n < 0 else 1.0 if n > 1 else n
        else:  # EN8
            u = (verdict.score - member["low"]) / (member["threshold"] - member["low"])
            n = 0.0 if u < 0 else u / (u + 7 / 3)
        answered.append((member["weight"] * n, member["weight"], verdict))
        members.append({"detector": name, "weight": member["weight"], "score": verdict.score, "normalized": n})
    shares = weights = 0.0
    for share, weight, _ in answered:
        shares += share
        weights += weight
    for member in members:
        member["weight"] /= weights
    contributions = []
    for j in range(len(window[0])):
        part = 0.0
        for share, _, verdict in answered:
            part += share * verdict.contributions[j]
        contributions.append(part / shares if shares else 0.0)
    most = max(share for share, _, _ in answered)
    expected = next(verdict.expected for share, _, verdict in answered if share == most)
    score = shares / weights
    alarm = float32(score) > threshold
    level = "NORMAL" if not alarm else "CRITICAL" if float32(score) > ensemble["critical_threshold"] else "WARNING"
    return Said(score, alarm, level, contributions, expected, members)


def windows() -> dict[str, list[list[float]]]:
    """Id to the samples of every golden case of the LSTM autoencoder that has a score."""
    cases = frozen(REFERENCE_SET).golden[LSTM].cases
    return {
        case.id: [list(sample.values) for sample in case.samples]
        for case in cases
        if case.WhichOneof("outcome") == "score"
    }


def compose(
    path: Path, weights: Mapping[str, float] = WEIGHTS, absent: Collection[str] = (), layout: str = CLAMPED
) -> Path:
    """Writes a set with the members that are not absent, and an ensemble of all of them."""
    path.mkdir()
    entries, names = [], [name for name in _HOME if name in weights and name not in absent]
    for name in names:
        files = {"metadata": METADATA[name], "graph": f"{name}.onnx", "golden": f"{name}.golden.json"}
        for file in files.values():
            shutil.copy(_HOME[name] / file, path / file)
        _thin_out(path / files["golden"])
        entries.append({"detector": f"DETECTOR_{name.upper()}", **files})
    ensemble, threshold = parameters(weights, layout), midpoint_below(0.3)
    windowed = LSTM in weights
    cases = _cases(ensemble, threshold, absent, windowed)
    metadata = _metadata(ensemble, threshold, cases, windowed)
    metadata["graph"]["layout"] = layout
    (path / METADATA_FILE).write_text(json.dumps(metadata))
    flags = {"ensemble": "A golden case of a member, answered by plain Python."}
    golden = {"schema_version": 1, "model_type": ENSEMBLE, "flags": flags, "cases": cases}
    (path / GOLDEN_FILE).write_text(json.dumps(golden))
    entries.append({"detector": "DETECTOR_ENSEMBLE", "metadata": METADATA_FILE, "golden": GOLDEN_FILE})
    entries.sort(key=lambda entry: model_pb2.Detector.Value(entry["detector"]))
    (path / "manifest.json").write_text(json.dumps({"schema_version": 1, "models": entries, "files": []}))
    digest(path)
    return path


def digest(path: Path) -> None:
    """Lists every file of a folder in its manifest as SERVING."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["files"] = []
    for file in sorted(path.iterdir()):
        if file.name != "manifest.json":
            data = file.read_bytes()
            manifest["files"].append({
                "path": file.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data),
                "role": "FILE_ROLE_SERVING",
            })  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))


def _thin_out(golden: Path) -> None:
    """Every tenth case alone: the members have their own tests."""
    data = json.loads(golden.read_bytes())
    golden.write_text(json.dumps({**data, "cases": data["cases"][::10]}))


def _cases(
    ensemble: Mapping[str, Any], threshold: float, absent: Collection[str], windowed: bool
) -> list[dict[str, Any]]:
    cases = []
    for id, samples in windows().items():
        said = plain(ensemble, threshold, samples[-10:], absent)
        bits = struct.unpack("<I", struct.pack("<f", said.score))[0]
        answer = {
            "score": float32(said.score), "score_bits": bits, "is_anomaly": said.is_anomaly,
            "contributions": [float32(c) for c in said.contributions],
            "expected": [x if abs(x) < float("inf") else str(x).replace("inf", "Infinity") for x in said.expected],
        }  # fmt: skip
        given = [{"values": sample} for sample in samples]
        cases.append(
            {"id": id, "comment": "As in the member.", "flags": ["ensemble"], "samples": given, "score": answer}
        )
    if windowed:
        short = [{"values": sample} for sample in next(iter(windows().values()))[:3]]
        error = {"code": "ERROR_CODE_WINDOW_TOO_SHORT", "field": "samples"}
        cases.append({"id": "short", "comment": "Too few.", "flags": ["ensemble"], "samples": short, "error": error})
    return cases


def _metadata(
    ensemble: Mapping[str, Any], threshold: float, cases: Sequence[Mapping[str, Any]], windowed: bool
) -> dict[str, Any]:
    member = json.loads((REFERENCE_SET / METADATA[LSTM]).read_bytes())
    shared = {key: member[key] for key in ("n_features", "feature_names", "feature_schema", "cadence_seconds")}
    scores = sorted(case["score"]["score"] for case in cases if "score" in case)
    return {
        "schema_version": 1, "model_type": ENSEMBLE, **shared, **({"timesteps": 10} if windowed else {}),
        "threshold": threshold, "parity_class": "PARITY_CLASS_EXACT",
        "calibration": {"scores": scores, "source": "golden cases"},
        "graph": {"available": False, "layout": "ensemble.v1"}, "ensemble": ensemble,
        "training": {"history": {"average_precision": {"values": [0.5]}}},
    }  # fmt: skip
