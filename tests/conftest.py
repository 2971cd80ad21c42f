"""What every test may have: a PostgreSQL of this session, and a fresh database at head for each test."""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from passthrough.storage.database import Database, open_database
from passthrough.storage.embedded import embedded
from passthrough.storage.migrations import migrate

# Nothing here outlives the session, so nothing needs to outlive a crash.
_CARELESS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of the server's own database; take `database_url` instead, unless the server is the subject."""
    # Not below pytest's folder, which each new session of the same user closes (0700) to the server's user.
    with (
        tempfile.TemporaryDirectory(prefix="passthrough-") as folder,
        embedded(Path(folder), options=_CARELESS) as url,
    ):
        yield url


@pytest.fixture(scope="session")
def _template(postgres: str) -> str:
    asyncio.run(_run(postgres, "CREATE DATABASE template_head"))
    asyncio.run(migrate(_named(postgres, "template_head")))
    return "template_head"


@pytest.fixture
async def database_url(postgres: str, _template: str) -> AsyncIterator[str]:
    """Address of a database at head that is this test's alone."""
    name = f"test_{uuid.uuid4().hex}"
    await _run(postgres, f"CREATE DATABASE {name} TEMPLATE {_template} STRATEGY FILE_COPY")
    yield _named(postgres, name)
    await _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def _named(url: str, name: str) -> str:
    return url.replace("@/postgres?", f"@/{name}?")


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
