"""What the server says on standard error: one line per event, as text for people or as JSON for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["text", "json"]

_OWN = "dwcp_sidecar"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"time", "level", "logger", "message", "exception"})
_LINE_BREAKS = {code: ascii(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


def setup(format: Format) -> None:
    """Sends the events of this process to standard error, in the place of any handler that was there.

    Those of this package from INFO on, those of libraries from WARNING on. Fields given as `extra` are kept:
    `log.info("swapped", extra={"model_set_id": id})`.

    Args:
        format: `text`: time, level, logger, message, fields as `name=value`. `json`: an object with `time` (RFC 3339,
            UTC), `level`, `logger`, `message`, the fields, and `exception` with a trace where there is one.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if format == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_OWN).setLevel(logging.INFO)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`; a name that means something else here gets an underscore."""
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {f"{name}_" if name in _RESERVED else name: value for name, value in extra.items()}


class _Formatter(logging.Formatter):
    def exception(self, record: logging.LogRecord) -> str | None:
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts) or None


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"]
        parts += [f"{name}={value}" for name, value in _fields(record).items()]
        trace = self.exception(record)
        if trace is not None:
            parts.append(f"exception={trace}")
        # Text from outside cannot begin a line of its own, nor speak to a terminal.
        return " ".join(parts).translate(_LINE_BREAKS)


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        trace = self.exception(record)
        if trace is not None:
            event["exception"] = trace
        return json.dumps(event, default=str)
