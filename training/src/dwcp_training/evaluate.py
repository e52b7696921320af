"""Evaluation of a published set: the names that other code uses. The package `evaluation` does the work."""

from dwcp_training.data import INJECTION_KINDS, inject
from dwcp_training.evaluation.assess import Assessed, Question, assess
from dwcp_training.evaluation.bootstrap import Estimate
from dwcp_training.evaluation.command import Wanted, run_evaluate
from dwcp_training.evaluation.counts import EVENTS, STRENGTH, Evaluated, Recall, evaluate, evaluate_injected
from dwcp_training.evaluation.figures import Figures, KindFigures
from dwcp_training.evaluation.scored import alarms

__all__ = [
    "EVENTS",
    "INJECTION_KINDS",
    "STRENGTH",
    "Assessed",
    "Estimate",
    "Evaluated",
    "Figures",
    "KindFigures",
    "Question",
    "Recall",
    "Wanted",
    "alarms",
    "assess",
    "evaluate",
    "evaluate_injected",
    "inject",
    "run_evaluate",
]
