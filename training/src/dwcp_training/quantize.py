"""`dwcp quantize`: the networks of a model set with weights in int8, and what that changes (rules Q1 to Q4).

The variant is a model of its own in a set of its own. It is smaller; its scores differ a little from those of the
float64 model, by how much is measured, stated in its metadata, and reported.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar import detectors, protojson
from dwcp_sidecar.audit import LSTM_LAYERS, audit_graph, audit_metadata
from dwcp_sidecar.errors import code_name
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import MANIFEST, ModelSet
from dwcp_sidecar.onnx_file import OnnxFile
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_data, print_warning, progress_bar
from dwcp_training.data import read_table
from dwcp_training.data.windows import windows
from dwcp_training.data.writers import whole_file
from dwcp_training.detectors.base import Floats, Reference
from dwcp_training.detectors.dense_autoencoder import DenseReference
from dwcp_training.detectors.lstm_autoencoder import LstmReference
from dwcp_training.export.dense import DenseLayer, DenseWeights
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.int8 import LAYOUTS, quantized_graph, weight_names
from dwcp_training.export.lstm import LayerWeights, LstmWeights
from dwcp_training.export_graph import items_to_check
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import spike_drafts
from dwcp_training.golden.make import MARGIN as MARGIN_OF_GOLDEN
from dwcp_training.golden.make import make_golden
from dwcp_training.profiles import load_profile
from dwcp_training.publish import Candidate, PublishError, check_writable, publish
from dwcp_training.signing import read_signing_key

MARGIN = 2.0
"""The stated tolerance is this many times the largest change that was measured."""

HELD_OUT = 0.2
"""Share of given data, its end, that the tolerance is not measured on, and must hold for."""

_NEAR = 0.5
"""The guard band is measured on scores that lie no further from the threshold, as a share of it. A decision that
changes further away widens the band by itself."""


_TIMED = 512  # items of the batch whose time is taken


@dataclass(frozen=True)
class Change:
    """What int8 weights change on some items.

    Attributes:
        items: how many.
        largest, median: relative difference of the score from the float64 model's.
        explanations: largest difference of a contribution or an expected value, as a share of the item's largest one.
        near_threshold: largest difference near the threshold, as a share of it.
        decided_otherwise: items with another decision, and those of them further from the threshold than the guard
            band, of which there must be none.
        alarms_before, alarms_after: items that alarm.
    """

    items: int
    largest: float
    median: float
    explanations: float
    near_threshold: float
    decided_otherwise: int
    outside_guard_band: int
    alarms_before: int
    alarms_after: int


@dataclass(frozen=True)
class Report:
    """What a detector became.

    Attributes:
        detector: its name.
        relative_score, guard_band: the stated tolerance (P3).
        changes: what was compared, by the name of the items.
        bytes_before, bytes_after: of the graph.
        single_microseconds_before, single_microseconds_after: a call with one item, the median of many.
        batch_microseconds_before, batch_microseconds_after: an item of a batch.
    """

    detector: str
    relative_score: float
    guard_band: float
    changes: dict[str, Change]
    bytes_before: int
    bytes_after: int
    single_microseconds_before: float
    single_microseconds_after: float
    batch_microseconds_before: float
    batch_microseconds_after: float


def quantize(models: ModelSet, detector: str, data: Floats | None = None) -> tuple[Candidate, Report]:
    """The int8 variant of a detector of a set, verified.

    Args:
        models: the set, open.
        detector: one whose graph has a layout in `LAYOUTS`.
        data: raw items, float64 `[n, timesteps, features]`, in the order of time, to measure on; None measures
            on the golden vectors and made-up items alone.

    Raises:
        RefusedError: it cannot be quantised, or its scores change too much.
        ContractError: as `ModelSet.model`.
    """
    wide = models.model(detector)
    assert isinstance(wide, Model)
    graph = wide.metadata.graph
    if graph.layout not in LAYOUTS:
        raise RefusedError(
            f"{detector} has the layout {graph.layout}; with weights in int8 there are {', '.join(LAYOUTS)}."
        )
    source = (models.path / graph.file).read_bytes()
    initializers = OnnxFile.parse(source, graph.file).initializers
    exported, weights = quantized_graph(onnx.load_from_string(source), weight_names(initializers))
    small = exported.SerializeToString(deterministic=True)

    metadata = model_pb2.ModelMetadata()
    metadata.CopyFrom(wide.metadata)
    _describe(metadata, exported, models.id)
    narrow = Model(metadata, small)
    items, golden = items_to_check(models, wide)
    measured = {"golden": items[:golden], "made up": items[golden:]}
    kept = {}
    if data is not None:
        first = max(1, round(len(data) * (1 - HELD_OUT)))
        measured["data"] = data[:first]
        kept = {"held out": data[first:]} if first < len(data) else {}
    compared = {name: _compared(wide, narrow, group) for name, group in {**measured, **kept}.items()}
    _state_tolerance(metadata, detector, [compared[name] for name in measured])
    audit_metadata(metadata, _metadata_file(models, detector))
    audit_graph(metadata, OnnxFile.parse(small, graph.file))
    narrow = Model(metadata, small)
    changes = {name: _change(found, metadata.tolerance.guard_band) for name, found in compared.items()}
    for name, change in changes.items():
        if not change.largest <= metadata.tolerance.relative_score or change.outside_guard_band:
            raise RefusedError(
                f"{detector}: on the items {name!r}, scores change by up to {change.largest:.1%}, and "
                f"{change.outside_guard_band:,} decisions change outside of the guard band; "
                f"{metadata.tolerance.relative_score:.1%} and none were measured on the rest. Use the float64 model."
            )
    reference = _reference(metadata, weights)
    vectors = make_golden(narrow, reference, _drafts(models.golden[detector], reference, wide, metadata))
    candidate = Candidate(detector, _metadata_file(models, detector), metadata, small, vectors, {})
    speed = items[golden : golden + _TIMED]
    report = Report(
        detector, metadata.tolerance.relative_score, metadata.tolerance.guard_band, changes, len(source), len(small),
        *_microseconds([wide, narrow], speed[:1], 100), *_microseconds([wide, narrow], speed, 5),
    )  # fmt: skip
    return candidate, report


def _describe(metadata: model_pb2.ModelMetadata, exported: onnx.ModelProto, source_id: str) -> None:
    """Writes down what the variant is. Until it is measured, the tolerance is the widest there can be."""
    metadata.parity_class = model_pb2.PARITY_CLASS_TOLERANCE
    metadata.tolerance.relative_score = metadata.tolerance.guard_band = math.nextafter(1.0, 0.0)
    metadata.graph.layout, metadata.graph.precision = LAYOUTS[metadata.graph.layout], "int8"
    metadata.graph.operator_counts.clear()
    for operator, count in operator_counts(exported).items():
        metadata.graph.operator_counts[operator] = count
    metadata.calibration.source += "; scores of the float64 model"
    metadata.training.hyperparameters["weights"] = "int8, one scale a column"
    metadata.training.hyperparameters["quantized_from"] = source_id


@dataclass(frozen=True)
class _Compared:
    """Scores and decisions of both models on the same items."""

    wide: NDArray[np.float64]
    narrow: NDArray[np.float64]
    wide_alarms: NDArray[np.bool_]
    narrow_alarms: NDArray[np.bool_]
    explanations: float
    threshold: float

    @property
    def relative(self) -> NDArray[np.float64]:
        """Difference of the score, relative to the float64 model's; infinite where that is 0 and the other is not."""
        apart = np.abs(self.narrow - self.wide)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(apart == 0, 0.0, apart / self.wide)

    @property
    def off(self) -> NDArray[np.float64]:
        """Distance of the float64 model's score from the threshold, as a share of it."""
        return np.abs(self.wide - self.threshold) / self.threshold

    @property
    def near(self) -> float:
        """Largest difference of a score near the threshold, as a share of the threshold."""
        near = np.abs(self.narrow - self.wide)[self.off <= _NEAR]
        return float((near / self.threshold).max(initial=0.0))


