"""The load: raw protocols on one event loop, which cost a proxy's measurement as little as may be.

Answers are checked by their status and length; a stream is counted frame by frame. Times in seconds.
"""

import asyncio
import gc
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from processes import cpu_seconds, resident_bytes, tree
from stand_in import FRAMES

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1%3A0"
ENDLESS = "anthropic.endless-v1%3A0"
BODY = (
    b'{"messages":[{"role":"user","content":[{"text":"Hello, what does a reverse proxy do? In a few sentences."}]}],'
    b'"inferenceConfig":{"maxTokens":256}}'
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STAMP = re.compile(rb'"t":(\d{16})')
_LONGEST_STAMP = 20
CONNECTS_AT_A_TIME = 50  # fewer than any listening socket's backlog
STREAM_SECONDS = 60.0
_AS_GOOD_AS = 0.97  # of the calls that were due: the last few milliseconds of a window are cut off


@dataclass(frozen=True)
class Target:
    """A proxy to load. `process` is its root process, `database` PostgreSQL's, where there is one.

    `stand_in` is the port of the upstream, which ends its endless streams when it is asked to.
    """

    port: int
    prefix: str
    key: str
    process: int
    stand_in: int
    database: int | None = None

    def request(self, model: str, verb: str) -> bytes:
        return (
            f"POST {self.prefix}/model/{model}/{verb} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"User-Agent: passthrough-benchmark/1\r\nContent-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY


@dataclass
class Spent:
    """CPU seconds of a proxy and of its database within a `with` block, and how long it lasted."""

    seconds: float = 0.0
    proxy: float = 0.0
    database: float = 0.0


@contextmanager
def spending(target: Target) -> Iterator[Spent]:
    proxy, database = tree(target.process), tree(target.database) if target.database else []
    gc.collect()
    gc.disable()  # ours would show as somebody else's latency
    spent, began = Spent(), time.perf_counter()
    before = cpu_seconds(proxy), cpu_seconds(database)
    try:
        yield spent
    finally:
        spent.proxy, spent.database = cpu_seconds(proxy) - before[0], cpu_seconds(database) - before[1]
        spent.seconds = time.perf_counter() - began
        gc.enable()


class _Asking(asyncio.Protocol):
    """Sends the same request again: as soon as it is answered, or when it is told to, where it waits in `idle`."""

    def __init__(self, request: bytes, latencies: list[float], idle: "deque[_Asking] | None" = None) -> None:
        self._request = request
        self._latencies = latencies
        self._idle = idle
        self._held = b""
        self._sent = 0.0
        self.stopped = asyncio.Event()
        self.stopping = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP connection's is one
        self._go_on()

    def _go_on(self) -> None:
        if self._idle is None:
            self.ask()
        else:
            self._idle.append(self)

    def ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        answer = self._held + data if self._held else data
        if not _is_whole(answer):
            self._held = answer
            return
        self._held = b""
        self._latencies.append(time.perf_counter() - self._sent)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"A proxy answered {answer[:500]!r}")
        if self.stopping:
            self._transport.close()
            self.stopped.set()
        else:
            self._go_on()

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            raise SystemExit(f"A proxy closed a connection that was kept alive: {exc!r}")
        self.stopped.set()


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(answer, 0, end + 2)
    return len(answer) >= end + 4 + int(length[1]) if length else answer.endswith(b"\r\n0\r\n\r\n")


@dataclass
class Unary:
    """`latencies` sorted, in seconds."""

    spent: Spent
    latencies: list[float] = field(repr=False)

    def percentile(self, share: float) -> float:
        return self.latencies[int(len(self.latencies) * share)]


async def unary(target: Target, *, connections: int, seconds: float) -> Unary:
    """Keep so many connections busy for so long."""
    loop = asyncio.get_running_loop()
    request = target.request(MODEL, "converse")
    latencies: list[float] = []
    clients = [_Asking(request, latencies) for _ in range(connections)]
    with spending(target) as spent:
        for client in clients:
            await loop.create_connection(partial(lambda made: made, client), "127.0.0.1", target.port)
        await asyncio.sleep(seconds)
        for client in clients:
            client.stopping = True
        async with asyncio.timeout(STREAM_SECONDS):
            for client in clients:
                await client.stopped.wait()
    return Unary(spent, sorted(latencies))


async def paced(target: Target, *, connections: int, calls_per_second: float, seconds: float) -> float | None:
    """CPU seconds of a proxy for a call, at a rate that is the same for each proxy; None for one that is slower.

    Whoever sends to a process that sleeps has to wake it, so a call costs more the less there is to do; and the
    slower a proxy is at its own limit, the more do load and upstream sleep.
    """
    loop = asyncio.get_running_loop()
    request = target.request(MODEL, "converse")
    latencies: list[float] = []
    idle: deque[_Asking] = deque()
    for _ in range(connections):
        await loop.create_connection(lambda: _Asking(request, latencies, idle), "127.0.0.1", target.port)
    clients, sent = tuple(idle), 0
    with spending(target) as spent:
        began = loop.time()
        while (passed := loop.time() - began) < seconds:
            while idle and sent < passed * calls_per_second:
                idle.popleft().ask()
                sent += 1
            await asyncio.sleep(0.001)
        for client in clients:
            client.stopping = True
        for client in idle:
            client.close()
        async with asyncio.timeout(STREAM_SECONDS):
            for client in clients:
                await client.stopped.wait()
    return spent.proxy / sent if sent > _AS_GOOD_AS * calls_per_second * seconds else None


class _Reading(asyncio.Protocol):
    """Asks for one stream. `lags` takes the age of each stamped frame; `ended` is set at its clean end."""

    def __init__(self, request: bytes, lags: list[float], begun: Callable[[], None]) -> None:
        self._request = request
        self._lags = lags
        self._begun = begun
        self._held = b""
        self._first = True
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP connection's is one
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        if self._first:
            self._first = False
            self._begun()
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"A proxy answered {data[:500]!r}")
        text = self._held + data
        last = 0
        for found in _STAMP.finditer(text):
            self._lags.append((now - int(found[1])) / 1e6)
            last = found.end()
        self._held = text[max(last, len(text) - _LONGEST_STAMP) :]
        if data.endswith(b"0\r\n\r\n"):
            self.transport.close()
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            raise SystemExit(f"A proxy cut a stream: {exc!r}")


