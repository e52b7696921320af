"""Golden vectors for any width and window: all features of narrow schemas, some of wide ones."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp.anomaly.v1 import features_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.features import MAX_SAMPLES, check_samples
from dwcp_training.golden.common import common_drafts
from dwcp_training.golden.probes import probed


def schema(width: int) -> features_pb2.FeatureSchema:
    features = [features_pb2.Feature(name=f"m{j}", warning=2, critical=3) for j in range(width)]
    return features_pb2.FeatureSchema(name="wide", version=1, features=features)


def test_narrow_schemas_are_probed_whole() -> None:
    for timesteps in (1, 10, MAX_SAMPLES):
        assert probed(7, timesteps) == list(range(7))
    assert probed(1) == [0]
    assert probed(16) == list(range(16))


@pytest.mark.parametrize(("width", "timesteps", "most"), [(38, 8, 16), (128, 1, 16), (64, 100, 4), (128, 256, 4)])
def test_wide_schemas_are_probed_from_first_to_last(width: int, timesteps: int, most: int) -> None:
    chosen = probed(width, timesteps)
    assert len(chosen) == most
    assert (chosen[0], chosen[-1]) == (0, width - 1)
    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize("width", [1, 2, 87])
@pytest.mark.parametrize("timesteps", [1, 2, 250, 255, 256])
def test_every_draft_is_what_it_says(width: int, timesteps: int) -> None:
    """Each error case is refused as it says, and every other one is a request that can be scored."""
    if width > 2 and 1 < timesteps < 256:
        timesteps = 50
    names = [f"m{j}" for j in range(width)]
    seen = set()
    for draft in common_drafts(schema(width), np.ones((timesteps, width)), timesteps):
        assert draft.id not in seen
        seen.add(draft.id)
        if draft.error is None:
            assert check_samples(draft.samples, names, timesteps).shape == (timesteps, width)
            continue
        with pytest.raises(ContractError) as caught:
            check_samples(draft.samples, names, timesteps)
        assert (caught.value.code, caught.value.field) == draft.error, draft.id
    assert {"history/longest", "error/count/none"} <= seen
