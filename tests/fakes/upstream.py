"""An upstream that does what a script says, by the byte, and remembers what it received.

A script is a coroutine function that is given a `Peer` for each connection: it may answer, stall, cut, lie.
When the other side leaves in the middle of a script, the script just ends; any other failure of a script fails
the test at the end of the `async with`.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

import msgspec

from passthrough.bedrock.eventstream import encode
from tests.fakes.peer import LARGEST_HEAD, Message, Peer

Script = Callable[["Incoming"], Awaitable[None]]

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Incoming(Peer):
    """A connection that the upstream accepted; `request` reads the next one and remembers it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[Message]) -> None:
        super().__init__(reader, writer)
        self._requests = requests

    async def request(self) -> Message:
        message = await self.message()
        self._requests.append(message)
        return message


class Upstream:
    """Listens on a free port. `requests` came whole, in order; `connections` counts those that were opened."""

    def __init__(self, script: Script | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script or answering(answer(b"{}"))
        self.requests: list[Message] = []
        self.connections = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=LARGEST_HEAD, ssl=self._tls, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise AssertionError(f"a script failed: {self._failures!r}") from self._failures[0]

    def stop_listening(self) -> None:
        """Refuse new connections."""
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            async with Incoming(reader, writer, self.requests) as peer:
                await self.script(peer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        except Exception as error:  # noqa: BLE001  # shown at the end, where the test can fail for it
            self._failures.append(error)
        finally:
            self._tasks.discard(task)


def answering(*answers: bytes) -> Script:
    """Answers each request of a connection with the next of `answers`, the last one for ever."""

    async def script(peer: Incoming) -> None:
        left = list(answers)
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def answer(body: bytes, *fields: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """An answer with Content-Length."""
    return head(*fields, f"Content-Length: {len(body)}", status=status, content_type=content_type) + body


def head(*fields: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *fields]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


def stream_head(*fields: str) -> bytes:
    """The head of a streamed answer."""
    return head("Transfer-Encoding: chunked", *fields, content_type="application/vnd.amazon.eventstream")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(event: str, **payload: object) -> bytes:
    """One frame of an event stream."""
    return encode(
        {":event-type": event, ":content-type": "application/json", ":message-type": "event"},
        msgspec.json.encode(payload),
    )


def text_frame(text: str) -> bytes:
    return frame("contentBlockDelta", contentBlockIndex=0, delta={"text": text})


def usage_frame(input_tokens: int, output_tokens: int) -> bytes:
    """The frame of ConverseStream that tells what it consumed."""
    usage = {"inputTokens": input_tokens, "outputTokens": output_tokens, "totalTokens": input_tokens + output_tokens}
    return frame("metadata", usage=usage, metrics={"latencyMs": 1})
