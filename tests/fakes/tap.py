"""A tap on a TCP line: passes every byte on and keeps it, so that a test compares what was on the wire.

Read with a parser of its own: what aiohttp, httptools or our own code would read wrongly shows here.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CONTINUE = 100
Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Message:
    """One request or answer. `start` is its first line, `body` is without the framing of chunks."""

    start: bytes
    fields: Fields
    body: bytes
    chunked: bool

    @property
    def method(self) -> str:
        return self.start.split(b" ")[0].decode()

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def values(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def value(self, name: str) -> str:
        """The value of a field that is there once."""
        (value,) = self.values(name)
        return value


@dataclass
class Line:
    """One connection: the bytes of both directions, without those of exchanges that were forgotten."""

    upward: bytearray = field(default_factory=bytearray)
    downward: bytearray = field(default_factory=bytearray)
    stale: bool = False  # the first exchange was under way when it was to be forgotten

    def exchanges(self) -> list[tuple[Message, Message]]:
        """Those that are complete."""
        found, _, _ = self._read()
        return found[self.stale :]

    def forget(self) -> None:
        _, up, down = self._read()
        del self.upward[: len(self.upward) - len(up)]
        del self.downward[: len(self.downward) - len(down)]
        self.stale = bool(up)

    def _read(self) -> tuple[list[tuple[Message, Message]], bytes, bytes]:
        """What is complete, and what remains of both directions."""
        found = []
        up, down = bytes(self.upward), bytes(self.downward)
        with suppress(EOFError):
            while up:
                request, more_up = read_request(up)
                answer, more_down = read_answer(down, request.method)
                if answer.status == CONTINUE:
                    answer, more_down = read_answer(more_down, request.method)
                found.append((request, answer))
                up, down = more_up, more_down
        return found, up, down


class Tap:
    """Listens on a free port (`url`) and passes on to `host` and `port`, for as long as the `async with` lasts."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._lines: list[Line] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def forget(self) -> None:
        """What passed until now, and the rest of what is under way."""
        for line in self._lines:
            line.forget()

    @property
    def exchanges(self) -> list[tuple[Message, Message]]:
        """What passed since `forget`: requests with their answers, line by line."""
        return [pair for line in self._lines for pair in line.exchanges()]

    @property
    def raw(self) -> bytes:
        """Every byte that went up since `forget`."""
        return b"".join(bytes(line.upward) for line in self._lines)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        line = Line()
        self._lines.append(line)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pour(reader, far_writer, line.upward))
                    group.create_task(_pour(far_reader, writer, line.downward))
            finally:
                far_writer.close()
                writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()


def read_request(data: bytes) -> tuple[Message, bytes]:
    """The first request in `data`, and what comes after it; `EOFError` when there is not all of it."""
    start, fields, rest = _head(data)
    return _message(start, fields, rest, without_framing=b"")


def read_answer(data: bytes, method: str) -> tuple[Message, bytes]:
    """The same for an answer; `method` is the request's."""
    start, fields, rest = _head(data)
    status = start.split(b" ")[1]
    if method == "HEAD" or status in {b"100", b"204", b"304"}:
        return Message(start, fields, b"", chunked=False), rest
    return _message(start, fields, rest, without_framing=rest)


def _message(start: bytes, fields: Fields, rest: bytes, *, without_framing: bytes) -> tuple[Message, bytes]:
    names = {name.lower(): value for name, value in fields}
    if names.get(b"transfer-encoding", b"").lower() == b"chunked":
        body, rest = _chunks(rest)
        return Message(start, fields, body, chunked=True), rest
    length = int(names[b"content-length"]) if b"content-length" in names else len(without_framing)
    body, rest = _split(rest, length)
    return Message(start, fields, body, chunked=False), rest


def _head(data: bytes) -> tuple[bytes, Fields, bytes]:
    head, rest = _until(data, b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    return start, [(name, value.strip(b" ")) for name, _, value in (line.partition(b":") for line in lines)], rest


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, data = _until(data, b"\r\n")
        chunk, data = _split(data, int(size, 16))
        end, data = _split(data, 2)
        assert end == b"\r\n"
        if not chunk:
            return body, data
        body += chunk


def _until(data: bytes, end: bytes) -> tuple[bytes, bytes]:
    before, found, after = data.partition(end)
    if not found:
        raise EOFError
    return before, after


def _split(data: bytes, length: int) -> tuple[bytes, bytes]:
    if len(data) < length:
        raise EOFError
    return data[:length], data[length:]