def _compared(wide: Model, narrow: Model, items: Floats) -> _Compared:
    before, after = wide.run(items, Explain.ALWAYS), narrow.run(items, Explain.ALWAYS)
    explanations = max(_apart(before.contributions, after.contributions), _apart(before.expected, after.expected))
    return _Compared(
        before.scores.astype(np.float64), after.scores.astype(np.float64), before.is_anomaly, after.is_anomaly,
        explanations, wide.threshold,
    )  # fmt: skip


def _apart(wide: NDArray[np.float32], narrow: NDArray[np.float32]) -> float:
    """Largest difference of two arrays `[n, features]`, as a share of the row's largest magnitude (V2)."""
    before, after = wide.astype(np.float64), narrow.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.abs(before - after) / np.abs(before).max(axis=1, keepdims=True, initial=0.0)
    return float(np.where(before == after, 0.0, share).max(initial=0.0))  # equal ones: zeros, and equal infinities


def _state_tolerance(metadata: model_pb2.ModelMetadata, detector: str, found: Sequence[_Compared]) -> None:
    """States what was measured, with a margin (P3). A decision that changed lies within the guard band."""
    largest = max(float(each.relative.max(initial=0.0)) for each in found)
    band = max(each.near for each in found)
    for each in found:
        changed = each.wide_alarms != each.narrow_alarms
        band = max(band, float(each.off[changed].max(initial=0.0)))
    relative, guard = (_rounded_up(max(MARGIN * value, 1e-6)) for value in (largest, band))
    if not (relative < 1 and guard < 1):
        raise RefusedError(
            f"{detector}: with weights in int8 its scores change by up to {largest:.0%}, near the threshold by up to "
            f"{band:.0%} of it. Use the float64 model, or train a network that reconstructs less perfectly: a wider "
            "one has scores that are all close to 0, and any change is large beside them."
        )
    metadata.tolerance.relative_score, metadata.tolerance.guard_band = relative, guard


