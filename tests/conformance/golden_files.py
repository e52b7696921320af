"""Golden files as cases and wanted answers for the judge (rules V1 to V3)."""

from pathlib import Path

import numpy as np
from google.protobuf import json_format

from dwcp.anomaly.v1 import errors_pb2, golden_pb2
from dwcp_training.detectors.base import Evaluation
from tests.conformance.cases import Case, Samples
from tests.conformance.contract import Fault
from tests.conformance.reference import Wanted, joined_evaluation


def read_golden(path: Path) -> golden_pb2.GoldenFile:
    """Parses a golden file; unknown fields are refused (A3)."""
    return json_format.Parse(path.read_bytes(), golden_pb2.GoldenFile())


def code_of(error: errors_pb2.ErrorInfo) -> str:
    """Name of an error's code without its prefix."""
    return errors_pb2.ErrorCode.Name(error.code).removeprefix("ERROR_CODE_")


def cases_of(file: golden_pb2.GoldenFile, prefix: str) -> list[Case]:
    """The cases of a golden file as requests; ids are `<detector>/<prefix>/<id of the case>`."""

    def samples(case: golden_pb2.GoldenCase) -> Samples:
        lists = [list(sample.values) for sample in case.samples]
        return lists if case.HasField("error") else np.array(lists, np.float64)

    return [
        Case(f"{file.model_type}/{prefix}/{case.id}", file.model_type, "golden", samples(case)) for case in file.cases
    ]


def wanted_of(file: golden_pb2.GoldenFile) -> Wanted:
    """The answers in a golden file. They are published numbers, so none of them can be in P2's gap."""
    faults = [Fault(code_of(c.error), c.error.field) if c.HasField("error") else None for c in file.cases]
    scored = [i for i, fault in enumerate(faults) if fault is None]
    scores = [file.cases[i].score for i in scored]
    depths = np.array([s.depth_sum for s in scores]) if all(s.HasField("depth_sum") for s in scores) else None
    evaluation = Evaluation(
        scores=np.array([s.score for s in scores], np.float64),
        is_anomaly=np.array([s.is_anomaly for s in scores], bool),
        contributions=np.array([s.contributions for s in scores], np.float64),
        expected=np.array([s.expected for s in scores], np.float64),
        depth_sums=depths,
    )
    return Wanted(faults, np.array(scored), evaluation)


def joined(parts: list[tuple[list[Case], Wanted]]) -> tuple[list[Case], Wanted]:
    """Several lists of cases of one detector as one."""
    cases: list[Case] = []
    faults, scored, evaluations = [], [], []
    for some, wanted in parts:
        scored.append(wanted.scored + len(cases))
        cases += some
        faults += wanted.faults
        evaluations.append(wanted.evaluation)
    return cases, Wanted(faults, np.concatenate(scored), joined_evaluation(evaluations))
