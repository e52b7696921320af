"""Names of the detectors: one list, derived from the enum in `proto/`."""

from dwcp.anomaly.v1 import model_pb2

_PREFIX = "DETECTOR_"

BY_NAME: dict[str, int] = {
    name.removeprefix(_PREFIX).lower(): number for name, number in model_pb2.Detector.items() if number != 0
}
"""Detector name to enum value, for example `isolation_forest` to 1."""

NAMES: dict[int, str] = {number: name for name, number in BY_NAME.items()}
"""Enum value to detector name."""