def _rounded_up(value: float) -> float:
    """The next number with two digits."""
    if not math.isfinite(value):
        return math.inf
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.1e}")


def _change(compared: _Compared, guard_band: float) -> Change:
    otherwise = compared.wide_alarms != compared.narrow_alarms
    outside = otherwise & (compared.off > guard_band)
    relative = compared.relative
    return Change(
        len(relative), float(relative.max(initial=0.0)), float(np.median(relative)) if len(relative) else 0.0,
        compared.explanations, compared.near,
        int(otherwise.sum()), int(outside.sum()), int(compared.wide_alarms.sum()), int(compared.narrow_alarms.sum()),
    )  # fmt: skip


def _reference(metadata: model_pb2.ModelMetadata, weights: dict[str, np.ndarray]) -> Reference:
    """The network in numpy float64, on the weights that int8 and scale stand for."""
    if metadata.model_type == "dense_autoencoder":
        count = len(metadata.dense.units) + 1
        layers = [DenseLayer(weights[f"layer_{i}.kernel"], weights[f"layer_{i}.bias"]) for i in range(1, count + 1)]
        return DenseReference(DenseWeights(tuple(layers), metadata.dense.activation), metadata)
    cells = [LayerWeights(*(weights[f"{name}.{part}"] for part in _PARTS)) for name in LSTM_LAYERS]
    return LstmReference(LstmWeights(tuple(cells), weights["dense.kernel"], weights["dense.bias"]), metadata)


_PARTS = ("kernel", "recurrent", "bias")


