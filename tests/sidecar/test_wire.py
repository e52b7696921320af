"""A batch answer written from arrays is, byte for byte in meaning, the message of the schema."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.server import wire
from dwcp_sidecar.verdicts import Verdicts


def verdicts_of(count: int, width: int, seed: int, *, forest: bool) -> Verdicts:
    """Made-up verdicts with every value that a field may have."""
    random = np.random.default_rng(seed)
    return Verdicts(
        scores=random.normal(size=count).astype(np.float32),
        is_anomaly=random.random(count) < 0.5,
        p_values=random.random(count),
        levels=random.integers(0, 4, count),
        contributions=random.random((count, width)).astype(np.float32),
        expected=random.normal(size=(count, width)).astype(np.float32),
        explained=np.ones(count, bool),
        depth_sums=random.random(count) * 1000 if forest else None,
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 9), st.integers(0, 99), st.booleans(), st.booleans(), st.floats(0, 1))
def test_parses_to_the_same_message(count, width, seed, forest, explained, threshold):
    verdicts = verdicts_of(count, width, seed, forest=forest)
    message = scoring_pb2.ScoreBatchResponse(
        scores=verdicts.scores,
        is_anomaly=verdicts.is_anomaly,
        p_values=verdicts.p_values,
        levels=verdicts.levels.tolist(),
        depth_sums=verdicts.depth_sums if forest else [],
        contributions=verdicts.contributions.ravel() if explained else [],
        expected=verdicts.expected.ravel() if explained else [],
        threshold=threshold,
        model_set_id="abc",
    )
    data = wire.batch_response(verdicts, explained=explained, threshold=threshold, id="abc")
    assert scoring_pb2.ScoreBatchResponse.FromString(data) == message
    assert data == message.SerializeToString(), "the Go sidecar writes fields in the order of their numbers too"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**31])
def test_varint(value):
    data = wire._varint(value)
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data)) == value
    assert all(byte & 0x80 for byte in data[:-1])
    assert not data[-1] & 0x80
