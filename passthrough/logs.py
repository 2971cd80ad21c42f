"""Log lines: JSON for machines or text for people, to standard output, never with a secret in them.

Events go through `logging`. The line that each call leaves is encoded once and written in bundles, because
there are thousands a second; a bundle waits at most `BUNDLE_SECONDS`.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from functools import lru_cache
from typing import Any, Final

import msgspec

BUNDLE_SECONDS = 0.05
BUNDLE_BYTES = 64 * 1024
BUNDLES_KEPT = 256  # 16 MiB at most
LAST_WORDS_SECONDS = 2.0
STDOUT: Final = 1

# Attributes that every LogRecord has; what a caller adds with `extra=` is what remains.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode


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
    """Writes the line of each call. `fd` is a file descriptor; `enabled` False writes nothing.

    A thread does the writing: whoever reads standard output may stall, calls may not. Of what waits for it,
    `BUNDLES_KEPT` bundles are kept; `lost` counts the lines of the others. The ledger has every call anyway.
    """

    def __init__(self, *, enabled: bool = True, style: str = "json", fd: int = STDOUT) -> None:
        self.lost = 0
        self._enabled = enabled
        self._text = style == "text"
        self._fd = fd
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._bundles: queue.Queue[bytes | None] = queue.Queue(BUNDLES_KEPT)
        self._writer: threading.Thread | None = None

    def write(self, moment: float, fields: dict[str, Any]) -> None:
        """Take the line of a call that ended at `moment` (epoch seconds); fields that are None are left out."""
        if not self._enabled:
            return
        if self._text:
            shown = " ".join(f"{name}={value}" for name, value in fields.items())
            line = f"{_time(moment)} call {shown}".replace("\n", " ").encode("utf-8", "replace") + b"\n"
        else:
            line = _dump({"time": _time(moment), "level": "info", "event": "call", **fields}) + b"\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BUNDLE_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BUNDLE_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what has gathered to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_out, name="call-log", daemon=True)
            self._writer.start()
        try:
            self._bundles.put_nowait(b"".join(self._lines))
        except queue.Full:
            self.lost += len(self._lines)
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """Write what is left, as far as standard output takes it."""
        self.flush()
        if self._writer is not None:
            with contextlib.suppress(queue.Full):
                self._bundles.put_nowait(None)
                self._writer.join(LAST_WORDS_SECONDS)

    def _write_out(self) -> None:
        while (bundle := self._bundles.get()) is not None:
            while bundle:
                try:
                    bundle = bundle[os.write(self._fd, bundle) :]
                except OSError:  # standard output is gone: there is nowhere left to say so
                    return
