"""A worker whose disk is gone with it: what it held of budgets is nobody's to give back, but the administrator's."""

import asyncio
import shutil
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from passthrough.policy.allowances import PICODOLLARS, Kind
from passthrough.storage.allowances_state import states
from passthrough.storage.database import Database
from passthrough.storage.owners import set_counter
from tests.storage.allowance_victim import LIMITS
from tests.storage.allowance_workers import KEY, key_with, worker

HELD = "SELECT held FROM allowances WHERE kind = 3"


@pytest.fixture
async def lost(tmp_path: Path, database_url: str) -> None:
    """A worker that was killed in the middle of calls, and whose data directory is no more."""
    folder = tmp_path / "lost"
    folder.mkdir()
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.allowance_victim", database_url, str(folder), "7", "3"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert victim.stdout is not None
    await victim.stdout.readline()
    victim.kill()
    await victim.wait()
    shutil.rmtree(folder)


async def silent_for(database: Database, time: timedelta) -> None:
    connection: asyncpg.Connection = await database.connect()
    await connection.execute("UPDATE allowance_holders SET seen_at = now() - $1::interval", time)
    await connection.close()


async def held(database: Database) -> Decimal:
    connection: asyncpg.Connection = await database.connect()
    try:
        return await connection.fetchval(HELD)
    finally:
        await connection.close()


@pytest.mark.usefixtures("lost")
async def test_what_a_lost_disk_held_of_a_budget_stays_held_until_the_spend_is_reset(
    tmp_path: Path, database: Database
) -> None:
    before = await held(database)
    assert before > 0
    await silent_for(database, timedelta(days=30))
    async with worker(database, tmp_path / "heir") as heir:
        await asyncio.sleep(2.5)  # it has looked for the dead
        (await heir.hold(key_with(**LIMITS))).release()
        assert await held(database) >= before
    assert await held(database) == before
    async with database.begin() as connection:
        await set_counter(connection, "key", KEY, Decimal(0))
    assert await held(database) == 0


@pytest.mark.usefixtures("lost")
async def test_a_worker_that_was_heard_of_ten_minutes_ago_keeps_what_it_holds_when_the_spend_is_reset(
    database: Database,
) -> None:
    before = await held(database)
    await silent_for(database, timedelta(minutes=9))
    async with database.begin() as connection:
        await set_counter(connection, "key", KEY, Decimal(0))
    assert await held(database) == before


@pytest.mark.usefixtures("lost")
async def test_what_a_worker_leased_ahead_is_not_told_as_left_once_nobody_can_ask_it(database: Database) -> None:
    limits = [limit for limit in key_with(**LIMITS).limits if limit.kind == Kind.MONEY]
    everything = (await held(database)).scaleb(-PICODOLLARS)
    for silent, told in ((timedelta(0), False), (timedelta(seconds=9), True)):
        await silent_for(database, silent)
        async with database.begin() as connection:
            [state] = await states(connection, limits, datetime.now(UTC))
        assert (state.held == everything) == told
        assert state.held <= everything
        assert state.remaining == 1 - state.used - state.held


@pytest.mark.usefixtures("lost")
async def test_what_a_lost_disk_held_of_a_window_ends_with_the_window(tmp_path: Path, database: Database) -> None:
    connection: asyncpg.Connection = await database.connect()
    await connection.execute("UPDATE allowances SET ends_at = now() - interval '1 s' WHERE kind = 3")
    await connection.close()
    async with worker(database, tmp_path / "heir") as heir:
        (await heir.hold(key_with(**LIMITS))).release()
    assert await held(database) == 0
