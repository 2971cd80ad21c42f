"""A relay between a scripted upstream and a scripted client, with everything real but the proxy around it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from passthrough.wire.connection import Connection, Head
from passthrough.wire.pool import Limits, Pool
from passthrough.wire.relay import Relay
from tests.fakes.peer import Peer, connect
from tests.fakes.upstream import Upstream
from tests.wire.collecting import POST, address, opened_pool

PATIENCE_SECONDS = 30.0


class Downstream(asyncio.Protocol):
    """The server's side of the client's connection, as the relay asks for it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.writing_paused = False
        self.made = asyncio.Event()
        self.lost = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self.made.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's interface
        self.transport = None
        self.lost.set()
        self._resumed.set()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._resumed.clear()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._resumed.set()

    async def drain(self) -> None:
        await self._resumed.wait()


class Watching:
    """An observer that keeps what it saw; `words` are its last, `broken` makes it fail at the end."""

    def __init__(self, words: bytes = b"") -> None:
        self.words = words
        self._seen = bytearray()
        self.completions = 0
        self.broken = False

    @property
    def body_seen(self) -> bytes:
        return bytes(self._seen)

    def head(self, head: Head) -> tuple[bytes, bool]:
        kept = [(name, value) for name, value in head.headers if name.lower() != b"transfer-encoding"]
        lines = b"".join(b"%b: %b\r\n" % field for field in kept)
        has_length = any(name.lower() == b"content-length" for name, _ in kept)
        return b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, lines), has_length

    def body(self, data: bytes) -> None:
        self._seen += data

    def completed(self, end: Callable[[], None]) -> None:
        self.completions += 1
        if self.broken:
            raise RuntimeError("a bug in recording")
        end()

    def last_words(self) -> bytes:
        return self.words


@dataclass
class Relaying:
    client: Peer
    downstream: Downstream
    relay: Relay
    observer: Watching
    connection: Connection
    pool: Pool

    async def settled(self, stall_seconds: float = PATIENCE_SECONDS) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.relay.settled(self.downstream.drain, stall_seconds)


@asynccontextmanager
async def relaying(
    upstream: Upstream,
    *,
    chunking: bool = True,
    bodiless: bool = False,
    observer: Watching | None = None,
    limits: Limits | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[Relaying]:
    """Send one request upstream and relay its answer to `client`."""
    downstream = Downstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: downstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        connect(f"http://127.0.0.1:{port}", receive_buffer=receive_buffer) as client,
        opened_pool(limits=limits) as pool,
    ):
        await downstream.made.wait()
        connection = await pool.acquire(address(upstream.port))
        watching = observer or Watching()
        relay = Relay(
            connection=connection, downstream=downstream, observer=watching, chunking=chunking, bodiless=bodiless
        )
        connection.start(relay, POST, bodiless=bodiless)
        try:
            yield Relaying(client, downstream, relay, watching, connection, pool)
        finally:
            server.close()
            if downstream.transport is not None:
                downstream.transport.abort()
