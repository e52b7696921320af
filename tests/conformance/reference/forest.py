"""scikit-learn's trees, walked by scikit-learn (IF1 to IF8)."""

import pickle
from dataclasses import replace
from pathlib import Path

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.calibrate import depth_threshold
from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled
from dwcp_training.detectors.isolation_forest import ForestReference
from dwcp_training.export.forest import score_rate
from tests.conformance.inputs import Source
from tests.conformance.reference.base import Reference


class ForestOracle(Reference):
    """Rate and threshold anew from the pickled forest."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "isolation_forest")
        self.forest = pickle.loads(self._read("isolation_forest.pkl"))
        self.scaler = pickle.loads(self._read("scaler.pkl"))
        own = model_pb2.ModelMetadata(reference_values=self.metadata.reference_values)
        own.forest.score_rate = score_rate(len(self.forest.estimators_), self.forest._max_samples)
        own.forest.depth_threshold = depth_threshold(-float(self.forest.offset_), own.forest.score_rate)
        self._trees = ForestReference(self.forest, self.scaler, own)

    def evaluate(self, items: Floats) -> Evaluation:
        return self._trees.evaluate(items)

    def source(self) -> Source:
        return replace(super().source(), splits=self._trees.splits())

    def sklearn_scores(self, items: Floats) -> Floats:
        """scikit-learn's own scores with their sign turned, for IF4; float64 `[n]`."""
        return -self.forest.score_samples(clamp_scaled(items[:, -1], self.scaler.mean_, self.scaler.scale_))
