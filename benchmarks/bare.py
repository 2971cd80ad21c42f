"""What Python costs before it does anything: aiohttp's server, our connections upstream, our relay, and no more.

    python benchmarks/bare.py PORT UPSTREAM_PORT

No key is looked at, nothing is signed, limited, metered or recorded, no field is dropped. `compare.py --bare` puts it
beside the others: what lies between it and passthrough is what passthrough does, what lies below it is out of reach.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable

import uvloop
from aiohttp import web

from passthrough.inbound import Protocol, Room
from passthrough.proxy.forward import Relayed
from passthrough.wire.connection import Head
from passthrough.wire.dial import Address
from passthrough.wire.pool import Pool
from passthrough.wire.relay import Relay

KEPT = Relayed(keep_alive=True)
PREFIX = len("/bedrock")
STALL_SECONDS = 60.0


class Unwatched:
    """Passes an answer on as it came."""

    def head(self, head: Head) -> tuple[bytes, bool]:
        lines = b"".join([b"%b: %b\r\n" % field for field in head.headers if field[0].lower() != b"transfer-encoding"])
        has_length = any(name.lower() == b"content-length" for name, _ in head.headers)
        return b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, lines), has_length

    def body(self, data: bytes) -> None:
        pass

    def completed(self, end: Callable[[], None]) -> None:
        end()

    def last_words(self) -> bytes:
        return b""


async def serve(port: int, upstream_port: int) -> None:
    address = Address("127.0.0.1", upstream_port, tls=False)
    unwatched = Unwatched()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        lines = b"".join([b"%b: %b\r\n" % field for field in request.raw_headers])
        head = f"{request.method} {request.raw_path[PREFIX:]} HTTP/1.1\r\n".encode() + lines + b"\r\n"
        connection = await pool.acquire(address)
        relay = Relay(
            connection=connection, downstream=request.protocol, observer=unwatched, chunking=True, bodiless=False
        )
        connection.start(relay, head, body)
        await relay.settled(request.writer.drain, STALL_SECONDS)
        return KEPT

    loop = asyncio.get_running_loop()
    server = web.Server(handle)
    async with Pool(tls=ssl.create_default_context()) as pool:
        listening = await loop.create_server(
            lambda: Protocol(
                server,
                loop=loop,
                refused=print,
                server_ends=lambda: False,
                room=Room(10_000),
                access_log=None,
                auto_decompress=False,
            ),
            "127.0.0.1",
            port,
        )
        await listening.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
