"""Bytes between clients and server."""

from dataclasses import dataclass


@dataclass
class Traffic:
    """Bytes of questions, `down`, and answers, `up`, as the server sees them."""

    up: int = 0
    down: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        """What came after."""
        return Traffic(self.up - before.up, self.down - before.down)

    def copy(self) -> "Traffic":
        return Traffic(self.up, self.down)
