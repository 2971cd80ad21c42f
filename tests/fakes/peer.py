"""One end of a TCP connection that speaks HTTP/1.1 by the byte: nothing is added, corrected or retried.

A scripted upstream is given one for each connection, a scripted client makes one with `connect`. Every wait is
bounded: what takes longer than `PATIENCE_SECONDS` hangs, and fails the test.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Self

PATIENCE_SECONDS = 30.0
LARGEST_HEAD = 1024 * 1024
_BODILESS = (b"204", b"304")

Ending = Literal["whole", "fin", "reset"]


@dataclass(frozen=True)
class Message:
    """A request or an answer as it came.

    `body` is without its framing, `chunks` are the pieces that chunked coding told apart. `ending` says how the
    message ended: as its framing promised, or by the connection's end before that.
    """

    first_line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[bytes]
    ending: Ending

    @property
    def status(self) -> int:
        return int(self.first_line.split(b" ", 2)[1])

    @property
    def method(self) -> str:
        return self.first_line.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.first_line.split(b" ", 2)[1].decode()

    def values(self, name: str) -> list[str]:
        return [value.decode("latin-1") for each, value in self.fields if each.lower() == name.lower().encode()]

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so that no event tells of."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.001)


class _Cut(Exception):  # noqa: N818  # never leaves this module
    """The connection ended inside a message."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


class Peer:
    """Reads and writes one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # a TimeoutError is one
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.writer.wait_closed()

    async def start_tls(self, trusting: ssl.SSLContext) -> None:
        """Shake hands on a connection that was made without, as a client."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.writer.start_tls(trusting, server_hostname="127.0.0.1")

    # -- out

    async def send(self, *pieces: bytes) -> None:
        """Write the pieces, each in a write of its own, and wait until the kernel has taken them."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()

    async def send_by_the_byte(self, data: bytes) -> None:
        """Each byte in a segment of its own, as far as the kernel lets them be told apart."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    async def send_until_blocked(self, piece: bytes, most: int, *, seconds: float = 0.5) -> int:
        """Write `piece` again and again until nobody takes more of it for `seconds`; how many bytes were taken."""
        sent = 0
        while sent < most:
            self.writer.write(piece)
            sent += len(piece)
            try:
                async with asyncio.timeout(seconds):
                    await self.writer.drain()
            except TimeoutError:
                return sent
        return sent

    def cut(self) -> None:
        """End the connection after what was sent: FIN."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection at once: RST; what the other side has not read yet is lost to it."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def half_close(self) -> None:
        self.writer.write_eof()

    # -- in

    async def head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """First line and fields; `EOFError` when the connection ends instead."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                data = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the connection ended before a head") from error
        first, *lines = data[:-4].split(b"\r\n")
        fields = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
        return first, fields

    async def message(self, *, bodiless: bool = False) -> Message:
        """Read one request or answer; `bodiless` for the answer to HEAD. `EOFError` when none begins."""
        first, fields = await self.head()
        return await self.body(first, fields, bodiless=bodiless)

    async def body(self, first: bytes, fields: list[tuple[bytes, bytes]], *, bodiless: bool = False) -> Message:
        """Read what follows a head."""
        pieces: list[bytes] = []
        ending: Ending = "whole"
        told = {name.lower(): value for name, value in fields}
        answer = first.startswith(b"HTTP/")
        try:
            if bodiless or (answer and first.split(b" ")[1] in _BODILESS):
                pass
            elif told.get(b"transfer-encoding") == b"chunked":
                async for piece in self.chunks():
                    pieces.append(piece)  # noqa: PERF401  # a cut must leave those that came before it
            elif b"content-length" in told:
                await self._exactly(int(told[b"content-length"]), pieces)
            elif answer:
                rest, ending = await self.rest()
                pieces.append(rest)
                ending = "whole" if ending == "fin" else ending
        except _Cut as cut:
            ending = cut.ending
        return Message(first, fields, b"".join(pieces), pieces, ending)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces of a chunked body, as they arrive."""
        while True:
            line = await self._until(b"\r\n")
            size = int(line[:-2], 16)
            piece: list[bytes] = []
            await self._exactly(size + 2, piece)
            assert b"".join(piece)[size:] == b"\r\n", "a chunk without its end"
            if size == 0:
                return
            yield b"".join(piece)[:size]

    async def some(self) -> bytes:
        """Whatever has arrived, at least one byte; empty at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read(LARGEST_HEAD)

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def rest(self) -> tuple[bytes, Ending]:
        """Everything up to the connection's end, and which end that was."""
        pieces: list[bytes] = []
        try:
            while piece := await self.some():
                pieces.append(piece)
        except ConnectionError:
            return b"".join(pieces), "reset"
        return b"".join(pieces), "fin"

    async def gone(self) -> Ending:
        """Wait until the other side has ended the connection."""
        return (await self.rest())[1]

    async def _until(self, end: bytes) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self.reader.readuntil(end)
        except asyncio.IncompleteReadError:
            raise _Cut("fin") from None
        except ConnectionError:
            raise _Cut("reset") from None

    async def _exactly(self, count: int, into: list[bytes]) -> None:
        left = count
        while left:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    piece = await self.reader.read(min(left, LARGEST_HEAD))
            except ConnectionError:
                raise _Cut("reset") from None
            if not piece:
                raise _Cut("fin")
            into.append(piece)
            left -= len(piece)


@asynccontextmanager
async def connect(
    url: str, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> AsyncIterator[Peer]:
    """Connect to `scheme://host:port`. `receive_buffer`: bytes that the kernel holds for a reader who does not read."""
    host, _, port = url.rpartition("//")[2].partition("/")[0].rpartition(":")
    raw = socket.socket()
    raw.setblocking(False)  # noqa: FBT003  # the standard library's signature
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        except BaseException:
            raw.close()
            raise
        reader, writer = await asyncio.open_connection(
            sock=raw,
            ssl=tls,
            server_hostname=host if tls else None,
            limit=LARGEST_HEAD if receive_buffer is None else 65536,
        )
    async with Peer(reader, writer) as peer:
        yield peer