@dataclass
class Streaming:
    """What `streams` open at once cost in a window in which none begins or ends."""

    spent: Spent
    frames: int
    lag_p50: float
    lag_p99: float
    bytes_per_stream: float


async def _open(target: Target, model: str, streams: int, lags: list[float]) -> list[_Reading]:
    loop = asyncio.get_running_loop()
    request = target.request(model, "converse-stream")
    begun = asyncio.Semaphore(CONNECTS_AT_A_TIME)
    readers: list[_Reading] = []
    async with asyncio.timeout(STREAM_SECONDS):
        for _ in range(streams):
            await begun.acquire()
            _, reader = await loop.create_connection(
                lambda: _Reading(request, lags, begun.release), "127.0.0.1", target.port
            )
            readers.append(reader)
        for _ in range(CONNECTS_AT_A_TIME):
            await begun.acquire()
    return readers


async def streaming(target: Target, *, streams: int, seconds: float) -> Streaming:
    """Hold streams open that never end, and look at them for a while."""
    lags: list[float] = []
    idle = resident_bytes(tree(target.process))
    readers = await _open(target, ENDLESS, streams, lags)
    await asyncio.sleep(1.0)  # what their beginning cost is over
    lags.clear()
    with spending(target) as spent:
        await asyncio.sleep(seconds)
    grown = resident_bytes(tree(target.process)) - idle
    measured = sorted(lags)
    await _end_streams(target, readers)
    if not measured:
        raise SystemExit("A proxy delivered no frame of its open streams.")
    return Streaming(
        spent=spent,
        frames=len(measured),
        lag_p50=statistics.median(measured),
        lag_p99=measured[int(len(measured) * 0.99)],
        bytes_per_stream=grown / streams,
    )


async def _end_streams(target: Target, readers: Sequence[_Reading]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", target.stand_in)
    writer.write(b"GET /end HTTP/1.1\r\nHost: stand-in\r\n\r\n")
    async with asyncio.timeout(STREAM_SECONDS):
        for reader in readers:
            await reader.ended.wait()
    writer.close()


async def completions(target: Target, *, streams: int, waves: int) -> float:
    """CPU seconds of a proxy for one completion of 100 frames, from its connection to its end."""
    used = 0.0
    for _ in range(waves):
        lags: list[float] = []
        with spending(target) as spent:
            readers = await _open(target, MODEL, streams, lags)
            async with asyncio.timeout(STREAM_SECONDS):
                for reader in readers:
                    await reader.ended.wait()
        if len(lags) != streams * (FRAMES - 3):  # start, stop and metadata carry no stamp
            raise SystemExit(f"A proxy delivered {len(lags)} frames of {streams * (FRAMES - 3)}.")
        used += spent.proxy
    return used / (waves * streams)
