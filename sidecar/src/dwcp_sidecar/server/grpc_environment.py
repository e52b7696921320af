"""How gRPC behaves in this program, said in its environment before it is imported."""

import os


def prepare() -> None:
    """Sets what the user has not set.

    GRPC_VERBOSITY: what goes wrong is said once, by us. GRPC_EXPERIMENTS: the thread that takes events out of gRPC also
    reads its connections. By default another thread reads them and wakes that one, for each message of each call.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
