"""The directory against a real PostgreSQL: what is served, what is asked, and when what was known is forgotten."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from passthrough.errors import Unavailable
from passthrough.policy.keys import SANDBOX, digest
from passthrough.storage.database import Database, open_database
from passthrough.storage.keys import KeyDirectory, key_directory
from passthrough.storage.schema import FormerKey, Key, Team, TeamMember, User
from tests.fakes.cutting import cutting

PATIENCE_SECONDS = 30  # how fast it is, benchmarks/revocation.py tells
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
    async with asyncio.timeout(PATIENCE_SECONDS):
        while directory.cached(key_id) is not None:  # noqa: ASYNC110  # a dict is read: there is nothing to await
            await asyncio.sleep(0.001)


async def test_a_key_is_asked_for_once_and_then_known(database: Database, directory: KeyDirectory) -> None:
    await add_key(database, key_alias="a", models=["anthropic.*"])
    assert directory.cached(KEY) is None
    found = await directory.find(KEY)
    assert found is not None
    assert (found.key_id, found.key_alias, found.models) == (KEY, "a", ("anthropic.*",))
    asked = directory.counts.queries
    assert directory.cached(KEY) is found
    assert await directory.find(KEY) is found
    assert directory.counts.queries == asked


async def test_a_key_of_the_sandbox_exists_there_alone(database: Database, directory: KeyDirectory) -> None:
    """It has no limits, and was shown on a terminal: nowhere else may it open anything."""
    await add_key(database, metadata={SANDBOX: True})
    assert await directory.find(KEY) is None
    async with key_directory(database, sandbox=True) as of_sandbox:
        assert await of_sandbox.find(KEY) is not None


async def test_a_blocked_key_is_known_as_blocked_though_nobody_asks(
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


async def test_a_rotated_key_opens_under_its_former_digest_until_the_grace_ends(
    database: Database, directory: KeyDirectory
) -> None:
    former = digest("sk-what-it-was-before")
    until = datetime.now(UTC) + timedelta(hours=1)
    await add_key(database)
    assert await directory.find(former) is None
    async with database.begin() as connection:
        await connection.execute(insert(FormerKey).values(former_id=former, key_id=KEY, valid_until=until))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (found := await directory.find(former)) is None:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.001)
    assert (found.key_id, found.expires_at) == (KEY, until.timestamp())
    # a change of the key is one of what it was called before
    async with database.begin() as connection:
        await connection.execute(update(Key).values(blocked=True))
    await until_forgotten(directory, former)


async def test_a_key_that_is_due_for_rotation_ends_with_its_interval(
    database: Database, directory: KeyDirectory
) -> None:
    due = datetime(2026, 1, 1, tzinfo=UTC)
    await add_key(database, auto_rotate=True, key_rotation_at=due, expires=datetime(2027, 1, 1, tzinfo=UTC))
    found = await directory.find(KEY)
    assert found is not None
    assert (found.expires_at, found.rotation_due) == (due.timestamp(), True)


async def test_litellms_words_for_lists_mean_what_they_mean_there(database: Database, directory: KeyDirectory) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(Team).values(team_id="t", models=["amazon.*"]))
        await connection.execute(insert(User).values(user_id="u", models=["no-default-models"]))
    ids = [digest(str(n)) for n in range(4)]
    await add_key(database, ids[0], models=["all-team-models"], team_id="t")
    await add_key(database, ids[1], models=["all-proxy-models"])
    await add_key(database, ids[2], user_id="u")
    await add_key(database, ids[3], models=["bedrock/anthropic.*"], user_id="u", team_id="t")
    lists = [found.model_lists for key_id in ids if (found := await directory.find(key_id))]
    assert lists == [
        (("amazon.*",),),
        (),
        (("no-default-models",),),
        (("anthropic.*",), ("amazon.*",)),
    ]


async def test_while_postgresql_is_away_known_keys_are_served_and_changes_made_meanwhile_apply_on_return(
    database: Database, database_url: str
) -> None:
    blocked, other = digest("blocked meanwhile"), digest("other")
    await add_key(database, blocked)
    await add_key(database, other)
    async with (
        cutting(database_url) as proxy,
        open_database(proxy.url) as distant,
        key_directory(distant) as directory,
    ):
        await directory.listening()
        await directory.find(blocked)
        await directory.find(other)

        await proxy.cut()
        await until_forgotten(directory, blocked)
        async with database.begin() as connection:
            await connection.execute(update(Key).where(Key.key_id == blocked).values(blocked=True))
        known = await directory.find(blocked)
        assert known is not None
        assert not known.blocked
        with pytest.raises(Unavailable):
            await directory.find(digest("sk-unknown"))

        await proxy.mend()
        async with asyncio.timeout(20):
            await directory.listening()
        known, same = await directory.find(blocked), await directory.find(other)
        assert known is not None
        assert known.blocked
        assert same is not None
        assert await directory.find(digest("sk-unknown")) is None


async def test_a_network_that_silently_swallows_everything_is_noticed(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passthrough.storage.changes._HEARTBEAT_SECONDS", 0.05)
    await add_key(database)
    async with (
        cutting(database_url) as proxy,
        open_database(proxy.url) as distant,
        key_directory(distant) as directory,
    ):
        await directory.listening()
        await directory.find(KEY)
        proxy.hang()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while directory.cached(KEY) is not None:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.001)
        await proxy.cut()


async def test_who_has_caught_up_knows_nothing_that_was_changed_before(
    database: Database, directory: KeyDirectory
) -> None:
    await add_key(database)
    for turn in range(50):
        await directory.find(KEY)
        async with database.begin() as connection:
            await connection.execute(update(Key).where(Key.key_id == KEY).values(blocked=bool(turn % 2)))
        await directory.caught_up()
        assert directory.cached(KEY) is None


async def test_nobody_waits_to_catch_up_while_postgresql_is_away(database_url: str) -> None:
    async with (
        cutting(database_url) as proxy,
        open_database(proxy.url) as distant,
        key_directory(distant) as directory,
        asyncio.timeout(30),
    ):
        await directory.listening()
        await proxy.cut()
        await directory.caught_up()


async def test_ten_thousand_wrong_keys_cost_few_queries(directory: KeyDirectory) -> None:
    wrong = [digest(f"sk-wrong-{n}") for n in range(10_000)]
    for _ in range(2):
        assert set(await asyncio.gather(*map(directory.find, wrong))) == {None}
    assert directory.counts.queries <= 21
    assert directory.counts.absent_remembered == 10_000
