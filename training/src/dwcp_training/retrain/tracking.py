"""Records retrainings in MLflow, which is an extra: nothing here is needed to retrain."""

from __future__ import annotations

from typing import Any

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.detectors.libraries import MissingLibraryError
from dwcp_training.retrain.gate import Decision

EXPERIMENT = "dwcp-anomaly"


class MlflowRuns:
    """Runs of an MLflow server or folder.

    Args:
        uri: of the tracking server, for example ``http://127.0.0.1:5000``.

    Raises:
        MissingLibraryError: MLflow is not installed.
    """

    def __init__(self, uri: str) -> None:
        try:
            import mlflow
        except ImportError:
            raise MissingLibraryError(
                "--mlflow needs MLflow, which is not installed: pip install mlflow (mlflow-skinny is enough)."
            ) from None
        self._mlflow: Any = mlflow
        self._uri = uri

    def record(self, decision: Decision, challenger: ModelSet, facts: dict[str, str]) -> None:
        """Writes one run: hyperparameters, figures of both models, and the decision as a file."""
        mlflow = self._mlflow
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_experiment(EXPERIMENT)
        with mlflow.start_run(run_name=challenger.id[:16]):
            mlflow.set_tags({"model_set_id": challenger.id, "champion": decision.champion, **facts})
            for detector, metadata in challenger.metadata.items():
                given = metadata.training.hyperparameters
                mlflow.log_params({f"{detector}.{name}": value for name, value in sorted(given.items())})
                mlflow.log_metric(f"{detector}/threshold", metadata.threshold)
            for row in decision.as_json()["rows"]:
                for who in ("champion", "challenger"):
                    if row[who] is not None:
                        mlflow.log_metric(f"{row['detector']}/{row['measure']}/{who}", row[who])
            mlflow.log_metric("promoted", float(decision.promote))
            mlflow.log_dict(decision.as_json(), "decision.json")
