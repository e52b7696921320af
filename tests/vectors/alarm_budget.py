"""Cases of rule M4: metadata, and the share of normal samples that may alarm.

    python -m tests.vectors.alarm_budget    # writes tests/vectors/alarm_budget/v1.json

Shares are written as the rule's operations give them in float64; both languages compare them bit by bit.
"""

import json
from pathlib import Path

PATH = Path(__file__).with_name("alarm_budget") / "v1.json"


def case(id: str, share: float | None, budget: str | None = None, **metadata: object) -> dict[str, object]:
    """One case; `share` None where there is none."""
    if budget is not None:
        metadata["training"] = {"hyperparameters": {"alarm_budget": budget}}
    return {"id": id, "metadata": metadata, "share": share}


CASES = [
    case("none/nothing_stated", None),
    case("none/ensemble_without_budget", None, ensemble={"critical_threshold": 0.7}, cadence_seconds=60.0),
    case("none/svm_with_nu_alone", None, svm={"nu": 0.05}),
    case("none/percentile_100", None, lstm={"threshold_percentile": 100.0}),
    case("none/percentile_not_stated", None, dense={}),
    case("contamination/forest", 0.01, contamination=0.01, forest={}),
    case("contamination/svm", 0.02, contamination=0.02, svm={"nu": 0.05}),
    case("contamination/out_of_range", None, contamination=1.0),
    case("percentile/lstm", (100 - 95.0) / 100, lstm={"threshold_percentile": 95.0}),
    case("percentile/dense", (100 - 99.9) / 100, dense={"threshold_percentile": 99.9}),
    case("budget/per_hour", 2.0 * 60.0 / 3_600.0, "2/hour", cadence_seconds=60.0),
    case("budget/per_day", 1.5 * 10.0 / 86_400.0, "1.5/day", cadence_seconds=10.0),
    case("budget/per_week", 0.1 * 60.0 / 604_800.0, "0.1/week", cadence_seconds=60.0),
    case("budget/exponent", 1e-05 * 0.7 / 86_400.0, "1e-05/day", cadence_seconds=0.7),
    case("budget/ensemble", 0.1 * 60.0 / 604_800.0, "0.1/week", cadence_seconds=60.0, ensemble={}),
    case(
        "budget/before_contamination",
        0.1 * 60.0 / 604_800.0,
        "0.1/week",
        cadence_seconds=60.0,
        contamination=0.01,
        forest={},
    ),
    case(
        "budget/before_percentile",
        0.3 * 30.0 / 86_400.0,
        "0.3/day",
        cadence_seconds=30.0,
        dense={"threshold_percentile": 95.0},
    ),
    case("budget/no_cadence", 0.01, "0.1/week", contamination=0.01),
    case("budget/no_cadence_and_nothing_else", None, "0.1/week"),
    case("budget/too_many", 0.01, "61/hour", cadence_seconds=60.0, contamination=0.01),
    case("budget/too_large_for_float64", 0.01, "1e999/week", cadence_seconds=60.0, contamination=0.01),
    *(
        case(f"budget/not_one/{number}", 0.01, text, cadence_seconds=60.0, contamination=0.01)
        for number, text in enumerate(
            [
                "",
                "0/week",
                "-0.1/week",
                "0.1/month",
                "0.1",
                "0.1 /week",
                "1_0/week",
                "0x1/week",
                "nan/week",
                "0.1/week\n",
            ]
        )
    ),
]


def text() -> str:
    """The file."""
    return json.dumps({"rule": "M4", "cases": CASES}, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
