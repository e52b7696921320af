"""What the members of an ensemble say about items, by the code that serves them."""

from collections.abc import Container, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import window_starts
from dwcp_training.detectors.base import Floats
from dwcp_training.export.run import cpu_session

_AT_ONCE = 2048
"""Windows cut out of a series at once."""


class Member:
    """A detector of an open set.

    Args:
        model: scores, as a server does.
        graph: bytes of its graph.
    """

    def __init__(self, model: Scorer, graph: bytes) -> None:
        self.model = model
        self._graph = graph

    @property
    def name(self) -> str:
        return self.model.name

    def of(self, items: Floats) -> Floats:
        """As many of the last samples of items `[n, timesteps, features]` as it needs (EN6)."""
        return np.ascontiguousarray(items[:, -self.model.timesteps :])

    def scores(self, items: Floats) -> NDArray[np.float32]:
        """Published scores `[n]` of items `[n, timesteps, features]`."""
        return self.model.run(self.of(items), Explain.NEVER).scores

    def unrounded(self, items: Floats) -> Floats:
        """All that it computes and publishes as float32, before it is rounded: float64 `[n, numbers]` (V4)."""
        names, session = self._inside
        own = self.of(items)
        found = session.run(names, {"samples": own if self.model.windowed else own[:, -1]})
        return np.concatenate([part.reshape(len(items), -1) for part in found], axis=1)

    @cached_property
    def _inside(self) -> tuple[list[str], Any]:
        """Names of the float64 values that its graph publishes as float32, and a session that gives them."""
        opened = onnx.ModelProto.FromString(self._graph)
        names = [
            node.input[0]
            for node in opened.graph.node
            if node.op_type == "Cast" and node.output[0] in ("score", "contributions", "expected")
        ]
        for name in names:
            opened.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None))
        return names, cpu_session(opened.SerializeToString())


def members_of(models: ModelSet, names: Container[str]) -> list[Member]:
    """The named detectors of an open set, in the order of the set."""
    return [
        Member(model, (models.path / models.metadata[name].graph.file).read_bytes())
        for name, model in models.models.items()
        if name in names
    ]


def items_of(telemetry: Telemetry, timesteps: int) -> Iterator[Floats]:
    """All windows of `timesteps` samples that stay inside segments, `[n, timesteps, features]`, in parts."""
    starts = window_starts(telemetry.segments, timesteps)
    if not len(starts):  # no view has windows that are longer than all rows
        return
    views = sliding_window_view(telemetry.values, timesteps, axis=0)
    for first in range(0, len(starts), _AT_ONCE):
        yield np.ascontiguousarray(views[starts[first : first + _AT_ONCE]].transpose(0, 2, 1))
