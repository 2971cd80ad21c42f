"""An answer on its way from an upstream connection to a client's transport.

The bytes of one read leave in one write, framed once, before anybody looks at them; only the last write
waits for the observer's word, so that a call is on record before its client can know that it is over. When the
client's transport has more than its high-water mark to send, the upstream is not read.

An answer that did not end well is never ended well here: no terminator is written, the connection is cut.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

from passthrough.errors import UpstreamFailure
from passthrough.wire.connection import Connection, Head

FINAL_CHUNK = b"0\r\n\r\n"
BODILESS_STATUSES = frozenset({204, 304})  # RFC 9110 §6.4.1
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: closing resets the connection


class Downstream(Protocol):
    """The server's side of a client connection; `transport` is None once the client has gone."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def writing_paused(self) -> bool: ...


class Observer(Protocol):
    """Whoever follows the answer. None of these may raise."""

    def head(self, head: Head) -> tuple[bytes, bool]:
        """The head for the client, without framing fields and empty line; whether it tells a length."""

    def body(self, data: bytes) -> None: ...

    def completed(self, end: Callable[[], None]) -> None:
        """The answer is whole; `end`, called now or soon, gives its last bytes to the client's socket."""

    def last_words(self) -> bytes:
        """What to append to an answer that is being cut: empty where nothing can be said."""


class Relay:
    """Takes in one answer (a `Receiver`), writes it to `downstream`.

    `chunking`: whether the client understands chunked coding (HTTP/1.1). `bodiless`: the answer to HEAD.
    """

    __slots__ = (
        "_bodiless",
        "_body",
        "_changed",
        "_chunked",
        "_chunking",
        "_connection",
        "_delimited",
        "_downstream",
        "_head",
        "_last",
        "_observer",
        "_whole",
        "closes",
        "done",
        "ended",
        "error",
        "started",
    )

    def __init__(
        self,
        *,
        connection: Connection,
        downstream: Downstream,
        observer: Observer,
        chunking: bool,
        bodiless: bool,
    ) -> None:
        self._connection = connection
        self._downstream: Downstream | None = downstream
        self._observer = observer
        self._chunking = chunking
        self._bodiless = bodiless
        self._head: bytes = b""
        self._body: list[bytes] = []
        self._last: bytes = b""
        self._chunked = False
        self._delimited = True
        self._whole = False
        self._changed: asyncio.Future[None] | None = None
        self.error: UpstreamFailure | None = None
        self.done = False  # nothing more comes, and the connection is not ours any more
        self.ended = False  # and the client has been given everything
        self.started = False  # something of the answer was given to the client
        self.closes = False  # the client's connection cannot carry another answer

    # -- Receiver

    def head_received(self, head: Head) -> None:
        lines, has_length = self._observer.head(head)
        framing = b"\r\n"
        if not (has_length or self._bodiless or head.status in BODILESS_STATUSES):
            self._chunked = self._chunking
            self._delimited = self._chunking
            # without chunks the body ends with the connection, as every HTTP/1.0 client expects
            framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._chunking else b"\r\n"
            self.closes = not self._chunking
        self._head = lines + framing

    def body_received(self, data: bytes) -> None:
        self._body.append(data)

    def completed(self) -> None:
        self._whole = True

    def failed(self, error: UpstreamFailure) -> None:
        self.error = error

    def flush(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if self.error is not None:
            self._cut(body)
        elif self._whole:
            self.done = True
            self._last = self._framed(body) + FINAL_CHUNK if self._chunked else self._framed(body)
            try:
                if body:
                    self._observer.body(body)
                self._observer.completed(self._end)
            except BaseException:  # whatever goes wrong there, nobody may wait for ever here
                self._end()
                raise
            self._wake()
        else:
            self._write(self._framed(body))
            if body:
                self._observer.body(body)
            self._hold_back()

    # -- the one who waits for it

    async def settled(self, drain: Callable[[], Awaitable[None]], stall_seconds: float) -> None:
        """Wait until the answer has ended, well or not.

        `drain` waits for the client's transport to take more; `TimeoutError` when that lasts longer than
        `stall_seconds`.
        """
        while not self.ended:
            if self._connection.reading_paused and not self.done:
                async with asyncio.timeout(stall_seconds):
                    await drain()
                self._connection.resume_reading()
            else:
                self._changed = self._connection.loop.create_future()
                await self._changed
        if self._downstream is not None and self._downstream.writing_paused:
            # else a client could ask for one answer after the other and read none of them
            async with asyncio.timeout(stall_seconds):
                await drain()

    def take_error(self) -> UpstreamFailure:
        """The failure, to be raised: raised from here it would hold the frames that hold this relay."""
        error, self.error = self.error, None
        assert error is not None  # noqa: S101  # asked for only where there is one
        return error

    def detach(self) -> None:
        """Go on without the client: the rest is observed, and written nowhere."""
        self._downstream = None
        self._connection.resume_reading()

    # -- inner workings

    def _framed(self, body: bytes) -> bytes:
        head, self._head = self._head, b""
        if not body:
            return head
        if self._chunked:
            return b"%b%x\r\n%b\r\n" % (head, len(body), body)
        return head + body if head else body

    def _write(self, data: bytes) -> None:
        if not data or self._downstream is None:
            return
        transport = self._downstream.transport
        if transport is not None and not transport.is_closing():
            self.started = True
            transport.write(data)

    def _hold_back(self) -> None:
        if self._downstream is not None and self._downstream.writing_paused:
            self._connection.pause_reading()
            self._wake()

    def _cut(self, body: bytes) -> None:
        if body:
            self._observer.body(body)
        if self.started and self._downstream is not None:
            words = self._observer.last_words() if self._chunked else b""
            self._write(self._framed(body + words))
            self.closes = True
            transport = self._downstream.transport
            if transport is not None:
                # a close is as good as a clean end where nothing else delimits the body: reset it then
                transport.close() if self._delimited else reset(transport)
        self.done = self.ended = True
        self._wake()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            try:
                self._write(self._last)
            finally:
                self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its other end cannot take it for a clean end.

    `abort` alone would let the kernel send what it holds, and then an orderly FIN.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()
