"""Files that grow: a CSV file, the telemetry of a run, or the newest runs of a folder.

Only whole lines are read. A file that is replaced (rotated) is read to its end before the new one; one that is cut or
written anew is read from its start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from dwcp_training.data.chunks import first_rows
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.raw import unreadable
from dwcp_training.data.sources import TELEMETRY
from dwcp_training.monitor.lines import Lines
from dwcp_training.monitor.source import Item, LiveJudge
from dwcp_training.profiles import Profile

MOST_RUNS = 16
"""Runs of a folder that are followed at once; of more, those that came last."""

_READ = 1 << 20
_GUARD = 64  # bytes before the place of reading, to see whether they are still the same


class Tail:
    """One growing file.

    Args:
        path: of the file; it must be there.
        series: the series of its rows.
        judge: of all files that are followed.
        from_start: begin with the rows that are there.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(
        self, path: Path, series: str, judge: LiveJudge, features: Sequence[str], profile: Profile, *, from_start: bool
    ) -> None:
        self.path, self.series = path, series
        self._judge = judge
        self._timed = profile.timestamp_column is not None
        self._lines = Lines(path, features, profile)
        self._file: FileIO | None = None
        self._place, self._guard = 0, b""
        self._open()
        assert self._file is not None
        if not from_start:
            self._to_the_end(self._file)

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def items(self) -> Iterator[Item]:
        """What came since the last look."""
        if self._file is None:
            try:
                self._open()
            except DataError:
                return  # not yet there again
        assert self._file is not None
        yield from self._rest(self._file)
        if self._replaced(self._file):
            yield from self._rest(self._file)  # what was written before the new file came
            yield f"{self.path.name} was replaced"
            yield from self._abandon()
            self.close()
            with suppress(DataError):
                self._open()
                yield from self._rest(self._file)

    def unfinished(self) -> Iterator[Item]:
        """A notice about a last line without an end."""
        if self._lines.partial.strip():
            yield (
                f"{self.path.name}: the last line has no end yet and was not scored "
                f"({len(self._lines.partial):,} bytes)"
            )

    def _open(self) -> None:
        try:
            self._file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.path, error) from error
        self._place, self._guard = 0, b""

    def _to_the_end(self, file: FileIO) -> None:
        """Goes to the last line, having taken the header."""
        header = file.readline()
        if not header.endswith(b"\n"):
            return
        for _ in self._lines.add(header):
            pass
        lines, self._place = 1, len(header)
        before = len(header)
        while data := file.read(_READ):
            if (last := data.rfind(b"\n")) >= 0:
                lines, self._place = lines + data.count(b"\n"), before + last + 1
            before += len(data)
        self._lines.begin_again(lines)
        start = max(0, self._place - _GUARD)
        self._guard = os.pread(file.fileno(), self._place - start, start)

    def _rest(self, file: FileIO) -> Iterator[Item]:
        """What is there to the end of the file."""
        while True:
            data = os.pread(file.fileno(), _READ, self._place)
            # Looked at after reading: what was read may be of a file that was written anew in between.
            if self._cut(file):
                yield f"{self.path.name} was cut or written anew: it is read from its start"
                yield from self._abandon()
                self._place, self._guard = 0, b""
                continue
            if not data:
                return
            self._place += len(data)
            self._guard = (self._guard + data)[-_GUARD:]
            for table, columns in self._lines.add(data):
                yield from self._judge.items(table, columns, self.series)

    def _cut(self, file: FileIO) -> bool:
        """Whether what was read is no longer what is there."""
        return os.pread(file.fileno(), len(self._guard), self._place - len(self._guard)) != self._guard

    def _replaced(self, file: FileIO) -> bool:
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(file.fileno()))
        except OSError:
            return True

    def _abandon(self) -> Iterator[Item]:
        yield from self.unfinished()
        self._lines.begin_again()
        if not self._timed:
            self._judge.cut(self.series)  # nothing says that the rows of two files are neighbours


class Follow:
    """A growing file, the telemetry of a run folder, or of the newest runs of a folder of them.

    Args:
        path: of the file or folder.
        features, profile: as of `ChunkReader`.
        cadence: seconds between samples where known.
        fallback: the same, where neither that nor the first rows of the files say it.
        stop: ends it.
        interval: seconds between looks.
        from_start: begin with the rows that are there.
        once: look once only.

    Raises:
        DataError: there is no such file, or the folder has no run.
    """

    def __init__(
        self,
        path: Path,
        features: Sequence[str],
        profile: Profile,
        stop: threading.Event,
        *,
        cadence: float | None,
        fallback: float | None,
        interval: float,
        from_start: bool,
        once: bool,
    ) -> None:
        self._features, self._profile = features, profile
        self._stop, self._interval, self._once = stop, interval, once
        self._folder = path if path.is_dir() and not (path / TELEMETRY).is_file() else None
        if path.is_dir() and self._folder is None:
            files = {path.resolve().name: path / TELEMETRY}
        elif self._folder is not None:
            files = self._runs()
            if not files:
                raise DataError(
                    "--follow",
                    f"{path} has no run folder.",
                    f"Name a CSV file, a run with {TELEMETRY}, or a folder of runs.",
                    code=DataErrorCode.EMPTY,
                )
            self._seen = set(files)
            if not from_start:
                newest = max(files, key=lambda name: files[name].stat().st_mtime)
                files = {newest: files[newest]}
        else:
            files = {"": path}
        self.name = str(path)
        usual = cadence or fallback
        known: dict[str | None, float] = {None: usual} if usual else {}
        if cadence is None:
            for name, file in files.items():
                with suppress(DataError):  # perhaps it has no row yet
                    known.update(first_rows(file, name, features, profile)[1])
        self._judge = LiveJudge(features, profile, known)
        self._tails = {name: self._tail(name, file, from_start=from_start) for name, file in files.items()}

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""
        return self._judge.rows_read

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        try:
            while True:
                yield from self._new_runs()
                for tail in list(self._tails.values()):
                    yield from tail.items()
                yield from self._fewer_runs()
                if self._once or self._stop.wait(self._interval):
                    break
            for tail in self._tails.values():
                yield from tail.unfinished()
        finally:
            for tail in self._tails.values():
                tail.close()

    def _tail(self, name: str, file: Path, *, from_start: bool) -> Tail:
        return Tail(file, name, self._judge, self._features, self._profile, from_start=from_start)

    def _runs(self) -> dict[str, Path]:
        """Runs of the folder by name."""
        assert self._folder is not None
        found = [run for run in self._folder.iterdir() if (run / TELEMETRY).is_file()]
        return {run.name: run / TELEMETRY for run in sorted(found)}

    def _new_runs(self) -> Iterator[Item]:
        if self._folder is None:
            return
        for name, file in self._runs().items():
            if name not in self._seen:
                self._seen.add(name)
                with suppress(DataError):
                    self._tails[name] = self._tail(name, file, from_start=True)
                    yield f"new run {name}"

    def _fewer_runs(self) -> Iterator[Item]:
        while len(self._tails) > MOST_RUNS:
            name = next(iter(self._tails))  # the one that has been followed longest
            self._tails.pop(name).close()
            yield f"run {name} is no longer followed: at most {MOST_RUNS} are"
