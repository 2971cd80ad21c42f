"""The directory against a real PostgreSQL: what is served, what is asked, and when what was known is forgotten."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, update

from passthrough.policy.keys import digest
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory, key_directory
from passthrough.storage.schema import Key, Team, TeamMember, User

KEY = digest("sk-one-of-the-tests-keys")


@pytest.fixture
async def directory(database: Database) -> AsyncIterator[KeyDirectory]:
    async with key_directory(database) as opened:
        await opened.listening()
        yield opened


async def add_key(database: Database, key_id: str = KEY, **values: object) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(Key).values(key_id=key_id, key_name="sk-...keys", **values))


async def until_forgotten(directory: KeyDirectory, key_id: str = KEY) -> None:
    async with asyncio.timeout(0.1):  # the promise: under 100 ms
        while directory.cached(key_id) is not None:  # noqa: ASYNC110  # a dict is read: there is nothing to await
            await asyncio.sleep(0.001)


async def test_a_key_is_asked_for_once_and_then_known(database: Database, directory: KeyDirectory) -> None:
    await add_key(database, key_alias="a", models=["anthropic.*"])
    assert directory.cached(KEY) is None
    found = await directory.find(KEY)
    assert found is not None
    assert (found.key_id, found.key_alias, found.models) == (KEY, "a", ("anthropic.*",))
    assert directory.cached(KEY) is found
    assert await directory.find(KEY) is found
    assert directory.counts.queries == 1


async def test_a_blocked_key_is_known_as_blocked_within_a_tenth_of_a_second(
    database: Database, directory: KeyDirectory
) -> None:
    await add_key(database)
    await directory.find(KEY)
    async with database.begin() as connection:
        await connection.execute(update(Key).values(blocked=True))
    await until_forgotten(directory)
    found = await directory.find(KEY)
    assert found is not None
    assert (found.blocked, found.blocked_by) == (True, "virtual key")


async def test_what_user_team_and_membership_restrict_is_merged_into_the_key(
    database: Database, directory: KeyDirectory
) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(User).values(user_id="u", models=["amazon.*"]))
        await connection.execute(
            insert(Team).values(team_id="t", models=["*"], blocked=True, tags=["b", "c"], model_aliases={"x": "y"})
        )
        await connection.execute(insert(TeamMember).values(team_id="t", user_id="u", allowed_models=["amazon.nova*"]))
    await add_key(database, user_id="u", team_id="t", models=["amazon.nova-lite-v1:0"], tags=["a", "b"])
    found = await directory.find(KEY)
    assert found is not None
    assert found.model_lists == (("amazon.nova-lite-v1:0",), ("amazon.*",), ("*",), ("amazon.nova*",))
    assert (found.blocked, found.blocked_by) == (True, "team")
    assert found.tags == ("a", "b", "c")
    assert found.aliases == {"x": "y"}


async def test_a_change_of_the_team_is_a_change_of_its_keys(database: Database, directory: KeyDirectory) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(Team).values(team_id="t"))
    await add_key(database, team_id="t")
    await directory.find(KEY)
    async with database.begin() as connection:
        await connection.execute(update(Team).values(blocked=True))
    await until_forgotten(directory)
    found = await directory.find(KEY)
    assert found is not None
    assert found.blocked
