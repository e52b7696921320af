"""Telemetry for training: reading, validation, exclusion, windows, splits, fingerprints, synthetic data.

profile = load_profile("dwcp")
telemetry = read_table("normal.csv", profile, on_bad_rows="drop")
fit, held_out = time_split(telemetry, 0.2, gap=10)
batch = windows(fit.values, fit.segments, length=10)
"""

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, Intervals, read_intervals
from dwcp_training.data.fingerprint import fingerprint
from dwcp_training.data.injection import KINDS as INJECTION_KINDS
from dwcp_training.data.injection import inject
from dwcp_training.data.labelled_series import labelled_series
from dwcp_training.data.readers import read_table
from dwcp_training.data.report import Gap, Problem, ProblemKind, Report
from dwcp_training.data.synthetic import forest_rows, lstm_series
from dwcp_training.data.telemetry import Segments, Telemetry
from dwcp_training.data.windows import time_split, window_starts, windows
from dwcp_training.data.writers import write_csv

__all__ = [
    "INJECTION_KINDS",
    "DataError",
    "DataErrorCode",
    "Exclusion",
    "Gap",
    "Intervals",
    "Problem",
    "ProblemKind",
    "Report",
    "Segments",
    "Telemetry",
    "fingerprint",
    "forest_rows",
    "inject",
    "labelled_series",
    "lstm_series",
    "read_intervals",
    "read_table",
    "time_split",
    "window_starts",
    "windows",
    "write_csv",
]
