"""What is kept of keys stays bounded, and is trusted only while changes are known to be heard."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from passthrough.admin.customers import Customers
from passthrough.admin.keys import Keys
from passthrough.admin.schemas.keys import GenerateKey
from passthrough.errors import Unavailable
from passthrough.policy.keys import digest
from passthrough.storage.audit import Actor
from passthrough.storage.customers import RestrictedCustomers
from passthrough.storage.database import Database, open_database
from passthrough.storage.directory import Directory, Found
from passthrough.storage.keys import key_directory

NOTIFICATION = b"A"  # https://www.postgresql.org/docs/current/protocol-message-formats.html
NOBODY = Actor("nobody")


async def test_what_a_value_does_not_show_weighs_too() -> None:
    async def load(identifiers: list[str]) -> Mapping[str, Found[str]]:
        return {identifier: Found("x", (f"key:{identifier}",), hidden=600) for identifier in identifiers}

    directory = Directory("key", load, most_bytes=1000)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(directory.run())
        directory.regained()
        await directory.find("a")
        await directory.find("b")
        task.cancel()
    assert (directory.cached("a"), directory.cached("b")) == (None, "x")


async def test_who_is_restricted_is_known_from_the_first_call_on_or_nobody_is_served(database: Database) -> None:
    await Customers(database, time.time).block(["blocked"], NOBODY, blocked=True)
    with pytest.raises(Unavailable):
        RestrictedCustomers(database).get("blocked")
    async with key_directory(database) as directory:
        found = directory.customer("blocked")
        assert found is not None
        assert found.blocked
        assert directory.customer("other") is None


class Pooler:
    """Lends PostgreSQL's connections as one that pools transactions does: what is not an answer is passed to nobody."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self.mute = True
        self.swallowed = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(reader, to_server))
                await self._down(from_server, writer)
                up.cancel()
        finally:
            to_server.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readexactly(5):
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                if self.mute and head[:1] == NOTIFICATION:
                    self.swallowed.set()
                else:
                    writer.write(head + body)


async def test_a_pooler_that_swallows_notifications_makes_every_key_be_looked_up(
    database_url: str, tmp_path: Path
) -> None:
    place = {name: value for name, (value,) in parse_qs(urlsplit(database_url).query).items()}
    pooler = Pooler(f"{place['host']}/.s.PGSQL.{place['port']}")
    async with (
        await asyncio.start_unix_server(pooler.accept, tmp_path / f".s.PGSQL.{place['port']}"),
        open_database(database_url.replace(quote(place["host"], safe=""), quote(str(tmp_path), safe=""))) as database,
        key_directory(database) as directory,
    ):
        keys = Keys(database, time.time)
        made = await keys.generate(GenerateKey(), NOBODY)
        key_id = digest(made.key)
        await pooler.swallowed.wait()
        assert await directory.find(key_id)
        await keys.block(made.key, NOBODY, blocked=True)
        assert directory.cached(key_id) is None
        found = await directory.find(key_id)
        assert found is not None
        assert found.blocked
        pooler.mute = False
        await directory.listening()
        await directory.find(key_id)
        assert directory.cached(key_id)
