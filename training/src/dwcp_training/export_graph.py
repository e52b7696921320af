"""`dwcp export`: the ONNX graph of a published model as one file, for other runtimes.

As it is, the file is the published graph, byte for byte. With a fixed batch, no dimension stays open; with float32 the
input and all arithmetic are of that type: both are what TensorRT asks for. Every file is scored against the set before
it is written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, Verdicts
from dwcp_training.console import RefusedError, UsageError, guarded, out
from dwcp_training.data.writers import whole_file
from dwcp_training.export.run import cpu_session
from dwcp_training.publish import PublishError, check_writable

FLOAT32_LAYOUTS = ("lstm.v1", "lstm.float32.v1", "lstm.int8.v1", "dense.v1", "dense.int8.v1", "classifier.v1")
"""Layouts that mean something in float32. Trees and stored rows are exact comparisons, which float32 would change."""

FLOAT32_BOUND = 1e-3
"""Largest relative difference of a score in float32 that is written."""

MOST_BATCH = 4_096

_CHECKED = 2_000  # made-up items that are scored beside those of the golden vectors
_BATCHES = 300  # most batches that are scored, so that those of 1 do not take minutes
_OUTPUTS = ("score", "is_anomaly", "contributions", "expected")


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy that scores `batch` items at a time; a forest explains every feature and has no input that says which."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    # An input with a default becomes a constant when it is no input.
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    sizes = {"N": batch}
    if "occlusion" in constants:
        sizes["groups"] = constants["occlusion"].dims[1]
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = sizes[dimension.dim_param]
    return fixed


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which everything that was float64 is float32, the input too."""
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    graph = narrow.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _narrow(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _narrow(attribute.t)
    return narrow


def _narrow(tensor: onnx.TensorProto) -> None:
    if tensor.data_type != TensorProto.DOUBLE:
        return
    wide = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    if tensor.name == "threshold" and float(values) > float(wide):
        # A threshold lies between two float32 numbers (D2). Of these the lower one gives the same decisions.
        values = np.nextafter(values, np.float32(-np.inf))
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))


def items_to_check(models: ModelSet, model: Scorer, seed: int = 0) -> tuple[NDArray[np.float64], int]:
    """Raw items `[n, timesteps, features]`, and how many of them, the first ones, are those of the golden vectors; the
    others are made up around the training data."""
    scaler = model.metadata.scaler
    mean, scale = np.array(scaler.mean), np.array(scaler.scale)
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.3, 1.0, 3.0], (_CHECKED, 1, 1))
    normal = mean + scale * spread * rng.standard_normal((_CHECKED, model.timesteps, len(mean)))
    golden = [
        [list(sample.values) for sample in case.samples[-model.timesteps :]]
        for case in models.golden[model.name].cases
        if case.WhichOneof("outcome") == "score"
    ]
    first = np.array(golden, np.float64).reshape(-1, *normal.shape[1:])
    return np.concatenate([first, normal]), len(first)


