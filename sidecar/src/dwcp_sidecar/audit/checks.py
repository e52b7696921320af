"""What the audits of all detectors are written with."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.limits import MAX_SAMPLES
from dwcp_sidecar.onnx_file import OnnxFile

MAX_UNITS = 4096
"""Widest layer of a network."""

Require = Callable[[bool, str], None]
"""Refuses the file when the condition does not hold; the text says what is wrong with it."""


def requirement(code: str, name: str) -> Require:
    """A `Require` that refuses the file `name` with an error code of the contract."""

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ContractError(code, name, f"{name}: {what}. Publish the set again.")

    return require


def is_finite(values: Iterable[float]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(map(math.isfinite, values))


def is_midpoint(threshold: float) -> bool:
    """Whether a number is the midpoint of two neighbouring positive float32 numbers (D2)."""
    if not (math.isfinite(threshold) and 0 < threshold < float(np.finfo(np.float32).max)):
        return False
    near = np.float32(threshold)
    below = near if float(near) <= threshold else np.nextafter(near, np.float32(0))
    above = np.nextafter(below, np.float32(np.inf))
    return (float(below) + float(above)) / 2 == threshold


def check_units(field: str, units: Sequence[int], require: Require) -> None:
    """Demands layer widths of 1 to 4,096."""
    for i, width in enumerate(units):
        require(1 <= width <= MAX_UNITS, f"{field}[{i}] is {width}, not 1 to {MAX_UNITS}")


def lstm_shapes(layer: str, width: int, units: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of an LSTM layer in float64 (LA3)."""
    return {
        f"{layer}.kernel": (width, 4 * units),
        f"{layer}.recurrent": (units, 4 * units),
        f"{layer}.bias": (4 * units,),
    }


def check_timesteps(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Demands a window that a request can carry (W3)."""
    require(0 < metadata.timesteps <= MAX_SAMPLES, f"timesteps is {metadata.timesteps}, not 1 to {MAX_SAMPLES} (W3)")


def check_contamination(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Demands a share of rows where there is one (D3)."""
    share = metadata.contamination
    if metadata.HasField("contamination"):
        require(0 < share < 1, f"contamination is {share!r}, not above 0 and below 1")


@dataclass(frozen=True)
class GraphAudit:
    """A graph beside its metadata, with the checks of single initializers.

    Attributes:
        metadata: audited metadata.
        graph: the parsed file.
        require: refuses the graph.
    """

    metadata: model_pb2.ModelMetadata
    graph: OnnxFile
    require: Require

    def same(self, initializer: str, values: object, dtype: type = np.float64) -> None:
        """Demands that an initializer holds these values of the metadata, to the bit (S2, G2)."""
        stored, wanted = self._stored(initializer), np.asarray(values, np.dtype(dtype))
        self.require(
            stored.dtype == wanted.dtype
            and stored.size == wanted.size
            and bool((stored.ravel() == wanted.ravel()).all()),
            f"{initializer} is not what the metadata says (S2)",
        )

    def same_reference(self) -> None:
        """Demands the reference values of the metadata, raw in float32 and scaled (IF6, IF8)."""
        self.same("reference_values", self.metadata.reference_values, np.float32)
        mean, scale = np.array(self.metadata.scaler.mean), np.array(self.metadata.scaler.scale)
        with np.errstate(over="ignore"):
            self.same("reference_scaled", (np.array(self.metadata.reference_values) - mean) / scale)

    def arrays(self, shapes: Mapping[str, tuple[int, ...]], dtype: type = np.float64) -> dict[str, np.ndarray]:
        """The initializers of these names, each of its shape, of one type and finite."""
        found = {}
        for name, shape in shapes.items():
            values = self._stored(name)
            right = values.dtype == np.dtype(dtype) and values.shape == shape
            self.require(right, f"{name} is {values.dtype} {list(values.shape)}, not {np.dtype(dtype)} {list(shape)}")
            self.require(bool(np.isfinite(values).all()), f"{name} has a value that is not finite")
            found[name] = values
        return found

    def _stored(self, name: str) -> np.ndarray:
        self.require(name in self.graph.initializers, f"initializer {name} is missing")
        return self.graph.initializers[name]
