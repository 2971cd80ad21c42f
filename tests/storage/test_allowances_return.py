"""Budgets that are taken away and come back, and the order in which rows are locked."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.storage.database import Database
from tests.storage.allowance_workers import Worker, key_with, worker


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


async def spent(one: Worker, **limits: Any) -> None:
    """Spend something under these limits, or none."""
    await one.call(key_with(**limits))
    assert one.ledger is not None
    await one.ledger.flush(10)


async def test_a_budget_that_comes_back_knows_what_was_spent_without_it(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path, recording=True) as one:
        await spent(one, max_budget=Decimal(1))
        await sql.execute("UPDATE allowances SET created_at = now() - interval '1 hour'")
        await spent(one)
        await spent(one, max_budget=Decimal(2), rpm_limit=5)  # another amount, so that PostgreSQL is asked
        await spent(one, max_budget=Decimal(1))
        total = await sql.fetchval("SELECT sum(cost) FROM ledger")
        assert await sql.fetchval("SELECT used FROM allowances WHERE kind = 3") == total.scaleb(12)


async def test_a_window_that_nobody_had_begins_with_what_was_spent_in_it(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path, recording=True) as one:
        await spent(one, max_budget=Decimal(1), budget_duration="1d")
        (account,) = one.allowances._plans.accounts()
        one.allowances._rounds.close(account)
        async with asyncio.timeout(30):
            while await sql.fetchval("SELECT count(*) FROM allowance_leases"):  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.02)
        # as if that had been yesterday
        await sql.execute("UPDATE allowances SET ends_at = now() - interval '1 second', used = 777")
        await spent(one)
        await spent(one, max_budget=Decimal(1), budget_duration="1d")
        total = await sql.fetchval("SELECT sum(cost) FROM ledger")
        assert await sql.fetchval("SELECT used FROM allowances") == total.scaleb(12)


async def test_what_says_nothing_any_more_is_removed_and_comes_back_whole(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    limits: dict[str, Any] = {"rpm_limit": 9, "max_parallel_requests": 2, "budget_duration": "1d"}
    async with worker(database, tmp_path, recording=True) as one:
        heirs = one.allowances._rounds._asks._silent.__self__  # type: ignore[attr-defined]  # it is their method
        await spent(one, max_budget=Decimal(1), **limits)
        old = "UPDATE allowances SET created_at = now() - interval '2 days', ends_at = ends_at - interval '3 days'"
        await sql.execute(old)
        await heirs.forget()
        assert await sql.fetchval("SELECT count(*) FROM allowances") == 3  # they are held
        accounts = list(one.allowances._plans.accounts())
        for account in accounts:
            one.allowances._rounds.close(account)
        async with asyncio.timeout(30):
            while await sql.fetchval("SELECT count(*) FROM allowance_leases"):  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.02)
        await sql.execute(old)
        await heirs.forget()
        assert await sql.fetchval("SELECT count(*) FROM allowances") == 0
        await spent(one, max_budget=Decimal(1), **limits)
        total = await sql.fetchval("SELECT sum(cost) FROM ledger")
        assert await sql.fetchval("SELECT used FROM allowances WHERE kind = 3") == total.scaleb(12)


async def test_a_limit_that_is_raised_does_not_tell_again_what_is_crossed_as_before(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    # each call costs 1.75 microdollars
    async with worker(database, tmp_path, recording=True) as one:
        for budget in ("0.0001", "0.00011", "0.0001", "0.00011"):
            for _ in range(12):
                await spent(one, max_budget=Decimal(budget), soft_budget=Decimal("0.00001"))
    told = await sql.fetch("SELECT threshold FROM allowance_events ORDER BY id")
    assert [event["threshold"] for event in told] == ["soft", "75"]


@pytest.mark.parametrize("statement", ["passthrough_bury($1, '{}', true)", "passthrough_expire(interval '0')"])
async def test_who_gives_leases_back_waits_for_the_allowance_before_it_locks_a_lease(
    database: Database, sql: asyncpg.Connection, statement: str
) -> None:
    await sql.execute("INSERT INTO allowance_holders VALUES ('a')")
    asked = {"place": 0, "subject": "key", "name": "k", "kind": 2, "period": "", "model": "", "most": 5}
    asked |= {"starts": 0, "number": 0, "epoch": 0, "taken": 1, "settled": 0, "back": 0, "need": 1, "total": 1}
    asked |= {"extra": 0, "ask": "", "answer": "", "close": False}
    await sql.fetch("SELECT passthrough_lease('a', $1::jsonb, interval '8 s')", json.dumps([asked]))
    other = await database.connect()
    pid = await other.fetchval("SELECT pg_backend_pid()")
    async with sql.transaction():
        await sql.execute("SELECT FROM allowances FOR UPDATE")
        values = ("a",) if "$1" in statement else ()
        waiting = asyncio.create_task(other.fetchval(f"SELECT {statement}", *values))  # our own text
        blocked = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
        async with asyncio.timeout(30):
            while not await sql.fetchval(blocked, pid):  # nobody is told
                await asyncio.sleep(0.01)
                await sql.execute("SELECT pg_stat_clear_snapshot()")
        await sql.execute("SET LOCAL lock_timeout = '300ms'")
        await sql.execute("UPDATE allowance_leases SET free = free")
    await waiting
    await other.close()
