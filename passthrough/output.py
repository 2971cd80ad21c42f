"""Standard output, for a program that must not stop when whoever reads it does.

A pipe holds 64 KiB; then a write waits for its reader: a log collector that restarts, a terminal that is held. So a
worker's lines are written by a thread. A process without one, such as the parent of workers, which has to be able to
fork, writes at once, and gives a reader who stalls a moment.
"""

import contextlib
import os
import select
import stat
import threading
from collections.abc import Iterator
from typing import Final

MOST_WAITING_BYTES: Final = 16 * 1024 * 1024  # some 25,000 calls


class Output:
    """A file descriptor that takes whole lines. `lost` counts those that nobody took in time.

    `patience_seconds` bounds the wait for a reader who stalls: at the end, and for each line where there is no thread.
    """

    def __init__(self, fd: int = 1, *, patience_seconds: float = 2.0) -> None:
        self.lost = 0
        self._fd = fd
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0  # and what the thread is writing
        self._threaded = False
        self._gone = False

    def put(self, data: bytes, lines: int = 1) -> None:
        """Write `lines` lines, soon or now; never raises, and never waits where there is a thread."""
        with self._changed:
            if self._gone or self._waiting_bytes + len(data) > MOST_WAITING_BYTES:
                self.lost += lines
                return
            if self._threaded:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                self._changed.notify()
                return
        if not self._written_now(data):
            self.lost += lines

    @contextlib.contextmanager
    def by_thread(self) -> Iterator[None]:
        """Have a thread do the writing; at the end wait for it, and for nothing after that."""
        self._threaded = True
        writer = threading.Thread(target=self._write, name="output", daemon=True)
        writer.start()
        try:
            yield
        finally:
            with self._changed:
                self._threaded = False
                self._changed.notify()
            writer.join(self._patience_seconds)
            self._gone = self._gone or writer.is_alive()

    def _write(self) -> None:
        try:
            piped = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
            while waiting := self._next():
                for data in waiting:
                    for piece in _pieces(data) if piped else (data,):
                        self._write_piece(piece)
        except OSError:  # it is gone: there is nowhere left to say so
            self._gone = True

    def _next(self) -> list[bytes]:
        """Wait for what is to be written; nothing is left when the end has come."""
        with self._changed:
            self._waiting_bytes = sum(map(len, self._waiting))
            while self._threaded and not self._waiting:
                self._changed.wait()
            waiting, self._waiting = self._waiting, []
            return waiting

    def _write_piece(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[os.write(self._fd, piece) :]
            except BlockingIOError:  # another program has it so: a terminal's mode is common to all who have it open
                select.select((), (self._fd,), ())

    def _written_now(self, data: bytes) -> bool:
        try:
            for piece in _pieces(data):
                for start in range(0, len(piece), select.PIPE_BUF):  # a pipe with room has it for so much
                    if not select.select((), (self._fd,), (), self._patience_seconds)[1]:
                        return False
                    self._write_piece(piece[start : start + select.PIPE_BUF])
        except OSError:
            return False
        return True


STANDARD: Final = Output()


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once or not at all: the other workers write into it, too."""
    start = 0
    while len(lines) - start > select.PIPE_BUF:
        end = lines.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
    yield lines[start:]
