"""Ensemble: parameters, and whether the members in the set are those it was made for (rules EN1 to EN8)."""

import math
from collections.abc import Mapping

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.audit.checks import Require, check_timesteps, is_finite, is_midpoint, requirement

NAME = "ensemble"
"""The detector that has no graph of its own (EN7)."""

LAYOUT = "ensemble.v2"
"""What the metadata of a new ensemble say in the place of a graph's layout (EN8)."""

FIRST_LAYOUT = "ensemble.v1"
"""That of ensembles whose common scale ends at 1 (EN3)."""

LAYOUTS = (FIRST_LAYOUT, LAYOUT)
"""Those that are read."""

WEIGHT_SLACK = 1e-9
"""How far from 1 the sum of the weights may be (EN1)."""


def check_nothing_of_its_own(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Demands no scaler, no reference value, no drift reference and no graph, and the EXACT class (EN4, EN7)."""
    own = metadata.HasField("scaler") or len(metadata.reference_values) > 0
    require(not own, "scaler or reference_values is set, which the members alone have")
    require(not metadata.HasField("drift"), "drift is set, which the members alone have")
    graph = metadata.graph
    described = graph.available or graph.file or graph.unavailable_reason or graph.precision or graph.operator_counts
    require(not described, "graph describes a graph, which an ensemble does not have (EN7)")
    require(graph.layout in LAYOUTS, f"graph.layout is {graph.layout!r}, not {' or '.join(LAYOUTS)}")
    require(metadata.parity_class == model_pb2.PARITY_CLASS_EXACT, "parity_class is not EXACT (EN4)")


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks what can be seen without the members: weights, scales and levels (EN1, EN3, EN5, EN8)."""
    if metadata.HasField("timesteps"):
        check_timesteps(metadata, require)
    members = metadata.ensemble.members
    require(len(members) > 0, "ensemble.members is empty (EN1)")
    last = 0
    for i, member in enumerate(members):
        at, name = f"ensemble.members[{i}]", detectors.NAMES.get(member.detector)
        require(name != NAME, f"{at} is an ensemble, which is no member of one (EN1)")
        in_order = name is not None and member.detector > last
        require(in_order, f"{at} is detector {member.detector}, which is unknown, there twice or out of order")
        require(0 < member.weight < math.inf, f"{at}.weight {member.weight!r} is not a number above 0 (EN1)")
        require(math.isfinite(member.threshold), f"{at}.threshold is {member.threshold!r}")
        rising = math.isfinite(member.low) and member.low < member.threshold
        require(rising, f"{at}.threshold {member.threshold!r} is not above low, {member.low!r} (EN8)")
        if metadata.graph.layout == FIRST_LAYOUT:
            rising = is_finite([member.low, member.high]) and member.low < member.high
            require(rising, f"{at}.high {member.high!r} is not a number above low, {member.low!r} (EN3)")
        else:
            require(member.high == 0, f"{at}.high is {member.high!r}, and {LAYOUT} has no upper end: 0 (EN8)")
        last = member.detector
    total = 0.0
    for member in members:
        total += member.weight
    require(abs(total - 1) <= WEIGHT_SLACK, f"the weights of ensemble.members sum to {total!r}, not to 1 (EN1)")
    critical = metadata.ensemble.critical_threshold
    right = is_midpoint(critical) and critical >= metadata.threshold
    require(right, f"ensemble.critical_threshold {critical!r} is no float32 midpoint, or below threshold (EN5)")


def audit_members(metadata: model_pb2.ModelMetadata, others: Mapping[str, model_pb2.ModelMetadata], name: str) -> None:
    """Checks an ensemble against the members that are in its set; others are missing when it scores (EN6).

    Args:
        metadata: of the ensemble, as `audit_metadata` accepts it.
        others: detector name to audited metadata.
        name: of the ensemble's metadata file.

    Raises:
        ContractError: METADATA_INVALID naming the file and the member: its features, its threshold or its class is
            another one, or the window is not the longest of the members'.
    """
    require = requirement("METADATA_INVALID", name)
    longest, complete = 0, True
    for member in metadata.ensemble.members:
        own = detectors.NAMES[member.detector]
        if own not in others:
            complete = False
            continue
        other = others[own]
        same = list(other.feature_names) == list(metadata.feature_names)
        require(same, f"member {own} has other features: {', '.join(other.feature_names)} (EN1)")
        require(
            other.threshold == member.threshold,
            f"member {own} has the threshold {other.threshold!r}, the ensemble is made for {member.threshold!r} (EN2)",
        )
        require(other.parity_class == model_pb2.PARITY_CLASS_EXACT, f"member {own} is not in the EXACT class (EN4)")
        longest = max(longest, other.timesteps)
    # A member that is not there may be the one with the longest window.
    right = metadata.timesteps == longest or (not complete and metadata.timesteps > longest)
    require(right, f"timesteps is {metadata.timesteps}; the longest window of the members is {longest} (EN6)")
