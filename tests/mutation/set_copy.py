"""A copy of a model set that can be damaged, with digests made right again so that the damage gets past them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.conformance.sets import METADATA

MANIFEST = "manifest.json"
__all__ = ["MANIFEST", "METADATA", "SetCopy", "Trees", "initializer", "set_initializer", "set_property"]


class SetCopy:
    """A copy of the serving files of a set and its by-products.

    Args:
        original: folder of the set.
        path: folder to copy it to; must not exist.
    """

    def __init__(self, original: Path, path: Path) -> None:
        self.path = path
        shutil.copytree(original, path)

    def json(self, name: str) -> Any:
        """A JSON file of the set."""
        return json.loads((self.path / name).read_bytes())

    def edit_json(self, name: str, change: Callable[[Any], None]) -> None:
        """Changes a JSON file in place, and the digests with it unless it is the manifest itself."""
        data = self.json(name)
        before = json.dumps(data)
        change(data)
        assert json.dumps(data) != before, f"the mutation of {name} changes nothing"
        (self.path / name).write_text(json.dumps(data))
        if name != MANIFEST:
            self.redigest()

    def graph(self, detector: str) -> onnx.ModelProto:
        """The graph of a detector."""
        return onnx.load(self.path / f"{detector}.onnx")

    def edit_graph(self, detector: str, change: Callable[[onnx.ModelProto], None]) -> None:
        """Changes a graph in place, and the digests with it."""
        path = self.path / f"{detector}.onnx"
        model = onnx.load(path)
        change(model)
        data = model.SerializeToString(deterministic=True)
        assert data != path.read_bytes(), f"the mutation of {path.name} changes nothing"
        path.write_bytes(data)
        self.redigest()

    def redigest(self) -> None:
        """Makes the manifest agree with the files that are there."""
        manifest = self.json(MANIFEST)
        for entry in manifest["files"]:
            file = self.path / entry["path"]
            if file.exists():
                data = file.read_bytes()
                entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (self.path / MANIFEST).write_text(json.dumps(manifest))


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A copy of the values of an initializer."""
    return numpy_helper.to_array(_tensor(model, name)).copy()


def set_initializer(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Replaces the values of an initializer; type and shape stay."""
    tensor = _tensor(model, name)
    old = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, old.dtype).reshape(old.shape), name))


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_property(model: onnx.ModelProto, key: str, value: str) -> None:
    """Replaces a metadata property of the graph (G3)."""
    next(entry for entry in model.metadata_props if entry.key == key).value = value


class Trees:
    """The attributes of the forest's `TreeEnsemble` node, to read and to change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "TreeEnsemble")
        self._attributes = {attribute.name: attribute for attribute in node.attribute}

    def tensor(self, name: str) -> np.ndarray:
        """A copy of a tensor attribute: `nodes_splits`, `leaf_weights`."""
        return numpy_helper.to_array(self._attributes[name].t).copy()

    def set_tensor(self, name: str, values: np.ndarray) -> None:
        self._attributes[name].t.CopyFrom(numpy_helper.from_array(values))

    def ints(self, name: str) -> list[int]:
        """A copy of a list attribute: `nodes_featureids`, `tree_roots` and others."""
        return list(self._attributes[name].ints)

    def set_ints(self, name: str, values: list[int]) -> None:
        del self._attributes[name].ints[:]
        self._attributes[name].ints.extend(values)

    def leaf_depths(self) -> np.ndarray:
        """Depth of every leaf, int64 `[leaves]`."""
        depths = np.zeros(len(self.tensor("leaf_weights")), np.int64)
        children = {
            side: list(zip(self.ints(f"nodes_{side}nodeids"), self.ints(f"nodes_{side}leafs"), strict=True))
            for side in ("true", "false")
        }
        stack = [(root, 0) for root in self.ints("tree_roots")]
        while stack:
            node, depth = stack.pop()
            for child, is_leaf in (children["true"][node], children["false"][node]):
                if is_leaf:
                    depths[child] = depth + 1
                else:
                    stack.append((child, depth + 1))
        return depths
