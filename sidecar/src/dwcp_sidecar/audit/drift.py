"""The drift reference in the metadata: no lengths, edges, counts or critical values that contradict each other (DR1 to
DR5)."""

import math

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import Require, is_finite


def check_drift(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks the reference where there is one; older sets have none."""
    if not metadata.HasField("drift"):
        return
    drift = metadata.drift
    require(len(drift.features) == metadata.n_features, "drift.features are not one a feature (DR1)")
    rising = len(drift.sizes) > 0 and drift.sizes[0] > 0 and bool((np.diff(np.array(drift.sizes, np.int64)) > 0).all())
    require(rising, f"drift.sizes {list(drift.sizes[:8])} are not numbers above 0 that ascend (DR4)")
    require(0 < drift.rate < 1, f"drift.rate is {drift.rate!r}, not above 0 and below 1 (DR4)")
    for field in ("psi_threshold", "wasserstein_threshold"):
        threshold = getattr(drift, field)
        require(0 <= threshold < math.inf, f"drift.{field} is {threshold!r}, not a number of 0 or more (DR5)")
    rows = sum(drift.features[0].counts)
    require(rows > 0, "drift.features[0].counts are all 0 (DR1)")
    for j, feature in enumerate(drift.features):
        _check_feature(feature, len(drift.sizes), f"drift.features[{j}]", require)
        same = sum(feature.counts) == rows
        require(same, f"drift.features[{j}].counts sum to {sum(feature.counts)}, those before to {rows} (DR1)")


def _check_feature(feature: model_pb2.DriftFeature, sizes: int, at: str, require: Require) -> None:
    edges = np.array(feature.edges)
    require(len(edges) > 0 and is_finite(feature.edges), f"{at}.edges are not finite numbers (DR1)")
    require(bool((edges[1:] > edges[:-1]).all()), f"{at}.edges do not ascend (DR1)")
    require(math.isfinite(feature.edges[-1] - feature.edges[0]), f"{at}.edges are further apart than float64 goes")
    bins = len(feature.counts)
    require(bins == len(edges) + 1, f"{at}.counts are {bins}, not one more than the {len(edges)} edges (DR1)")
    require(0 < feature.scale < math.inf, f"{at}.scale is {feature.scale!r}, not a number above 0 (DR3)")
    for field in ("psi_critical", "wasserstein_critical"):
        values = getattr(feature, field)
        require(len(values) == sizes, f"{at}.{field} are {len(values)}, not one for each of the {sizes} sizes (DR4)")
        right = is_finite(values) and min(values) >= 0
        require(right, f"{at}.{field} has a value that is no number of 0 or more (DR4)")
