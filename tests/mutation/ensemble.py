"""Mutations of the ensemble (rules EN1 to EN7). It has no graph: what computes its scores is in its metadata."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.mutation.mutation import Makers, Mutation, contradiction, found
from tests.mutation.scorers import next_midpoint

Members = list[dict[str, Any]]
Change = Callable[[Members], object]


def exchange(*fields: str, other: int = 1) -> Change:
    """The first member and another one exchange something."""

    def change(members: Members) -> None:
        for field in fields:
            members[0][field], members[other][field] = members[other][field], members[0][field]

    return change


def step(index: int, field: str) -> Change:
    """A number of a member is one float32 step higher."""

    def change(members: Members) -> None:
        members[index][field] = float(np.nextafter(np.float32(members[index][field]), np.float32(np.inf)))

    return change


def move_weight(by: float) -> Change:
    """The first member has a little more weight, the second one less."""

    def change(members: Members) -> None:
        members[0]["weight"] += by
        members[1]["weight"] -= by

    return change


def equal_weights(members: Members) -> None:
    """All members weigh the same."""
    for member in members:
        member["weight"] = 1 / len(members)


def drop_first(members: Members) -> None:
    """The first member is none any more, and the others share its weight as if it were missing (EN6)."""
    left = 1 - members.pop(0)["weight"]
    for member in members:
        member["weight"] /= left


def another_detector(members: Members) -> None:
    """The second member is one that the set does not have (EN6)."""
    present = {member["detector"] for member in members}
    names = [f"DETECTOR_{name.upper()}" for name in DETECTORS]
    first, third = names.index(members[0]["detector"]), names.index(members[2]["detector"])
    members[1]["detector"] = next(name for name in names[first + 1 : third] if name not in present)


def threshold_at_one(members: Members) -> None:
    """The thresholds of members are 1 on the common scale, not 0.3 (EN3)."""
    for member in members:
        member["high"] = member["threshold"]


def from_zero(members: Members) -> None:
    """Published scores begin at 0 on the common scale, not at the median of normal ones (EN3)."""
    for member in members:
        member["low"] = 0.0


def raise_first(members: Members) -> None:
    """One member has more weight, the others as before (EN1)."""
    members[0]["weight"] += 0.1


def upside_down(members: Members) -> None:
    """The scale of a member falls (EN3)."""
    members[0]["low"], members[0]["high"] = members[0]["high"], members[0]["low"]


def mutations() -> Iterator[Mutation]:
    """All of them."""
    metadata = Makers(ENSEMBLE, "ensemble").metadata

    def members(name: str, change: Change, refusals, scores=True):
        return metadata(name, lambda data: change(data["ensemble"]["members"]), refusals, scores)

    wrong = contradiction(ENSEMBLE)
    yield members("weights/swapped", exchange("weight"), found(ENSEMBLE))
    yield members("weights/part_in_a_million", move_weight(1e-6), found(ENSEMBLE))
    yield members("weights/equal", equal_weights, found(ENSEMBLE))
    yield members("weights/sum", raise_first, wrong)
    yield members("weights/zero", lambda m: m[0].update(weight=0.0), wrong)
    yield members("members/dropped", drop_first, found(ENSEMBLE))
    yield members("members/another", another_detector, found(ENSEMBLE))
    yield members("members/reversed", lambda m: m.reverse(), wrong, scores=False)
    yield members("members/twice", lambda m: m.append(m[-1]), wrong)
    yield members("members/itself", lambda m: m[-1].update(detector="DETECTOR_ENSEMBLE"), wrong, scores=False)
    yield members("members/none", lambda m: m.clear(), wrong, scores=False)
    yield members("scale/swapped", exchange("low", "high", other=2), found(ENSEMBLE))
    yield members("scale/low_above_threshold", lambda m: m[0].update(low=m[0]["threshold"] * 1.01), wrong)
    yield members("scale/low_step", step(1, "low"), found(ENSEMBLE))
    yield members("scale/high_step", step(1, "high"), found(ENSEMBLE))
    yield members("scale/threshold_at_one", threshold_at_one, found(ENSEMBLE))
    yield members("scale/from_zero", from_zero, found(ENSEMBLE))
    yield members("scale/upside_down", upside_down, wrong)
    yield members("threshold/member", lambda m: m[1].update(threshold=next_midpoint(m[1]["threshold"])), wrong, False)
    yield members("threshold/no_member", lambda m: m[1].pop("threshold"), wrong, False)
    yield metadata("threshold/next", lambda d: d.update(threshold=next_midpoint(d["threshold"])), found(ENSEMBLE), True)
    yield metadata("critical/no_midpoint", lambda d: d["ensemble"].update(critical_threshold=0.7), wrong)
    yield metadata("critical/below", lambda d: d["ensemble"].update(critical_threshold=d["threshold"] / 2), wrong)
    yield metadata("critical/none", lambda d: d["ensemble"].pop("critical_threshold"), wrong)
    yield metadata("timesteps/longer", lambda d: d.update(timesteps=d["timesteps"] + 1), wrong)
    yield metadata("timesteps/none", lambda d: d.pop("timesteps"), wrong)
    yield metadata("scaler", lambda d: d.update(scaler={"mean": [0.0] * 7, "scale": [1.0] * 7}), wrong)
    yield metadata("graph/layout", lambda d: d["graph"].update(layout="forest.v1"), wrong)
    yield metadata("graph/available", lambda d: d["graph"].update(available=True), wrong)
    yield metadata("class/tolerance", lambda d: d.update(parity_class="PARITY_CLASS_TOLERANCE",
                   tolerance={"relative_score": 1e-6, "guard_band": 1e-6}), wrong)  # fmt: skip
