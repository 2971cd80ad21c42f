"""One HTTP/1.1 connection to an upstream, carrying one exchange at a time.

Parsing is llhttp's (httptools) in its strict mode, which refuses conflicting lengths, folded headers, bare line feeds;
what it leaves open is bounded here (size of the head, interim answers, bytes that nobody asked for).
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools
import msgspec

from passthrough.errors import UpstreamFailure
from passthrough.wire.framing import MAX_HEAD_BYTES, Headers, ends_with_the_connection, size_of, too_large

MAX_INTERIM_ANSWERS = 16
COPIED_BYTES = 64 * 1024  # up to here a copy is cheaper than a second system call
FIRST_FINAL_STATUS = 200
SWITCHING_PROTOCOLS = 101


class NoAnswer(UpstreamFailure):
    """The connection ended before the first byte of an answer: a stale one may be tried again."""


class SilentUpstream(UpstreamFailure):
    """Nothing arrived for as long as we are willing to wait."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """Status line and header fields of an answer, as they came: order, casing and duplicates kept."""

    status: int
    reason: bytes
    headers: Headers


class Receiver(Protocol):
    """Whoever takes in an answer. Calls come in order; none of them may raise.

    `flush` is called once after each read of the socket: what came in one read may leave in one write.
    After `completed` or `failed` nothing follows but the `flush` of the same read.
    """

    def head_received(self, head: Head) -> None: ...
    def body_received(self, data: bytes) -> None: ...
    def completed(self) -> None: ...
    def failed(self, error: UpstreamFailure) -> None: ...
    def flush(self) -> None: ...


class Connection(asyncio.Protocol):
    """A connection that is idle, or busy with one exchange.

    `released` is called when an exchange has ended cleanly and the connection may carry another;
    `lost` when it can carry none any more.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        released: "Callable[[Connection], None]",
        lost: "Callable[[Connection], None]",
    ) -> None:
        self.loop = loop
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self.reading_paused = False
        self.exchanges = 0
        self.last_activity = loop.time()  # seconds of the loop's clock
        self.request_sent = False
        self._begin_answer(bodiless=False)

    def _begin_answer(self, *, bodiless: bool) -> None:
        self._bodiless = bodiless
        self._reason = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._interim = False
        self._interims = 0
        self._head_done = False
        self._close_delimited = False
        self._finished = False
        self._keep_alive = False

    # -- what the owner of an exchange calls

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(
        self,
        receiver: Receiver,
        head: bytes,
        body: bytes | bytearray = b"",
        *,
        bodiless: bool = False,
        request_sent: bool = True,
    ) -> None:
        """Send a request; the answer goes to `receiver`.

        `body` may be empty while it follows by `write`; it must not change any more.
        `bodiless`: the answer has no body whatever its head says (HEAD).
        `request_sent`: False while body bytes will follow; set it True after the last.
        """
        assert self._receiver is None, "one exchange at a time"  # noqa: S101  # a bug of ours, not input
        self._receiver = receiver
        self._begin_answer(bodiless=bodiless)
        self.exchanges += 1
        self.last_activity = self.loop.time()
        transport = self._transport
        if transport is None or transport.is_closing():
            self.request_sent = False
            self.fail(NoAnswer("the connection was already closed"))
            return
        self.request_sent = request_sent
        if len(body) > COPIED_BYTES:
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self.last_activity = self.loop.time()
            self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the upstream takes more of a request body; returns at once when it is gone."""
        if self._write_paused and self._transport is not None:
            self._writable = self.loop.create_future()
            await self._writable

    def pause_reading(self) -> None:
        if not self.reading_paused and self._transport is not None and not self._transport.is_closing():
            self.reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            self.last_activity = self.loop.time()
            if self._transport is not None and not self._transport.is_closing():  # uvloop raises for a closed one
                self._transport.resume_reading()

    def fail(self, error: UpstreamFailure) -> None:
        """End the exchange as failed and the connection with it."""
        receiver, self._receiver = self._receiver, None
        self.abort()
        if receiver is not None:
            receiver.failed(error)
            receiver.flush()

    def abandon(self, receiver: Receiver) -> None:
        """Drop a receiver's exchange without telling it, and the connection with it: not when that is another's now."""
        if self._receiver is receiver:
            self._receiver = None
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self._receiver is not None:
            if self._close_delimited and not self._finished and exc is None:
                self._complete()
                self._deliver()
            else:
                self.fail(self._loss(exc))
        del self._parser  # it knows us as we know it: only the garbage collector would part us
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        self.last_activity = self.loop.time()
        if self._receiver is None:  # bytes nobody asked for: the next answer could not be trusted
            self.abort()
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._unreadable(error)
            return
        if not self._head_done and self._head_bytes > MAX_HEAD_BYTES:
            self.fail(too_large())
            return
        self._deliver()

    # -- httptools callbacks, inside feed_data

    def on_message_begin(self) -> None:
        if self._finished:
            self.abort()  # a second answer to one request

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # trailers are dropped: nothing in Bedrock's protocol uses them
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < FIRST_FINAL_STATUS:
            self._interim_answer(status)
            return
        if self._finished or self._receiver is None:
            return
        # what came in one read with the end of the head is known to be a part of it only now
        if self._head_bytes > MAX_HEAD_BYTES and size_of(self._headers) > MAX_HEAD_BYTES:
            raise too_large()
        self._head_done = True
        self._close_delimited = ends_with_the_connection(self._headers)
        self._receiver.head_received(Head(status, self._reason, self._headers))
        if self._bodiless:
            # llhttp cannot know the method: it would wait for a body that never comes
            self._complete()

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None and not self._finished:
            self._receiver.body_received(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self._headers = []
            self._reason = b""
        elif not self._finished:
            self._complete()

    # -- inner workings

    def _interim_answer(self, status: int) -> None:
        self._interim = True
        self._interims += 1
        if status == SWITCHING_PROTOCOLS or self._interims > MAX_INTERIM_ANSWERS:
            raise UpstreamFailure("the upstream sent interim answers that were not asked for")

    def _unreadable(self, error: httptools.HttpParserError) -> None:
        if self._finished:  # it lies behind a whole answer, which stands; the connection is spoilt
            self.abort()
            self._deliver()
            return
        reason = error.__context__ or error  # what a callback raised, where one did
        self.fail(UpstreamFailure(f"the upstream's answer is not HTTP/1.1: {reason}"))

    def _loss(self, exc: Exception | None) -> UpstreamFailure:
        if not self._head_bytes:
            return NoAnswer("the upstream closed the connection without an answer")
        reason = f" ({exc})" if exc else ""
        return UpstreamFailure(f"the upstream closed the connection inside its answer{reason}")

    def _complete(self) -> None:
        self._finished = True
        self._keep_alive = self._parser.should_keep_alive()
        if self._receiver is not None:
            self._receiver.completed()

    def _deliver(self) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if not self._finished:
            receiver.flush()
            return
        self._receiver = None
        reusable = self.open and self.request_sent and not self._bodiless and self._keep_alive
        receiver.flush()
        if reusable:
            self.resume_reading()
            self._released(self)
        else:
            self.abort()
