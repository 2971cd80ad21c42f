"""Limits that a whole deployment shares: of tags, and those of whoever has none of its own."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.errors import Refusal
from passthrough.policy.keys import VirtualKey
from passthrough.storage.database import Database
from tests.storage.allowance_workers import KEY, MODEL, Worker, call_of, key_with, worker


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


async def shared_are_read(one: Worker, sql: asyncpg.Connection, **budget: Any) -> None:
    """Insert a shared budget, and wait until the worker obeys it."""
    plans = one.allowances._plans
    version = plans._version
    columns, values = ", ".join(budget), ", ".join(f"${number}" for number in range(1, len(budget) + 1))
    await sql.execute(f"INSERT INTO budgets ({columns}) VALUES ({values})", *budget.values())  # noqa: S608  # our own names
    while plans._version < version + 2 or plans._outdated:  # noqa: ASYNC110  # heard, then read; nobody is told
        await asyncio.sleep(0.005)


async def test_a_call_counts_once_for_a_tag_however_often_it_names_it(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path, recording=True) as one:
        await shared_are_read(one, sql, budget_id="tag:x", max_budget=Decimal(1), rpm_limit=3)
        for _ in range(3):
            await one.call(key_with(), tags=("x", "y", "x"))
        with pytest.raises(Refusal, match="rpm_limit"):
            await one.hold(key_with(), entry=call_of(key_with(), tags=("x", "x")))
        assert one.ledger is not None
        await one.ledger.flush(10)
    spent = await sql.fetchval("SELECT sum(cost) FROM ledger")
    assert await sql.fetchval("SELECT used FROM allowances WHERE kind = 3") == spent.scaleb(12)


async def test_a_default_that_only_warns_does_not_loosen_a_budget(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(max_budget=Decimal("0.00003"))
    async with worker(database, tmp_path) as one:
        await shared_are_read(one, sql, budget_id="default:key", soft_budget=Decimal("0.00001"))
        await one.call(key, used=(10, 90))
        with pytest.raises(Refusal, match="max_budget"):
            await one.hold(key)


async def test_a_key_that_moves_to_another_team_is_held_to_that_ones_defaults(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path) as one:
        await shared_are_read(one, sql, budget_id="default:team", rpm_limit=9)
        before, after = (VirtualKey(key_id=KEY, team_id=team) for team in ("a", "b"))
        for key in (before, after):
            hold = await one.hold(key)
            assert [account.limit.name for account in hold.accounts] == [key.team_id]


async def test_a_limit_of_a_model_binds_calls_of_it_by_a_profile(tmp_path: Path, database: Database) -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    known: dict[str, str] = {}
    key = key_with(model_rpm_limit={MODEL: 2})
    async with worker(database, tmp_path, stands_for=known.get) as one:
        assert not (await one.hold(key, entry=call_of(key, model=profile))).accounts  # nobody knows it yet
        known[profile] = f"us.{MODEL}"
        await asyncio.sleep(1.1)  # for so long that is not asked again
        for model in (profile, MODEL):
            await one.hold(key, entry=call_of(key, model=model))
        with pytest.raises(Refusal, match="model_rpm_limit"):
            await one.hold(key, entry=call_of(key, model=profile))


async def test_tags_that_nothing_limits_make_no_plans(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path) as one:
        await shared_are_read(one, sql, budget_id="tag:x", rpm_limit=900)
        for number in range(50):
            await one.call(key_with(rpm_limit=900), tags=("x", f"made-up-{number}"))
        assert len(one.allowances._plans._plans) == 1
