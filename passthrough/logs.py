"""Log lines: JSON for machines or text for people, to standard output, never with a secret in them.

Events go through `logging`. The line that each call leaves is encoded once and written in bundles, because
there are thousands a second; a bundle waits at most `BUNDLE_SECONDS`.
"""

import asyncio
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

BUNDLE_SECONDS = 0.05
BUNDLE_BYTES = 64 * 1024
STDOUT: Final = 1

# Attributes that every LogRecord has; what a caller adds with `extra=` is what remains.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
        return _encode(line).decode()


def configure(*, level: str, style: str) -> None:
    """Set up logging for this process: `level` as in `logging`, `style` is `json` or `text`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter() if style == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # botocore's and aiohttp's own information is debugging to us
    for name in ("aiohttp", "botocore", "asyncio", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class CallLog:
    """Writes the line of each call. `fd` is a file descriptor; `enabled` False writes nothing."""

    def __init__(self, *, enabled: bool = True, style: str = "json", fd: int = STDOUT) -> None:
        self._enabled = enabled
        self._text = style == "text"
        self._fd = fd
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, moment: float, fields: dict[str, Any]) -> None:
        """Take the line of a call that ended at `moment` (epoch seconds); fields that are None are left out."""
        if not self._enabled:
            return
        if self._text:
            shown = " ".join(f"{name}={value}" for name, value in fields.items())
            line = f"{_time(moment)} call {shown}\n".encode("utf-8", "replace")
        else:
            line = _encode({"time": _time(moment), "level": "info", "event": "call", **fields}) + b"\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BUNDLE_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BUNDLE_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        bundle = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        while bundle:
            try:
                bundle = bundle[os.write(self._fd, bundle) :]
            except OSError:  # standard output is gone: there is nowhere left to say so
                return
