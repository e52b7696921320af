"""A second sound model set, made from the reference set in less than a second: every score differs."""

import json

import numpy as np
import onnx
from onnx import numpy_helper

from dwcp_sidecar.model_set import ModelSet


def make_other(copy, number=1):
    """Turns a `SetCopy` of the reference set into another set, and gives its id.

    Leaves of the forest and a bias of the autoencoder move a little; the golden vectors are computed anew. Each number
    gives another set.
    """
    edit_graph(copy.path / "isolation_forest.onnx", lambda tensors: move(tensors["tree.leaf_weights"], number / 64))
    edit_graph(copy.path / "lstm_autoencoder.onnx", lambda tensors: move(tensors["dense.bias"], number / 64))
    copy.redigest()
    models = ModelSet.open(copy.path, self_test=False)
    for name, model in models.models.items():
        copy.edit(f"{name}.golden.json", lambda golden, model=model: compute(golden, model))
    copy.redigest()
    return ModelSet.open(copy.path).id


def small(copy):
    """Leaves a set with a forest alone and a few golden cases: it opens ten times faster."""
    copy.edit("isolation_forest.golden.json", lambda golden: golden.update(cases=golden["cases"][::15]))
    copy.edit("manifest.json", lambda manifest: manifest.update(models=manifest["models"][:1]))
    copy.redigest()


def move(tensor, by):
    """Adds a number to every value of a tensor."""
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + by, tensor.name))


def edit_graph(path, change):
    """Changes a graph in place: `change` gets its tensors by name, those of a forest's trees as `tree.<attribute>`."""
    graph = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "TreeEnsemble":
            tensors |= {f"tree.{attribute.name}": attribute.t for attribute in node.attribute}
    change(tensors)
    path.write_bytes(graph.SerializeToString())


def compute(golden, model):
    """Answers the cases of a golden file with a model."""
    for case in golden["cases"]:
        if "score" not in case:
            continue
        samples = [[float(value) for value in sample["values"]] for sample in case["samples"]]
        verdicts = model.score(samples)
        wanted = case["score"]
        wanted["score"] = float(verdicts.scores[0])
        wanted["score_bits"] = int(verdicts.scores[:1].view(np.uint32)[0])
        wanted["is_anomaly"] = bool(verdicts.is_anomaly[0])
        wanted["contributions"] = verdicts.contributions[0].tolist()
        wanted["expected"] = verdicts.expected[0].tolist()
        if verdicts.depth_sums is not None:
            wanted["depth_sum"] = float(verdicts.depth_sums[0])
    json.dumps(golden, allow_nan=False)