def _drafts(
    golden: golden_pb2.GoldenFile, reference: Reference, wide: Model, metadata: model_pb2.ModelMetadata
) -> Iterator[Draft]:
    """The cases of the float64 model with their answers left out, but for those beside the threshold, which lies
    elsewhere now: they are looked for anew."""
    typical: list[Floats] = []
    for case in golden.cases:
        samples = [list(sample.values) for sample in case.samples]
        flags = tuple(case.flags)
        if case.WhichOneof("outcome") == "error":
            yield Draft(case.id, case.comment, flags, samples, (code_name(case.error.code), case.error.field))
        elif "threshold" not in flags:
            item = np.array(samples, np.float64)
            if "typical" in flags:
                typical.append(item[-wide.timesteps :])
            if not isinstance(reference, LstmReference) or _decided(reference, item[np.newaxis, -wide.timesteps :]):
                yield Draft(case.id, case.comment, flags, item, nudge="extreme" not in flags)
    scores = reference.evaluate(np.stack(typical)).scores
    normal = typical[int(np.argsort(scores)[len(scores) // 2])]
    yield from spike_drafts(reference, normal, list(metadata.feature_names), np.array(metadata.scaler.scale))


def _decided(reference: LstmReference, items: Floats) -> bool:
    """Whether no order of sums changes the answer: such an item is no golden vector (Q2, V4)."""
    return reference.rounding_error(items) <= MARGIN_OF_GOLDEN


def _microseconds(models: Sequence[Model], items: Floats, rounds: int) -> list[float]:
    """Time of an item for each model, in turns so that what else the machine does hits all alike; the medians."""
    found: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for times, model in zip(found, models, strict=True):
            start = time.perf_counter()
            model.run(items, Explain.NEVER)
            times.append((time.perf_counter() - start) / len(items) * 1e6)
    return [float(np.median(times)) for times in found]


def _metadata_file(models: ModelSet, detector: str) -> str:
    return {detectors.NAMES[entry.detector]: entry.metadata for entry in _manifest(models).models}[detector]


def _manifest(models: ModelSet) -> model_pb2.Manifest:
    return protojson.parse((models.path / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)


def others(models: ModelSet, quantized: set[str]) -> list[Candidate]:
    """The other models of a set, as they are, without by-products. An ensemble of a quantised member is left out: its
    scale was made for the float64 scores (EN2)."""
    found = []
    for entry in _manifest(models).models:
        name = detectors.NAMES[entry.detector]
        metadata = models.metadata[name]
        members = {detectors.NAMES[member.detector] for member in metadata.ensemble.members}
        if name in quantized or members & quantized:
            continue
        graph = (models.path / entry.graph).read_bytes() if entry.graph else None
        golden = None
        if entry.golden:
            golden = protojson.parse((models.path / entry.golden).read_bytes(), golden_pb2.GoldenFile(), entry.golden)
        found.append(Candidate(name, entry.metadata, metadata, graph, golden, {}))
    return found


def run_quantize(
    models: Path,
    output: Path,
    chosen: Sequence[str] = (),
    data: Sequence[Path] = (),
    profile: str = "dwcp",
    json_file: Path | None = None,
    sign_key: Path | None = None,
) -> int:
    """Quantises detectors of a set for a person; returns the exit status, as `run.run` does.

    Args:
        models: folder of the set.
        output: folder of the set with the int8 variants; another one.
        chosen: detectors; empty means all that can be.
        data: normal data to measure on.
        profile: says how data is read.
        json_file: gets all figures.
        sign_key: PEM file of the private key that signs the set.
    """

    def command() -> None:
        if output.resolve() == models.resolve():
            raise UsageError("--output is the folder of --models: name another, so that both can be compared")
        check_writable(output)
        if json_file is not None:
            check_writable(json_file.parent, "--json")
        signer = read_signing_key(sign_key)
        opened = ModelSet.open(models)
        names = list(dict.fromkeys(chosen)) or [
            name for name, metadata in opened.metadata.items() if metadata.graph.layout in LAYOUTS
        ]
        if not names:
            raise RefusedError(
                f"{models} has no network in float64; layouts with int8 variants are {', '.join(LAYOUTS)}."
            )
        measure = _items_of(opened, names, data, profile)
        made: list[tuple[Candidate, Report]] = []
        with progress_bar() as bar:
            task = bar.add_task("quantising", total=len(names))
            for name in names:
                made.append(quantize(opened, name, measure(name)))
                bar.advance(task)
        rest = others(opened, set(names))
        left_out = set(opened.metadata) - {candidate.detector for candidate in rest} - set(names)
        published = publish(output, [candidate for candidate, _ in made] + rest, signer)
        reports = [report for _, report in made]
        _print(reports, opened, published, output)
        for name in sorted(left_out):
            print_warning(
                f"{name} is left out: its scale was made for the scores in float64, and members are EXACT (EN2)."
            )
        if json_file is not None:
            _write_json(json_file, reports, opened, published)

    return guarded(command, "Nothing was quantised.")


def _items_of(
    opened: ModelSet, names: Sequence[str], data: Sequence[Path], profile: str
) -> Callable[[str], Floats | None]:
    """Gives the items of the data for a detector; None without data."""
    if not data:
        return lambda name: None
    telemetry = read_table(list(data), load_profile(profile), normal_only=True)
    print_data(telemetry)
    schema = list(telemetry.schema.names)
    for name in names:
        if list(opened.model(name).feature_names) != schema:
            raise RefusedError(
                f"{name} was trained on {', '.join(opened.model(name).feature_names)}; the data has others."
            )
    return lambda name: windows(telemetry.values, telemetry.segments, opened.model(name).timesteps)


def _print(reports: Sequence[Report], before: ModelSet, after: ModelSet, output: Path) -> None:
    for report in reports:
        out.print(f"{report.detector}, weights in int8")
        out.print(
            f"  {'':9}{'items':>7}{'median':>9}{'largest':>9}{'explained':>11}{'changed':>9}{'outside':>9}   alarms",
            style="bold",
        )
        for name, change in report.changes.items():
            out.print(
                f"  {name:9}{change.items:7,}{change.median:9.2%}{change.largest:9.2%}{change.explanations:11.2%}"
                f"{change.decided_otherwise:9,}{change.outside_guard_band:9,}   "
                f"{change.alarms_before:,} -> {change.alarms_after:,}"
            )
        out.print(
            "  golden: golden vectors; made up: around the training data; held out: no tolerance was measured on it\n"
            "  median, largest: relative change of the score; explained: that of contributions and expected values\n"
            "  changed: decisions; outside: those of them outside of the guard band, of which there must be none\n"
            f"  stated tolerance: {report.relative_score:.2%} of a score, guard band {report.guard_band:.2%} of the "
            f"threshold\n"
            f"  graph: {report.bytes_before:,} -> {report.bytes_after:,} bytes "
            f"({report.bytes_after / report.bytes_before:.0%})\n"
            f"  one item: {report.single_microseconds_before:.0f} -> {report.single_microseconds_after:.0f} us; in a "
            f"batch: {report.batch_microseconds_before:.2f} -> {report.batch_microseconds_after:.2f} us an item\n"
        )
    out.print(f"model set {before.id[:16]} -> {after.id[:16]} in {output}")


def _write_json(path: Path, reports: Sequence[Report], before: ModelSet, after: ModelSet) -> None:
    figures: dict[str, Any] = {
        "model_set": after.id,
        "quantized_from": before.id,
        "detectors": {report.detector: asdict(report) for report in reports},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write((json.dumps(figures, indent=2) + "\n").encode())
    except OSError as error:
        raise PublishError(f"--json {path}: cannot be written ({error.strerror}).") from None
