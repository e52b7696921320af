"""A detector of the enum is whole, or this fails and says which part of it is missing."""

import pytest

from dwcp_sidecar import detectors
from tests.conformance.cases import DETECTORS
from tests.conformance.parts import NAMES, PARTS


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_detector_exists(name: str, part: str):
    missing = PARTS[part](name)
    assert not missing, f"{name} lacks its {part.replace('_', ' ')}: {missing}"


@pytest.mark.parametrize("part", PARTS)
def test_a_detector_that_does_not_exist_lacks_every_part(part: str):
    """A check that finds something for it would find it for a detector without that part, too."""
    assert PARTS[part]("random_forest"), f"the check of {part} finds nothing missing of a detector that does not exist"


def test_the_lists_agree():
    assert NAMES == list(DETECTORS) == list(detectors.BY_NAME)
