"""Log lines: JSON for machines or text for people, to standard output, never with a secret in them.

Events go through `logging`. The lines that calls leave are encoded and written in bundles, because there are
thousands a second: one after the other they cost a third of what they cost in between calls. A bundle waits at most
`BUNDLE_SECONDS`.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from passthrough.output import STANDARD, Output
from passthrough.policy.ledger import Entry

BUNDLE_SECONDS = 0.05
SAME_A_SECOND = 20  # to see what it is, and that it is not one
BUNDLE_CALLS = 64  # some 40 KB, and a quarter of a millisecond

# Attributes that every LogRecord has; what a caller adds with `extra=` is what remains.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SEPARATORS = frozenset(' "=')
_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
_encode = _encoder.encode

# What a call's line tells. `time` says when it ended; metadata are the client's, charges nobody's outside.
_LOGGED: Final = tuple(name for name in Entry.__struct_fields__ if name not in {"started_at", "metadata", "charges"})
_logged = attrgetter(*_LOGGED)
_EMPTY: Final = {"tags": (), "by_model": ()}
_Line = msgspec.defstruct(
    "_Line",
    [("time", str), ("level", str), ("event", str), *((name, Any, _EMPTY.get(name)) for name in _LOGGED)],
    omit_defaults=True,
    frozen=True,
    gc=False,
)


def _dump(line: dict[str, Any]) -> bytes:
    try:
        return _encode(line)
    except UnicodeEncodeError:  # header bytes that were no UTF-8
        return _encode({name: _printable(value) for name, value in line.items()})


def _printable(value: Any) -> Any:  # one value of a line
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, tuple | list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    return value


def _time(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03d}Z"


@lru_cache(maxsize=64)  # thousands of calls end in one second
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, and what the caller added by `extra=`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _dump(line).decode()


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, event, and what the caller added by `extra=` as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        added = _words((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        line = f"{_time(record.created)} {record.levelname} {record.name}: {record.getMessage()} {added}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _words(pairs: Iterable[tuple[str, Any]]) -> str:
    return " ".join(f"{name}={_word(value)}" for name, value in pairs)


def _word(value: Any) -> str:
    """A value as one word, in quotes where it could be taken for several, or for another name's."""
    if isinstance(value, str) and value.isprintable() and not _SEPARATORS.intersection(value):
        return value or '""'
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_printable(value)).decode()


class Handler(logging.Handler):
    """Writes events to `output`, which may be slow and stops nobody; of one kind `SAME_A_SECOND`, and how many more.

    While PostgreSQL or AWS is away each call has the same to say.
    """

    def __init__(self, output: Output = STANDARD) -> None:
        super().__init__()
        self._output = output
        self._second = 0
        self._said: dict[tuple[str, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if int(record.created) != self._second:
            self._sum_up(int(record.created))
        kind = record.name, str(record.msg)
        times = self._said[kind] = self._said.get(kind, 0) + 1
        if times <= SAME_A_SECOND:
            self._write(record)

    def _sum_up(self, second: int) -> None:
        said, self._said, self._second = self._said, {}, second
        for (name, event), times in said.items():
            if times > SAME_A_SECOND:
                self._write(
                    logging.makeLogRecord(
                        {
                            "name": name,
                            "levelno": logging.WARNING,
                            "levelname": "WARNING",
                            "msg": "more of the same was left out",
                            "left_out": event,
                            "times": times - SAME_A_SECOND,
                        }
                    )
                )

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # logging's own way with what cannot be formatted
            self.handleError(record)
        else:
            self._output.put(line.encode("utf-8", "replace") + b"\n")


def configure(*, level: str, style: str) -> None:
    """Set up logging for this process: `level` as in `logging`, `style` is `json` or `text`."""
    handler = Handler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # botocore's and aiohttp's own information is debugging to us
    for name in ("aiohttp", "botocore", "asyncio", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class CallLog:
    """Writes the line of each call that has ended to `output`; `enabled` False writes nothing."""

    def __init__(self, *, enabled: bool = True, style: str = "json", output: Output = STANDARD) -> None:
        self._enabled = enabled
        self._text = style == "text"
        self._output = output
        self._ended: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, entry: Entry) -> None:
        """Take the line of a call that has ended; `entry` does not change any more. What is None is left out."""
        if not self._enabled:
            return
        self._ended.append(entry)
        if len(self._ended) >= BUNDLE_CALLS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BUNDLE_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ended:
            ended, self._ended = self._ended, []  # first: what cannot be written must not be in the way of what can
            self._output.put(_shown(ended) if self._text else _lines(ended), len(ended))


def _lines(ended: list[Entry]) -> bytes:
    lines = [_Line(_time(_end(entry)), "info", "call", *_logged(entry)) for entry in ended]
    try:
        return _encoder.encode_lines(lines)
    except UnicodeEncodeError:  # header bytes that were no UTF-8, in one of them
        return b"".join(_dump(_told(line)) + b"\n" for line in lines)


def _shown(ended: list[Entry]) -> bytes:
    """The same for people."""
    lines: list[str] = []
    for entry in ended:
        told = zip(_LOGGED, _logged(entry), strict=True)
        shown = _words((name, value) for name, value in told if value is not None and value != ())
        lines.append(f"{_time(_end(entry))} call {shown}\n")
    return "".join(lines).encode("utf-8", "replace")


def _told(line: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(line).items() if value is not None and value != ()}


def _end(entry: Entry) -> float:
    return entry.started_at + entry.duration_ms / 1000
