"""The one error type of the contract (rules E1 to E4). No transport is known here."""

from dwcp.anomaly.v1 import errors_pb2

_PREFIX = "ERROR_CODE_"


class ContractError(Exception):
    """A refused input or model set.

    Attributes:
        code: name of the `ErrorCode` without prefix, for example `NOT_FINITE`.
        field: what is at fault, as a path: `samples[3].packet_loss`, or a file name.
        message: the value and the remedy, for people.
    """

    def __init__(self, code: str, field: str, message: str) -> None:
        errors_pb2.ErrorCode.Value(_PREFIX + code)  # a code outside the contract is a bug here, not an answer
        super().__init__(f"{code} ({field}): {message}" if field else f"{code}: {message}")
        self.code = code
        self.field = field
        self.message = message

    @property
    def number(self) -> int:
        """The code as its protobuf enum value."""
        return errors_pb2.ErrorCode.Value(_PREFIX + self.code)


def code_name(number: int) -> str:
    """`NOT_FINITE` for `ERROR_CODE_NOT_FINITE`."""
    return errors_pb2.ErrorCode.Name(number).removeprefix(_PREFIX)
