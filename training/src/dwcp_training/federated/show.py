"""What a run says while it goes on: a line for each round, and what is going on at a terminal."""

import math
from collections.abc import Callable

from rich.progress import Progress

from dwcp_training.console import out, print_warning
from dwcp_training.federated.state import Round


class Shown:
    """Prints the table of rounds line by line, and moves a progress bar."""

    def __init__(self, bar: Progress, rounds: int) -> None:
        self._bar, self._task = bar, bar.add_task("clients", total=rounds)
        self._headed = False

    def step(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def round(self, done: Round) -> None:
        if not self._headed:
            self._headed = True
            out.print(f"{'round':>5}  {'loss':>10}  {'held out':>10}  {'clients':>7}  {'up':>9}  {'down':>9}  {'s':>6}")
        out.print(
            f"{done.number:>5}  {_number(done.loss):>10}  {_number(done.held_out_loss):>10}  {done.clients:>7}  "
            f"{size(done.up):>9}  {size(done.down):>9}  {done.seconds:>6.1f}"
        )
        self._bar.update(self._task, completed=done.number)

    @property
    def warn(self) -> Callable[[str], None]:
        return print_warning


def size(number: float) -> str:
    """Bytes in words, such as `1.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
