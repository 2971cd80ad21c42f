"""Workers that stand still, or that PostgreSQL does not hear of, while others go on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from passthrough.errors import Refusal
from passthrough.storage.database import Database
from tests.storage.allowance_workers import key_with, worker


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


class Clock:
    """A monotonic clock that can jump, as it does for a process that was stopped."""

    def __init__(self) -> None:
        self.jumped = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.jumped


async def test_a_worker_that_stood_still_gives_no_slots_that_others_have_by_now(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key, clock = key_with(max_parallel_requests=8), Clock()
    async with worker(database, tmp_path) as other, worker(database, tmp_path, monotonic=clock) as stalled:
        mine = [await stalled.hold(key) for _ in range(2)]
        for hold in mine:
            hold.release()
        assert next(stalled.allowances._plans.accounts()).lease.free == 2
        # 25 seconds later another worker has ended its calls at one time: nobody had heard of it
        clock.jumped = 25.0
        assert await sql.fetchval("SELECT passthrough_expire(interval '0')") == 1
        theirs = [await other.hold(key) for _ in range(8)]
        with pytest.raises(Refusal, match="max_parallel_requests"):
            await stalled.hold(key)
        theirs[0].release()
        (await stalled.hold(key)).release()


async def test_slots_are_leased_for_as_long_as_postgresql_hears_of_their_worker(
    tmp_path: Path, database: Database
) -> None:
    key, clock = key_with(max_parallel_requests=8), Clock()
    async with worker(database, tmp_path, monotonic=clock) as one:
        (await one.hold(key)).release()
        lease = next(one.allowances._plans.accounts()).lease
        before = lease.until
        async with asyncio.timeout(10):
            while lease.until <= before:  # noqa: ASYNC110  # a heartbeat later; nobody is told
                await asyncio.sleep(0.05)
        asked = one.allowances._desk.round_trips
        (await one.hold(key)).release()
        assert one.allowances._desk.round_trips == asked


async def test_a_call_that_comes_while_its_lease_is_given_back_counts_as_any_other(
    tmp_path: Path, database: Database
) -> None:
    key = key_with(rpm_limit=10)
    async with worker(database, tmp_path) as one:
        (await one.hold(key)).release()
        (account,) = one.allowances._plans.accounts()
        one.allowances._rounds.close(account)
        while not one.allowances._desk._turn.locked():  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0)
        await one.call(key)
        for _ in range(9):
            await one.call(key)
        with pytest.raises(Refusal, match="rpm_limit"):
            await one.hold(key)
