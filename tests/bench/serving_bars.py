"""What the serving benchmark measured: medians with their spread, ratios paired by round, and the bars."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from tests.bench import serving_cases as cases
from tests.bench import serving_servers as servers

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Median, least and most of one number over the rounds."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Of these values; None when there are none."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1]) if found else None

    def text(self, form: str = ".2f", unit: str = "") -> str:
        """For example `1.52x [1.31 to 1.80]`."""
        return f"{self.middle:{form}}{unit} [{self.least:{form}} to {self.most:{form}}]"


@dataclass(frozen=True)
class Bar:
    """One promise and whether it was kept; `met` is None where it could not be measured or nothing was promised."""

    what: str
    value: str
    bar: str
    met: bool | None


class Measured:
    """Reads the document that `serving_rounds` writes."""

    def __init__(self, document: dict) -> None:
        self.document = document

    def by_round(self, server: str, case: str, number: Callable[[dict], T]) -> dict[int, T]:
        """One number of one server in one case, by round."""
        return {
            m["round"]: number(m)
            for m in self.document["measurements"]
            if m["server"] == server and m["case"] == case
        }  # fmt: skip

    def spread(self, server: str, case: str, number: Callable[[dict], float]) -> Spread | None:
        """The same over all rounds."""
        return Spread.of(self.by_round(server, case, number).values())

    def best(self, server: str, *of: str) -> dict[int, float]:
        """Rows a second in whichever of some cases the server was fastest, by round."""
        found: dict[int, float] = {}
        for case in of:
            for number, value in self.by_round(server, case, rows).items():
                found[number] = max(value, found.get(number, 0))
        return found

    def starts(self, server: str) -> Spread | None:
        """Seconds from the start of the process to the first answer."""
        return Spread.of(s["seconds"] for s in self.document["starts"] if s["server"] == server)

    def largest_process(self, server: str) -> Spread | None:
        """Resident memory of its largest process after all load, in MB."""
        return Spread.of(m["each_mb"][0] for m in self.document["memory"] if m["server"] == server)

    def why_not(self, *names: str) -> str:
        """Why something was left out."""
        reasons = [why for name, why in self.document["skipped"].items() if name.startswith(names)]
        return "not measured: " + (reasons[0] if reasons else "left out")


def rows(measurement: dict) -> float:
    """Rows a second; for unary calls, calls a second."""
    return float(measurement["rows_per_second"])


def rows_per_cpu_second(measurement: dict) -> float:
    """Rows per second of the server's CPU time, or of the program's own where there is no server."""
    share = measurement.get("server_cpu_share", measurement.get("client_cpu_share_of_a_core"))
    return rows(measurement) / float(share)


def p99(measurement: dict) -> float:
    """99th percentile of the latency, in ms."""
    return float(measurement["latency_ms"]["p99"])


def ratios(above: dict[int, float], below: dict[int, float]) -> Spread | None:
    """Ratios of two servers in the same round, so that a drift of the machine meets both."""
    return Spread.of(above[number] / below[number] for number in above.keys() & below.keys())


def bars(measured: Measured) -> list[Bar]:
    """Every bar for serving."""
    found = []
    python, everywhere, go = servers.PYTHON, servers.PYTHON_ALL, servers.GO
    callers_64 = (cases.UNARY_64, cases.UNARY_64_1)

    def ratio(what: str, above: dict[int, float], below: dict[int, float], wanted: float, *needed: str) -> None:
        spread = ratios(above, below)
        text = spread.text(unit="x") if spread else measured.why_not(*needed)
        found.append(Bar(what, text, f"at least {wanted:g}x", spread.middle >= wanted if spread else None))

    def most(what: str, spread: Spread | None, wanted: float, form: str, unit: str, needed: str) -> None:
        text = spread.text(form, unit) if spread else measured.why_not(needed)
        found.append(Bar(what, text, f"at most {wanted:g}{unit}", spread.middle <= wanted if spread else None))

    one = measured.best(python, cases.UNARY_1)
    for peer, wanted in ((servers.KSERVE, 1.4), (servers.MLSERVER, 2.0)):
        ratio(f"{python} / {peer}, unary, 1 caller", one, measured.best(peer, cases.UNARY_1), wanted, python, peer)
    triton = measured.best(servers.TRITON, *callers_64)
    streamed = measured.best(everywhere, cases.STREAM_64, cases.STREAM)
    what = f"{everywhere}, 64 samples on their way in streams / {servers.TRITON}, unary, 64 callers"
    ratio(what, streamed, triton, 1.0, everywhere, servers.TRITON)
    unary = measured.best(go, *callers_64)
    ratio(f"{go} / {servers.TRITON}, unary, 64 callers", unary, triton, 2.0, go, servers.TRITON)
    for server, limit in ((python, cases.PYTHON_LIMIT), (go, cases.GO_LIMIT)):
        served, local = measured.best(server, cases.BATCH), measured.best(limit, cases.BATCH_ONE_CORE)
        ratio(f"{server}, batches of 256, 4 callers / {limit}, one thread", served, local, 0.8, server)
        served = measured.best(server, cases.BATCH_ONE_CORE)
        if spread := ratios(served, local):
            found.append(Bar("the same with the server kept on one core", spread.text(unit="x"), "", None))
        served = measured.by_round(server, cases.BATCH_ONE_CORE, rows_per_cpu_second)
        local = measured.by_round(limit, cases.BATCH_ONE_CORE, rows_per_cpu_second)
        if spread := ratios(served, local):  # says the same where other programs take part of the core
            found.append(Bar("the same in rows per second of CPU time", spread.text(unit="x"), "", None))
    most(f"{go}, p99 of unary calls, 1 caller", measured.spread(go, cases.UNARY_1, p99), 1, ".2f", " ms", go)
    for server, megabytes in ((python, 110), (everywhere, 110), (go, 40)):
        what = f"{server}, resident memory of the largest process, after all load"
        most(what, measured.largest_process(server), megabytes, ".0f", " MB", server)
    for server in (python, everywhere, go):
        most(f"{server}, first answer after start", measured.starts(server), 1, ".2f", " s", server)
    return found
