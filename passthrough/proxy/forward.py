"""Send a signed request upstream and relay its answer, byte for byte.

The answer goes from the upstream connection straight into the client's transport (`wire.relay`); the task of
the handler only waits for its end. A client that leaves does not end the call when it is to be drained: AWS
bills the whole answer anyway, and only its last bytes tell how much that is.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from passthrough.errors import ClientGone, UpstreamFailure
from passthrough.proxy.headers import answer_head
from passthrough.proxy.outgoing import Outgoing
from passthrough.wire.connection import Connection, Head, NoAnswer
from passthrough.wire.pool import Pool
from passthrough.wire.relay import Relay, reset

UPLOAD_PIECE_BYTES = 256 * 1024
EVENT_STREAM = "application/vnd.amazon.eventstream"
LOST_SECONDS = 1.0  # more than a transport that was aborted needs to tell its protocol
# A connection that had been closed says so within a round trip; what is lost later may have been worked on, and billed.
STALE_SECONDS = 1.0


class Meter(Protocol):
    """Looks at the bytes of an answer as they go by."""

    @property
    def at_boundary(self) -> bool: ...
    def feed(self, data: bytes) -> None: ...


class Answer(ABC):
    """Follows one answer (the relay's `Observer`): head, bytes, end.

    `keeps_open`: whether the client's connection may go on. `asked`: whether the whole request went up.
    """

    __slots__ = ("_event_stream", "_meter", "asked", "keeps_open", "received_bytes")

    def __init__(self, *, keeps_open: bool) -> None:
        self.keeps_open = keeps_open
        self._meter: Meter | None = None
        self._event_stream = False
        self.received_bytes = 0
        self.asked = False

    @abstractmethod
    def begins(self, status: int, fields: Mapping[str, str]) -> tuple[Meter, bytes]:
        """Return the meter for what follows and the lines to add for the client; may take back `keeps_open`."""

    @abstractmethod
    def completed(self, end: Callable[[], None]) -> None:
        """The answer is whole; `end` gives its last bytes to the client."""

    @abstractmethod
    def left(self) -> None:
        """The client has gone before that."""

    @abstractmethod
    def interruption(self) -> bytes:
        """What an event stream is told when it is cut."""

    def head(self, head: Head) -> tuple[bytes, bool]:
        told = answer_head(head.headers)
        self._meter, added = self.begins(head.status, told.fields)
        if not self.keeps_open:
            added += b"Connection: close\r\n"
        self._event_stream = told.fields.get("content-type", "").startswith(EVENT_STREAM)
        return b"HTTP/1.1 %d %b\r\n%b%b" % (
            head.status,
            head.reason,
            told.lines,
            added,
        ), "content-length" in told.fields

    def body(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._meter is not None:
            self._meter.feed(data)

    def last_words(self) -> bytes:
        """An exception frame, where the client is an event-stream reader and stands between two frames."""
        if self._event_stream and self._meter is not None and self._meter.at_boundary:
            return self.interruption()
        return b""


class Relayed(web.StreamResponse):
    """What aiohttp is given for an answer that is on the client's transport already: there is nothing to do."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002  # the interface
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002  # the interface
        return None


class Forward:
    """Step 5. `stall_seconds`: how long a client may take no byte of an answer that waits for it.

    `on_disconnect`: `drain` reads the answer of a client that left to its end, at most `drain_seconds` long
    and at most `drains` at a time; `cancel`, and whatever is beyond these bounds, drops it.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        stall_seconds: float,
        on_disconnect: Literal["drain", "cancel"],
        drain_seconds: float,
        drains: int,
    ) -> None:
        self._pool = pool
        self._stall_seconds = stall_seconds
        self._drain_seconds = drain_seconds
        self._drains_left = drains if on_disconnect == "drain" else 0
        # stateless, so that one of each serves all answers
        self._kept = Relayed(keep_alive=True)
        self._closed = Relayed(keep_alive=False)

    async def __call__(self, outgoing: Outgoing, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        """Relay the answer; returns when it has ended.

        Raises `Unavailable` (cannot connect), `UpstreamFailure` (before a byte was given to the client),
        `ClientGone`. A failure inside an answer is not raised, because nothing can be answered any more: the
        client's connection was cut, and `answer` was never told that it is whole.
        """
        connection = self._pool.idle(outgoing.address) or await self._pool.acquire(outgoing.address)
        stale = connection.exchanges > 0
        relay = await self._exchange(connection, outgoing, request, answer)
        if stale and outgoing.body is not None and _was_closed(connection, relay):
            # while it was idle: nobody has seen the request, so once more is safe
            answer.asked = False
            connection = await self._pool.acquire(outgoing.address, fresh=True)
            relay = await self._exchange(connection, outgoing, request, answer)
        if relay.error is not None and not relay.started:
            raise relay.take_error()
        return self._kept if answer.keeps_open and not relay.closes and request.content.is_eof() else self._closed

    async def _exchange(
        self, connection: Connection, outgoing: Outgoing, request: web.BaseRequest, answer: Answer
    ) -> Relay:
        bodiless = outgoing.method == "HEAD"
        relay = Relay(
            connection=connection,
            downstream=request.protocol,
            observer=answer,
            chunking=request.version.minor > 0,
            bodiless=bodiless,
        )
        try:
            if outgoing.body is None:
                connection.start(relay, outgoing.head, bodiless=bodiless, request_sent=False)
                await self._upload(connection, request, relay)
            else:
                connection.start(relay, outgoing.head, outgoing.body, bodiless=bodiless)
            await relay.settled(request.writer.drain, self._stall_seconds)
        except (asyncio.CancelledError, TimeoutError, ConnectionError) as error:
            await self._without_client(connection, relay, request, answer, error)
        except BaseException:
            connection.abandon(relay)
            if (relay.started or relay.done) and request.transport is not None:
                reset(request.transport)  # nothing may be answered behind half an answer
            raise
        finally:
            answer.asked = connection.request_sent
        return relay

    async def _upload(self, connection: Connection, request: web.BaseRequest, relay: Relay) -> None:
        """Hand the body up as it comes; stop when the upstream has answered already."""
        while not relay.done:
            if request.transport is None:  # aiohttp takes a wait for what cannot come for a mistake of ours
                raise ConnectionResetError("the client has gone")
            async with asyncio.timeout(self._stall_seconds):
                data = await request.content.read(UPLOAD_PIECE_BYTES)
            if not data:
                connection.request_sent = True
                return
            connection.write(data)
            await connection.writable()

    async def _without_client(
        self, connection: Connection, relay: Relay, request: web.BaseRequest, answer: Answer, error: BaseException
    ) -> None:
        """The client has gone, reads no more, or the server is being stopped."""
        transport = request.transport
        cancelled = isinstance(error, asyncio.CancelledError)
        if cancelled and not relay.done and transport is not None and not transport.is_closing():
            connection.fail(UpstreamFailure("the proxy is being stopped"))
            raise error
        if transport is not None and not cancelled:
            reset(transport)
        if not relay.done:
            answer.left()
            if not connection.request_sent or not self._drains_left:
                connection.abandon(relay)
                raise ClientGone from error
        await _take_in_cancellation(already=cancelled)
        if not relay.done:
            await self._drain(connection, relay)
            raise ClientGone from error
        await relay.settled(_nothing, self._stall_seconds)  # its last bytes may wait for its record

    async def _drain(self, connection: Connection, relay: Relay) -> None:
        self._drains_left -= 1
        relay.detach()
        try:
            async with asyncio.timeout(self._drain_seconds):
                await relay.settled(_nothing, self._stall_seconds)
        except TimeoutError:
            connection.abandon(relay)
        except BaseException:
            connection.abandon(relay)
            raise
        finally:
            self._drains_left += 1


def _was_closed(connection: Connection, relay: Relay) -> bool:
    """Whether an exchange failed because its connection had ended before it began."""
    lasted = connection.loop.time() - connection.last_activity
    return isinstance(relay.error, NoAnswer) and lasted < STALE_SECONDS


async def _take_in_cancellation(*, already: bool) -> None:
    """Go on after aiohttp has cancelled the call: it does so once, when a client's connection is lost.

    A connection that was reset here is lost in the loop's next turn.
    """
    if not already:
        with suppress(asyncio.CancelledError, TimeoutError):
            async with asyncio.timeout(LOST_SECONDS):
                await asyncio.get_running_loop().create_future()
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


async def _nothing() -> None:
    """Nobody is there who could be slow."""
