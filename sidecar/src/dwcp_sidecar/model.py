"""One model of a set, executed by ONNX Runtime: scores single requests and batches to the same bits."""

import numpy as np
import onnxruntime as ort

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.onnx_file import pruned
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, Verdict, Verdicts

__all__ = ["Explain", "Model", "Verdict", "Verdicts"]

# Items handed to ONNX Runtime at once: larger pieces leave the processor's caches. No score depends on it (W4).
_PIECE = {
    model_pb2.DETECTOR_ISOLATION_FOREST: 4096,
    model_pb2.DETECTOR_LSTM_AUTOENCODER: 64,
    model_pb2.DETECTOR_DENSE_AUTOENCODER: 512,
    model_pb2.DETECTOR_LOCAL_OUTLIER_FACTOR: 64,
    model_pb2.DETECTOR_ONE_CLASS_SVM: 64,
    model_pb2.DETECTOR_LSTM_CLASSIFIER: 64,
    model_pb2.DETECTOR_MAHALANOBIS: 512,
}

# Distances computed at once by a detector that compares every item with every stored row, so that they stay in the
# processor's caches too. On 5,000 rows 8 to 16 items are the fastest, and 256 of them take gigabytes in wide schemas.
_DISTANCES = 1 << 16


class Model(Scorer):
    """A detector with its graph, threshold and calibration.

    Built by `ModelSet`, which has audited the parts. Safe to call from several threads.

    Args:
        metadata: the model's metadata.
        graph: bytes of its ONNX file.
        threads: ONNX Runtime threads; scores do not depend on it (P2).
        compact: take half of the memory, and somewhat longer for a forest's score: for one of very many models.

    Raises:
        ContractError: GRAPH_INVALID when ONNX Runtime refuses the graph.
    """

    def __init__(
        self, metadata: model_pb2.ModelMetadata, graph: bytes, threads: int = 1, *, compact: bool = False
    ) -> None:
        super().__init__(metadata)
        self.has_depth_sum = self.detector == model_pb2.DETECTOR_ISOLATION_FOREST
        self._piece = _piece(metadata, self.detector)
        self._outputs = ["score", "is_anomaly"] + (["depth_sum"] if self.has_depth_sum else [])
        self._no_occlusion = np.zeros((1, len(self.feature_names)), bool)
        self._session = _session(graph, threads, metadata.graph.file, compact)
        # Explaining a forest's score takes longer than the score, so most calls go to a graph without it. The
        # explanation of the others falls out of their score.
        self._score_session = self._session
        self.scores_apart = self.has_depth_sum
        if self.scores_apart and not compact:
            self._score_session = _session(pruned(graph, self._outputs), threads, metadata.graph.file, compact)

    def verdict_of(self, window: np.ndarray, explain: Explain) -> Verdict:
        """Scores one checked item, float64 `[timesteps, features]`."""
        feed = window[np.newaxis] if self.windowed else window
        head = self._fetch(feed, explained=explain == Explain.ALWAYS)
        score, is_anomaly = head[0].item(), head[1].item()
        contributions = expected = None
        if explain == Explain.ALWAYS:
            contributions, expected = head[-2][0].tolist(), head[-1][0].tolist()
        elif is_anomaly and explain == Explain.ALARMS:
            contributions, expected = (part[0].tolist() for part in self._fetch(feed, explained=True)[-2:])
        p_value, level = self.calibration.single(score, is_anomaly)
        depth_sum = head[2].item() if self.has_depth_sum else None
        return Verdict(score, is_anomaly, p_value, level, contributions, expected, depth_sum)

    def run(self, items: np.ndarray, explain: Explain) -> Verdicts:
        """Scores checked items, float64 `[n, timesteps, features]`."""
        piece = self._piece
        if len(items) <= piece:
            return self._run_piece(items, explain)
        parts = [self._run_piece(items[i : i + piece], explain) for i in range(0, len(items), piece)]
        return Verdicts(
            *(
                None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])
                for name in Verdicts.__dataclass_fields__
            )
        )

    def _run_piece(self, items: np.ndarray, explain: Explain) -> Verdicts:
        samples = items if self.windowed else items[:, 0]
        count, width = len(items), len(self.feature_names)
        contributions = np.zeros((count, width), np.float32)
        expected = np.zeros((count, width), np.float32)
        explained = np.zeros(count, bool)
        if explain == Explain.ALWAYS:
            *head, contributions, expected = self._fetch(samples, explained=True)
            explained[:] = True
        else:
            head = self._fetch(samples, explained=False)
            alarms = head[1]
            if explain == Explain.ALARMS and alarms.any():
                contributions[alarms], expected[alarms] = self._fetch(samples[alarms], explained=True)[-2:]
                explained = alarms
        scores, is_anomaly = head[:2]
        p_values, levels = self.calibration.grade(scores, is_anomaly)
        return Verdicts(
            scores=scores,
            is_anomaly=is_anomaly,
            p_values=p_values,
            levels=levels,
            contributions=contributions,
            expected=expected,
            explained=explained,
            depth_sums=head[2] if self.has_depth_sum else None,
        )

    def _fetch(self, samples: np.ndarray, *, explained: bool) -> list[np.ndarray]:
        feeds = {"samples": samples}
        if explained:
            return self._session.run([*self._outputs, "contributions", "expected"], feeds)
        if self.has_depth_sum:
            feeds["occlusion"] = self._no_occlusion
        return self._score_session.run(self._outputs, feeds)


def _piece(metadata: model_pb2.ModelMetadata, detector: int) -> int:
    """Items to score at once; fewer where each needs its distances from very many rows."""
    rows = max(metadata.neighbors.rows, metadata.svm.support_vectors, 1)
    return max(1, min(_PIECE[detector], _DISTANCES // rows))


def _session(graph: bytes, threads: int, name: str, compact: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if compact:  # no memory is held between calls
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4  # what goes wrong is raised, with the file's name
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise ContractError(
            "GRAPH_INVALID", name, f"ONNX Runtime refuses {name}: {str(error).splitlines()[0]}. Publish the set again."
        ) from None
