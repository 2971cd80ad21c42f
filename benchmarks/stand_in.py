"""A stand-in for bedrock-runtime that is faster than any proxy: fixed answers, no checks. For load alone.

    python benchmarks/stand_in.py PORT TLS_PORT CERTIFICATE KEY

    POST …/converse             the same JSON each time
    POST …/converse-stream      `FRAMES` event-stream frames, one each `GAP_SECONDS`; without end where the model
                                is called `endless`, or rather until somebody asks for /end

A frame carries the moment it was written, microseconds of the monotonic clock, which one machine's processes
share. Streams are spread evenly over the gap, so that frames come one at a time and not in one burst.
"""

import asyncio
import json
import math
import ssl
import struct
import sys
import time
import zlib

import httptools
import uvloop

FRAMES = 100
GAP_SECONDS = 0.02
SLOTS = 20  # a millisecond each, as fine as uvloop's timers are

REPLY = "A reverse proxy takes in requests for servers behind it, and passes on what they answer. " * 3
USAGE = {"inputTokens": 18, "outputTokens": 64, "totalTokens": 82}
ANSWER = json.dumps(
    {
        "metrics": {"latencyMs": 640},
        "output": {"message": {"content": [{"text": REPLY}], "role": "assistant"}},
        "stopReason": "end_turn",
        "usage": USAGE,
    },
    separators=(",", ":"),
).encode()
COMMON = b"Date: Fri, 21 Nov 2026 03:00:00 GMT\r\nx-amzn-RequestId: 8f6a0a52-8c5b-4a0c-9b53-0a1f6f0c7f11\r\n"
UNARY = (
    b"HTTP/1.1 200 OK\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
    % (COMMON, len(ANSWER), ANSWER)
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n%bContent-Type: application/vnd.amazon.eventstream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" % COMMON
)


def frame(event: str, payload: bytes) -> bytes:
    """Return one event-stream message as a chunk of chunked coding."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in (
            (b":event-type", event.encode()),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    message += struct.pack(">I", zlib.crc32(message))
    return b"%x\r\n%b\r\n" % (len(message), message)


START = frame("messageStart", b'{"p":"abcdefghijkl","role":"assistant"}')
STOP = frame("messageStop", b'{"p":"abcdefghijklmnop","stopReason":"end_turn"}')
METADATA = frame(
    "metadata",
    json.dumps({"metrics": {"latencyMs": 2000}, "p": "abcdef", "usage": USAGE}, separators=(",", ":")).encode(),
)


def delta() -> bytes:
    stamp = time.monotonic_ns() // 1000
    return frame(
        "contentBlockDelta",
        b'{"contentBlockIndex":0,"delta":{"text":" and so on"},"p":"abcdefghijklmnopqrstu","t":%016d}' % stamp,
    )


class Pace:
    """One clock for all streams: each has its slot in the gap, and all of one slot send the same bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[set[Bedrock]] = [set() for _ in range(SLOTS)]
        self._due = loop.time()
        self._turn = 0
        self._tick()

    def join(self, stream: "Bedrock") -> int:
        slot = min(range(SLOTS), key=lambda number: len(self._slots[number]))
        self._slots[slot].add(stream)
        return slot

    def leave(self, stream: "Bedrock", slot: int) -> None:
        self._slots[slot].discard(stream)

    def end(self) -> None:
        """Bring the streams without end to theirs."""
        for slot in self._slots:
            for stream in tuple(slot):
                stream.step(METADATA, last=True)

    def _tick(self) -> None:
        now = self._loop.time()
        while self._due <= now:
            self._due += GAP_SECONDS / SLOTS
            self._turn = (self._turn + 1) % SLOTS
            if streams := self._slots[self._turn]:
                piece = delta()
                for stream in tuple(streams):
                    stream.step(piece)
        # uvloop rounds to milliseconds: to the next one down would mean at once, and a core spent on waiting
        self._loop.call_later(math.ceil((self._due - now) * 1000) / 1000, self._tick)


class Bedrock(asyncio.Protocol):
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = b""
        self._slot = -1
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP server's is one

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the interface
        self._end()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_message_complete(self) -> None:
        if not self._url.endswith(b"-stream"):
            if self._url == b"/end":
                self._pace.end()
            self._transport.write(UNARY)
            return
        self._transport.write(STREAM_HEAD + START)
        self._left = -1 if b"endless" in self._url else FRAMES - 1
        self._slot = self._pace.join(self)

    def step(self, piece: bytes, *, last: bool = False) -> None:
        self._left -= 1
        if self._left == 1:
            self._transport.write(STOP)
        elif self._left == 0 or last:
            self._transport.write(METADATA + b"0\r\n\r\n")
            self._end()
        else:
            self._transport.write(piece)

    def _end(self) -> None:
        if self._slot >= 0:
            self._pace.leave(self, self._slot)
            self._slot = -1


async def serve(port: int, tls_port: int, certificate: str, key: str) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    pace = Pace(loop)
    await loop.create_server(lambda: Bedrock(pace), "127.0.0.1", port, backlog=4096)
    await loop.create_server(lambda: Bedrock(pace), "127.0.0.1", tls_port, backlog=4096, ssl=context)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
