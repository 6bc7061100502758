"""
Logs: one line per call, and one per thing that an operator should know.

JSON lines, or the console's when a person looks. Never bodies, keys or header values. Lines of
calls go straight to orjson: a chain of processors would cost more than admission. All other code
logs through structlog, and libraries through `logging`; everything ends in the same writer.
`docs/logs.md` lists every event and key, and a test holds the two together.
"""

import json
import logging
import os
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from breaker.signals.lines import LINES_MAX, LineWriter

OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

Line = MutableMapping[str, Any]


class Logs:
    """
    Where log lines go, and how they look.

    Attributes:
        is_info_on: Whether the level lets lines of calls through.

    """

    def __init__(self, fd: int, *, format: str, level: str, lines_max: int = LINES_MAX) -> None:  # noqa: A002
        is_json = format == "json" or (format == "auto" and not os.isatty(fd))
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self.is_info_on = self._level <= logging.INFO
        self._encode = encode_json if is_json else ConsoleEncoder()
        self._writer = LineWriter(fd, self._dropped_line, lines_max=lines_max)

    def put(self, line: Line) -> None:
        """Write a line whose first keys are those of `head`; it does not ask for the level."""
        self._writer.write(self._encode(line))

    def is_on(self, level: str) -> bool:
        return logging.getLevelNamesMapping()[level.upper()] >= self._level

    @property
    def dropped(self) -> int:
        """Lines that nobody will read."""
        return self._writer.dropped

    def close(self) -> None:
        """Write what is left, within 2 s."""
        self._writer.close()

    def _dropped_line(self, count: int) -> bytes:
        return self._encode({**head("warning", "log_lines_dropped"), "count": count})


def configure(*, format: str, level: str, fd: int = 1) -> Logs:  # noqa: A002
    """
    Set up structlog and `logging` for this process.

    Args:
        format: `json`, `console`, or `auto`: console on a terminal.
        level: `debug`, `info`, `warning` or `error`.
        fd: Where to; standard output.

    """
    logs = Logs(fd, format=format, level=level)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            put_head_first,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: Sink(logs),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(LibraryHandler(logs))
    root.setLevel(level.upper())
    return logs


def head(level: str, event: str) -> dict[str, Any]:
    """What every line begins with; the time is UTC."""
    return {"timestamp": datetime.now(UTC), "level": level, "event": event}


def encode_json(line: Line) -> bytes:
    try:
        return orjson.dumps(line, option=OPTIONS, default=str)
    except TypeError:
        # Callers can send what is no text (lone surrogates): a line that looks odd beats none.
        return json.dumps(line, default=str).encode() + b"\n"


class ConsoleEncoder:
    """Lines for people."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer()

    def __call__(self, line: Line) -> bytes:
        shown = {**line, "timestamp": line["timestamp"].strftime("%H:%M:%S.%f")[:-3]}
        return self._render(None, "", shown).encode(errors="backslashreplace") + b"\n"


def put_head_first(_logger: Any, _method: str, line: Line) -> tuple[tuple[Line], dict[str, Any]]:
    """The last processor: hands the line over as it is, to be encoded by the sink."""
    return ({**head(line.pop("level"), line.pop("event")), **line},), {}


class Sink:
    """What structlog calls its logger: takes finished lines."""

    def __init__(self, logs: Logs) -> None:
        put: Callable[[Line], None] = logs.put
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = put


class LibraryHandler(logging.Handler):
    """What libraries say through `logging`."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        line = {**head(record.levelname.lower(), record.getMessage()), "logger": record.name}
        if record.exc_info and self.formatter:
            line["exception"] = self.formatter.formatException(record.exc_info)
        self._logs.put(line)
