"""Why a federated training cannot go on."""

from dwcp_training.console import RefusedError


class FederatedError(RefusedError):
    """A run, a client or an answer that cannot be used; the message names it and says what to do."""

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        self.field = field
        super().__init__(f"{field}: {message}" + (f" {remedy}" if remedy else ""))


class SchemaError(FederatedError):
    """A client whose features are not those of the run."""


class TooFewClientsError(FederatedError):
    """Fewer clients than the run needs answered, also when asked again."""
