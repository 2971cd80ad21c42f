"""Listening for changes survives whatever PostgreSQL does to its connection."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from passthrough.errors import Unavailable
from passthrough.policy.keys import digest
from passthrough.storage.database import Database, open_database
from passthrough.storage.keys import key_directory

# Messages of https://www.postgresql.org/docs/current/protocol-message-formats.html
STARTUP_HEAD = struct.Struct("!II")
TLS_REQUEST = 80877103


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


ACCEPTED = message(b"R", b"\0\0\0\0") + message(b"S", b"server_version\x0018.0\0") + message(b"Z", b"I")
TERMINATED = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0")
UNKNOWN_PASSWORD = message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0")


class Postgres:
    """Says the same to everybody who comes; at first that it is being shut down, right behind accepting them."""

    def __init__(self) -> None:
        self.says = ACCEPTED + TERMINATED
        self.connections = 0
        self.met_twice = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length, code = STARTUP_HEAD.unpack(await reader.readexactly(STARTUP_HEAD.size))
        if code == TLS_REQUEST:
            writer.write(b"N")
            length, _ = STARTUP_HEAD.unpack(await reader.readexactly(STARTUP_HEAD.size))
        await reader.readexactly(length - STARTUP_HEAD.size)
        self.connections += 1
        if self.connections == 2:
            self.met_twice.set()
        writer.write(self.says)
        await reader.read()
        writer.close()


@pytest.fixture
async def postgres() -> Postgres:
    return Postgres()


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with await asyncio.start_server(postgres.accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_database(f"postgresql://somebody@127.0.0.1:{port}/any") as opened:
            yield opened


@pytest.mark.parametrize("says", [ACCEPTED + TERMINATED, UNKNOWN_PASSWORD], ids=["shuts down", "turns us away"])
async def test_a_postgresql_that_ends_the_connection_before_it_is_listened_to_is_asked_again(
    postgres: Postgres, database: Database, says: bytes
) -> None:
    postgres.says = says
    async with key_directory(database), asyncio.timeout(10):
        await postgres.met_twice.wait()


async def test_a_postgresql_that_shuts_down_before_it_was_asked_for_a_key_is_away(database: Database) -> None:
    async with key_directory(database) as directory:
        with pytest.raises(Unavailable):
            await directory.find(digest("sk-a-key-that-nobody-knows"))
