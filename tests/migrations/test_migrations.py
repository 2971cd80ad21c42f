"""The ladder of migrations: one head, no drift from the schema, up and down, many replicas at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from passthrough.errors import UserError
from passthrough.storage import database as database_module
from passthrough.storage import migrations
from passthrough.storage.database import Database, open_database
from passthrough.storage.ladder import head_revision, migration_config
from passthrough.storage.migrations import migrate, require_head


@pytest.fixture
async def empty_url(database_url: str) -> str:
    async with open_database(database_url) as database:
        await database_downgrade(database)
    return database_url


async def database_downgrade(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.run_sync(lambda c: command.downgrade(migration_config(c), "base"))
        await connection.commit()


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(migration_config()).get_heads()) == 1


async def test_the_migrations_make_exactly_the_schema(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.run_sync(lambda c: command.check(migration_config(c)))


async def test_going_down_leaves_nothing_and_up_again_works(empty_url: str) -> None:
    async with open_database(empty_url) as database, database.begin() as connection:
        left = await connection.execute(
            text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
        )
        assert left.scalars().all() == ["alembic_version"]
        functions = text("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert await connection.scalar(functions) == 0
    await migrate(empty_url)
    await require_head(empty_url)


async def test_many_replicas_migrate_at_once_and_all_find_it_done(empty_url: str) -> None:
    await asyncio.gather(*(migrate(empty_url) for _ in range(8)))
    await require_head(empty_url)


@asynccontextmanager
async def in_use(url: str) -> AsyncIterator[None]:
    """Somebody else's transaction, with the table that every migration needs."""
    async with open_database(url) as database, database.begin() as connection:
        await connection.execute(text("LOCK TABLE alembic_version"))
        yield


async def test_a_migration_may_take_longer_than_a_statement_of_the_proxy_and_of_the_role(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(empty_url) as database, database.begin() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(text(f"ALTER DATABASE {name} SET statement_timeout = '500ms'"))
    monkeypatch.setattr(database_module, "_COMMAND_SECONDS", 0.5)
    async with asyncio.TaskGroup() as group, in_use(empty_url):
        migrating = group.create_task(migrate(empty_url))
        await asyncio.sleep(2)
        assert not migrating.done()
    await require_head(empty_url)


async def test_a_replica_waits_for_another_that_migrates_for_long(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_COMMAND_SECONDS", 0.5)
    async with asyncio.TaskGroup() as group, open_database(empty_url) as database, database.begin() as connection:
        await connection.execute(text(f"SELECT pg_advisory_lock({migrations._MIGRATION_LOCK})"))
        waiting = group.create_task(migrate(empty_url))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert await connection.scalar(text(held)) == 0  # it asks now and then, and holds nobody up meanwhile
        await connection.execute(text("SELECT pg_advisory_unlock_all()"))
    await require_head(empty_url)


async def test_a_migration_lets_others_pass_while_it_cannot_have_its_table_and_comes_back(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_SESSION", ("SET lock_timeout = '100ms'",))
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.1)
    async with asyncio.TaskGroup() as group, in_use(empty_url):
        migrating = group.create_task(migrate(empty_url))
        await asyncio.sleep(0.7)
        assert not migrating.done()
    await require_head(empty_url)


async def test_a_table_that_others_never_let_go_is_one_sentence(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_SESSION", ("SET lock_timeout = '100ms'",))
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.01)
    async with in_use(empty_url):
        with pytest.raises(UserError, match=r"^The migration cannot have a table that others keep in use: end long"):
            await migrate(empty_url)


async def test_an_empty_database_is_refused_with_what_to_do(empty_url: str) -> None:
    with pytest.raises(UserError, match="no tables of passthrough yet: run 'passthrough migrate' first"):
        await require_head(empty_url)


async def test_a_schema_that_is_ahead_is_a_rolling_upgrade_and_accepted(database: Database, database_url: str) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert head_revision() != "9999"
    await require_head(database_url)


async def test_an_unreachable_database_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"cannot be reached.*check DATABASE_URL"):
        await migrate("postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_database_that_does_not_exist_is_one_sentence(postgres: str) -> None:
    with pytest.raises(UserError, match=r'^The database refuses us \(database "nowhere" does not exist\): check'):
        await require_head(postgres.replace("@/postgres?", "@/nowhere?"))


@pytest.mark.parametrize("url", ["mysql://x/y", "postgres", "", "postgresql://x:port/y"])
async def test_what_is_no_postgresql_is_one_sentence(url: str) -> None:
    with pytest.raises(UserError, match=r"^DATABASE_URL .*: write postgresql://"):
        await migrate(url)
