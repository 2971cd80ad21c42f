"""An outbound proxy for `CONNECT`: whatever host is asked for, it leads to one address of this machine."""

import asyncio
import ssl
from contextlib import suppress
from typing import Self

from tests.fakes.certificates import Authority


class Outbound:
    """`asked` are the targets of the tunnels, `url` is what `HTTPS_PROXY` would be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b" ")[1].decode())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pour(reader, far_writer))
                group.create_task(_pour(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def serving_any_host(authority: Authority) -> ssl.SSLContext:
    """What a server listens with that is whoever the client takes it for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known: dict[str, ssl.SSLContext] = {}

    def choose(line: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        assert name is not None
        line.context = known.get(name) or known.setdefault(name, authority.serving(name))

    context.sni_callback = choose
    return context
