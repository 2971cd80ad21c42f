"""What open streams, large bodies and clients that do not read cost one worker in memory.

    python benchmarks/memory.py [--streams 10000] [--slow 50]

Client and upstream are this process, the proxy is another one with everything on, and PostgreSQL's memory is not
counted. A stream has had some frames when it is measured, and a request of 4 KB, as a short conversation has.
"""

import argparse
import asyncio
import re
import resource
import tempfile
from pathlib import Path
from typing import ClassVar, cast

import contenders
import uvloop
from contenders import Stage
from loading import Target
from processes import Cores, machine, resident_bytes

from passthrough.bedrock.eventstream import encode
from passthrough.storage.embedded import embedded

FRAME = encode({":event-type": "contentBlockDelta", ":message-type": "event"}, b'{"delta":{"text":"some words"}}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(FRAME), FRAME)
LAST = b"0\r\n\r\n"
SOME_FRAMES = 10
REQUEST_BYTES = 4096
LARGE_BODY = 25_000_000  # the most that InvokeModel takes
PATIENCE_SECONDS = 120.0
CONNECTS_AT_A_TIME = 200
SLOW_ANSWER = 16 * 1024 * 1024  # more than the kernel takes for both connections
QUIET, FLOOD, WHOLE = b"/model/anthropic.quiet", b"/model/anthropic.flood", b"/model/anthropic.whole"


class Upstream(asyncio.Protocol):
    """Answers `quiet` with a frame and then when told, `flood` with more than anybody takes, `whole` a whole body."""

    quiet: ClassVar[set["Upstream"]] = set()  # of all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._body_left = 0

    def data_received(self, data: bytes) -> None:
        if self._body_left:
            self._body_left -= len(data)
        else:
            self._received += data
            head, empty, body = self._received.partition(b"\r\n\r\n")
            if not empty:
                return
            length = re.search(rb"(?i)content-length: (\d+)", head)
            self._body_left = int(length[1] if length else 0) - len(body)
        if not self._body_left:
            self._answer()

    def _answer(self) -> None:
        if WHOLE in self._received:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        elif FLOOD in self._received:
            self.transport.write(HEAD + b"%x\r\n" % SLOW_ANSWER + bytes(SLOW_ANSWER))
        else:
            self.transport.write(HEAD + CHUNK)
            self.quiet.add(self)
        self._received = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's interface
        self.quiet.discard(self)


class Client(asyncio.Protocol):
    """Sends a request and waits for `until` bytes of an answer that began well."""

    def __init__(self, request: bytes, *, reads: bool = True) -> None:
        self._request = request
        self._reads = reads
        self._received = 0
        self._last = b""
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.frames = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)
        if not self._reads:
            self.transport.pause_reading()
            self.begun.set()

    def data_received(self, data: bytes) -> None:
        if not self.begun.is_set():
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"The proxy answered {data[:500]!r}")
            self.begun.set()
        self.frames += data.count(FRAME[-20:])
        if data.endswith((LAST, b"\r\n\r\n{}")):
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's interface
        self.ended.set()


async def main(streams: int, slow: int) -> None:
    _raise_file_limit(2 * streams + 1000)
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    with (
        tempfile.TemporaryDirectory(prefix="passthrough-") as name,
        # these block, and may: the proxy asks nothing of the upstream before its first call
        embedded(Path(name) / "postgres") as url,
        contenders.passthrough(Stage(Cores(), Path(name), port, 0, Path(), url, 0), False) as target,  # noqa: FBT003  # not over TLS
    ):
        print(machine())
        await measure(target, streams, slow)
    server.close()


async def measure(target: Target, streams: int, slow: int) -> None:
    await one(target, body=b"{}")  # what a first call loads
    idle = resident(target)
    print(f"idle                                       {idle / 1e6:8.1f} MB")
    _reset_peak(target)
    await one(target, body=bytes(LARGE_BODY))
    print(f"a body of 25 MB, at its peak               {(_peak(target) - idle) / 1e6:8.1f} MB more")

    clients = await open_all(target, QUIET, streams)
    for _ in range(SOME_FRAMES):
        for upstream in tuple(Upstream.quiet):
            upstream.transport.write(CHUNK)
        await asyncio.sleep(0.2)
    each = (resident(target) - idle) / streams / 1e3
    print(f"{streams:6} streams, {SOME_FRAMES} frames each            {each:8.1f} KB each")
    for upstream in tuple(Upstream.quiet):
        upstream.transport.write(LAST)
    await asyncio.gather(*(client.ended.wait() for client in clients))
    lost = sum(client.frames < SOME_FRAMES + 1 for client in clients)
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(1.0)
    print(f"of which remains when they have ended      {(resident(target) - idle) / 1e6:8.1f} MB, {lost} had failed")

    before = resident(target)
    clients = await open_all(target, FLOOD, slow, reads=False)
    await asyncio.sleep(2.0)
    print(f"{slow:6} clients that read nothing of 16 MB   {(resident(target) - before) / slow / 1e3:8.1f} KB each")
    for client in clients:
        client.transport.abort()


async def open_all(target: Target, model: bytes, count: int, *, reads: bool = True) -> list[Client]:
    request = _request(target, model + b"/converse-stream", bytes(REQUEST_BYTES))
    loop = asyncio.get_running_loop()
    clients = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in range(count):
            _, client = await loop.create_connection(lambda: Client(request, reads=reads), "127.0.0.1", target.port)
            clients.append(client)
            if number >= CONNECTS_AT_A_TIME:
                await clients[number - CONNECTS_AT_A_TIME].begun.wait()
        await asyncio.gather(*(client.begun.wait() for client in clients))
    return clients


async def one(target: Target, *, body: bytes) -> None:
    request = _request(target, WHOLE + b"/converse", body)
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(request), "127.0.0.1", target.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.ended.wait()
    client.transport.close()


def _request(target: Target, path: bytes, body: bytes) -> bytes:
    head = (
        f"POST {target.prefix}{path.decode()} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {target.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def resident(target: Target) -> int:
    return resident_bytes([target.process])


def _reset_peak(target: Target) -> None:
    Path(f"/proc/{target.process}/clear_refs").write_text("5")


def _peak(target: Target) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{target.process}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _raise_file_limit(wanted: int) -> None:
    """Two for each stream here, client and upstream, and two in the proxy, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, OSError):
        raise SystemExit(
            f"{wanted} open files are needed, {hard} allowed: raise it by 'ulimit -Hn {wanted}'."
        ) from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=50)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.streams, arguments.slow))
