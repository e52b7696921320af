"""Flower, imported late: without it everything but `dwcp federated` works."""

import logging
import os
from importlib.util import find_spec

from dwcp_training.detectors.libraries import MissingLibraryError


def require_flower() -> None:
    """Makes Flower ready to be imported, without its telemetry: nothing goes to any network but the run's own.

    Raises:
        MissingLibraryError: when Flower is not installed.
    """
    if find_spec("flwr") is None:
        raise MissingLibraryError(
            "federated training goes through Flower, and flwr is not installed. "
            "Install it: pip install 'dwcp-training[federated]'"
        )
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when flwr is imported
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    import flwr.supercore.logger  # noqa: F401  # it sets its level when it is imported

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # this program says itself what goes on
