"""Refusals of the interface that are not about data: those are `DataError`, wrong hyperparameters `ProfileError`."""


class DetectorError(RuntimeError):
    """A detector was asked for what it cannot do now.

    Attributes:
        field: what was asked for, for example `predict`.
        message: what is wrong, for people.
        remedy: what to do about it.
    """

    def __init__(self, field: str, message: str, remedy: str) -> None:
        super().__init__(f"{field}: {message} {remedy}")
        self.field, self.message, self.remedy = field, message, remedy


class NotTrainedError(DetectorError):
    """There is no model yet."""


class NoThresholdError(DetectorError):
    """There is no threshold yet, or none that can be moved."""


class ExportFailedError(DetectorError):
    """The trained model could not become a graph that scores as it does; nothing was saved."""