def check_scores(
    graph: onnx.ModelProto, model: Scorer, items: NDArray[np.float64], golden: int, batch: int | None
) -> str:
    """Scores items with a graph and with the set.

    Args:
        graph: what is to be written.
        model: of the set.
        items: see `items_to_check`.
        golden: how many of them are golden: these go to the limits of float64, which float32 does not have.
        batch: items that the graph takes; None for any number.

    Returns:
        What was compared, in words.

    Raises:
        RefusedError: they differ: in a bit, or, where the graph or the set is float32, by more than is stated.
    """
    session = cpu_session(graph.SerializeToString())
    kind = np.float32 if session.get_inputs()[0].type == "tensor(float)" else np.float64
    size = batch or len(items)
    items = items[: size * _BATCHES]
    feed = items if model.windowed else items[:, 0]
    parts = []
    for first in range(0, len(items), size):
        part = feed[first : first + size]
        with np.errstate(over="ignore"):  # golden vectors have values that float32 does not
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]).astype(kind)
        parts.append([output[: len(part)] for output in session.run(list(_OUTPUTS), {"samples": filled})])
    got = [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
    wanted = model.run(items, Explain.ALWAYS)
    if kind == np.float64 and model.bitwise:
        return _equal(got, wanted)
    return _close([found[golden:] for found in got], wanted, golden, model)


def _equal(got: list[np.ndarray], wanted: Verdicts) -> str:
    answers = (wanted.scores, wanted.is_anomaly, wanted.contributions, wanted.expected)
    for name, found, answer in zip(_OUTPUTS, got, answers, strict=True):
        if found.tobytes() != answer.tobytes():
            different = int((found != answer).any(axis=tuple(range(1, found.ndim))).sum())
            raise RefusedError(f"{name} of {different:,} of {len(answer):,} items is not that of the set.")
    return f"{len(wanted.scores):,} items: scores, decisions, contributions and expected values equal in every bit"


def _close(got: list[np.ndarray], wanted: Verdicts, golden: int, model: Scorer) -> str:
    bound = FLOAT32_BOUND if model.bitwise else max(FLOAT32_BOUND, 2 * model.metadata.tolerance.relative_score)
    score = wanted.scores[golden:].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(got[0].astype(np.float64) - score) / np.maximum(score, np.finfo(np.float32).tiny)
    largest = float(np.nan_to_num(apart, nan=np.inf).max())
    far = np.abs(score - model.threshold) > bound * model.threshold
    decided = int((far & (got[1] != wanted.is_anomaly[golden:])).sum())
    if not largest <= bound or decided:
        raise RefusedError(
            f"in float32 scores differ by {largest:.1e}, relatively, and {decided} decisions differ; at most {bound:g} "
            "is written. A metric's mean is too large beside its spread: export float64."
        )
    return (
        f"{len(score):,} items around the training data: largest relative difference of a score {largest:.1e} "
        f"(at most {bound:g}); decisions equal where the score is further than that from the threshold"
    )


def run_export(models: Path, detector: str, output: Path, batch: int | None = None, precision: str = "float64") -> int:
    """Writes the graph of a detector for a person; returns the exit status, as `run.run` does.

    Args:
        models: folder of the model set.
        detector: of the set.
        output: file that ends in .onnx.
        batch: items that are always scored together; None leaves their number open.
        precision: ``float64``, or ``float32`` for networks.
    """

    def command() -> None:
        if output.suffix.lower() != ".onnx":
            raise UsageError(f"--output {output}: write a file that ends in .onnx")
        if batch is not None and not 1 <= batch <= MOST_BATCH:
            raise UsageError(f"--batch {batch}: write 1 to {MOST_BATCH}")
        check_writable(output.parent)
        opened = ModelSet.open(models)
        model = opened.model(detector)
        graph = model.metadata.graph
        if not graph.file:
            raise RefusedError(f"{detector} has no graph of its own. Export its members, each by its name.")
        data = (opened.path / graph.file).read_bytes()
        exported = onnx.load_from_string(data)
        if precision == "float32":
            if graph.layout not in FLOAT32_LAYOUTS:
                raise RefusedError(
                    f"--precision float32: {detector} has the layout {graph.layout}, whose comparisons are exact in "
                    f"float64 and would be others in float32. Networks can: {', '.join(FLOAT32_LAYOUTS)}."
                )
            exported = in_float32(exported)
        if batch is not None:
            exported = with_batch(exported, batch)
        if precision == "float32" or batch is not None:
            made = {
                "dwcp.model_set": opened.id,
                "dwcp.precision": "float32" if precision == "float32" else graph.precision,
            }
            known = {entry.key: entry.value for entry in exported.metadata_props}
            helper.set_model_props(exported, {**known, **made})
            data = exported.SerializeToString(deterministic=True)
        onnx.checker.check_model(exported, full_check=True)
        finding = check_scores(exported, model, *items_to_check(opened, model), batch)
        _write(output, data)
        table = Table(title=f"{detector} of model set {opened.id[:16]}", show_header=False, title_justify="left")
        table.add_row("file", f"{output}, {len(data):,} bytes")
        for value in (*exported.graph.input, *exported.graph.output):
            shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            table.add_row(value.name, f"{kind} {shape}")
        table.add_row("checked", finding)
        out.print(table)

    return guarded(command, "Nothing was written.")


def _write(output: Path, data: bytes) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as file:
            file.write(data)
    except OSError as error:
        raise PublishError(f"--output {output}: cannot be written ({error.strerror}).") from None
