"""A receiver that keeps what an upstream answered, and a pool that sends for it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from passthrough.errors import UpstreamFailure
from passthrough.wire.connection import Connection, Head
from passthrough.wire.dial import Address, OutboundProxy, upstream_tls
from passthrough.wire.pool import Limits, Pool

PATIENCE_SECONDS = 30.0
GET = b"GET /x HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"


class Collected:
    """Takes in one answer, and checks that calls come in the order that `Receiver` promises."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.body = b""
        self.reads: list[bytes] = []
        self.error: UpstreamFailure | None = None
        self.whole = False
        self._read = b""
        self._ended = asyncio.Event()

    def head_received(self, head: Head) -> None:
        assert self.head is None
        assert not self._over
        self.head = head

    def body_received(self, data: bytes) -> None:
        assert self.head is not None
        assert not self._over
        self.body += data
        self._read += data

    def completed(self) -> None:
        assert self.head is not None
        assert not self._over
        self.whole = True

    def failed(self, error: UpstreamFailure) -> None:
        assert not self._over
        self.error = error

    def flush(self) -> None:
        assert not self._ended.is_set()
        if self._read:
            self.reads.append(self._read)
            self._read = b""
        if self._over:
            self._ended.set()

    @property
    def _over(self) -> bool:
        return self.whole or self.error is not None

    async def ended(self) -> "Collected":
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._ended.wait()
        return self


@asynccontextmanager
async def opened_pool(
    *, limits: Limits | None = None, tls: ssl.SSLContext | None = None, proxy: OutboundProxy | None = None
) -> AsyncIterator[Pool]:
    async with Pool(tls=tls or upstream_tls(), limits=limits, proxy=proxy) as pool:
        yield pool
    await asyncio.sleep(0)  # aborted transports tell their protocols in the loop's next turn


def address(port: int, *, tls: bool = False, host: str = "127.0.0.1") -> Address:
    return Address(host, port, tls=tls)


async def ask(pool: Pool, port: int, request: bytes = POST, *, bodiless: bool = False) -> Collected:
    """One exchange on a connection of the pool, up to its end."""
    return await ask_on(await pool.acquire(address(port)), request, bodiless=bodiless)


async def ask_on(connection: Connection, request: bytes = POST, *, bodiless: bool = False) -> Collected:
    collected = Collected()
    connection.start(collected, request, bodiless=bodiless)
    return await collected.ended()
