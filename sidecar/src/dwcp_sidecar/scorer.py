"""What all models have in common, with a graph of their own or with members: metadata, and the ways in (W1 to W4)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.calibration import Calibration
from dwcp_sidecar.features import check_batch, check_samples
from dwcp_sidecar.verdicts import Explain, Verdict, Verdicts


class Scorer(ABC):
    """A model of a set that can be scored. Safe to call from several threads.

    Args:
        metadata: the model's metadata, audited.

    Attributes:
        name: of the detector.
        detector: its enum value.
        timesteps: samples that are scored at once; 1 for a detector that scores one sample.
        windowed: whether it has a window, be it of a single sample: an item is `[timesteps, features]` (G1, O2).
        exact: whether it is in the EXACT class (P2).
        bitwise: whether its scores are the same bits everywhere: in the EXACT class, and with weights in int8 (Q2).
        has_depth_sum: whether it is a forest, which gives depth sums and explains by occlusion (IF3, IF7).
        scores_apart: whether scores without explanation are computed in another way than those with it.
    """

    has_depth_sum = False
    scores_apart = False

    def __init__(self, metadata: model_pb2.ModelMetadata) -> None:
        self.metadata = metadata
        self.name = metadata.model_type
        self.detector = detectors.BY_NAME[metadata.model_type]
        self.feature_names = list(metadata.feature_names)
        self.windowed = metadata.HasField("timesteps")
        self.timesteps = metadata.timesteps if self.windowed else 1
        self.threshold = metadata.threshold
        self.exact = metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
        self.bitwise = self.exact or metadata.graph.precision == "int8"
        critical = metadata.ensemble.critical_threshold if metadata.HasField("ensemble") else None
        self.calibration = Calibration(np.array(metadata.calibration.scores, np.float32), critical)

    def score(self, samples: Sequence[Sequence[float]], explain: Explain = Explain.ALWAYS) -> Verdicts:
        """Scores one request: the last sample (W1) or the last full window (W2).

        Args:
            samples: oldest first, raw values in schema order.

        Returns:
            Verdicts with `n = 1`.

        Raises:
            ContractError: the first fault in the order of E2.
        """
        return self.run(check_samples(samples, self.feature_names, self.timesteps)[np.newaxis], explain)

    def verdict(self, samples: Sequence[Sequence[float]], explain: Explain = Explain.ALWAYS) -> Verdict:
        """Scores one request as `score` does, to the same bits, without the arrays of a batch: for servers.

        Raises:
            ContractError: the first fault in the order of E2.
        """
        return self.verdict_of(check_samples(samples, self.feature_names, self.timesteps), explain)

    def score_batch(self, rows: Any, explain: Explain = Explain.NEVER, *, series: bool = False) -> Verdicts:
        """Scores many items, each to the same bits as `score` (W4).

        Args:
            rows: raw values `[n, features]` or `[items, timesteps, features]`.
            series: the rows are one series, oldest first; every full window is an item.

        Raises:
            ContractError: the first fault in the order of E2.
        """
        return self.run(check_batch(rows, self.feature_names, self.timesteps, series=series), explain)

    @abstractmethod
    def verdict_of(self, window: np.ndarray, explain: Explain) -> Verdict:
        """Scores one checked item, float64 `[timesteps, features]`."""

    @abstractmethod
    def run(self, items: np.ndarray, explain: Explain) -> Verdicts:
        """Scores checked items, float64 `[n, timesteps, features]`."""
