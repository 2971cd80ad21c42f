"""Whose limits bind a call: from rows of the admin API's tables, through the directory of keys, to its accounts."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.errors import Refusal
from passthrough.policy.keys import VirtualKey
from passthrough.storage.allowances_state import states
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory, key_directory
from passthrough.storage.ledger import Ledger
from passthrough.storage.owners import set_counter
from tests.storage.allowance_workers import KEY, MODEL, Worker, call_of, key_with, worker, workers


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


@pytest.fixture
async def directory(database: Database) -> AsyncIterator[KeyDirectory]:
    async with key_directory(database) as opened:
        await opened.listening()
        yield opened


async def insert(sql: asyncpg.Connection, table: str, **fields: Any) -> None:
    columns, values = ", ".join(fields), ", ".join(f"${number}" for number in range(1, len(fields) + 1))
    written = [json.dumps(value) if isinstance(value, dict | list) else value for value in fields.values()]
    await sql.execute(f"INSERT INTO {table} ({columns}) VALUES ({values})", *written)  # noqa: S608  # our own names


async def changed(directory: KeyDirectory) -> VirtualKey:
    """The key, once the directory has heard that it was changed."""
    while directory.cached(KEY) is not None:  # noqa: ASYNC110  # the directory tells nobody
        await asyncio.sleep(0.01)
    key = await directory.find(KEY)
    assert key is not None
    return key


async def bound_by(one: Worker, key: VirtualKey, **fields: Any) -> list[tuple[str, str, int]]:
    """Whose limits a call is held to, which, and how much."""
    hold = await one.hold(key, entry=call_of(key, **fields))
    hold.release()
    return sorted((account.limit.subject, account.limit.field, account.most) for account in hold.accounts)


async def test_limits_of_a_key_and_all_its_owners_bind(
    tmp_path: Path, database: Database, sql: asyncpg.Connection, directory: KeyDirectory
) -> None:
    await insert(sql, "budgets", budget_id="b", max_budget=Decimal(7), budget_duration="7d", tpd_limit=70)
    await insert(sql, "users", user_id="u", rpm_limit=11)
    await insert(sql, "teams", team_id="t", budget_id="b", tpd_limit=22, team_member_rpm_limit=33)
    await insert(sql, "team_members", team_id="t", user_id="u", max_budget_in_team=Decimal(3), tpm_limit=10**6)
    limits = {"model_rpm_limit": {"amazon.*": 44, "other.*": 1}, "model_max_budget": {MODEL: {"max_budget": 5}}}
    await insert(sql, "keys", key_id=KEY, key_name="k", user_id="u", team_id="t", **limits)
    key = await directory.find(KEY)
    assert key is not None
    async with worker(database, tmp_path) as one:
        with pytest.raises(Refusal, match="tpd_limit"):
            await bound_by(one, key)
        await sql.execute("UPDATE teams SET tpd_limit = 100000")
        key = await changed(directory)
        dollar = 10**12
        assert await bound_by(one, key) == [
            ("key", "model_max_budget", 5 * dollar),
            ("key", "model_rpm_limit", 44),
            ("team", "max_budget", 7 * dollar),
            ("team", "tpd_limit", 100000),
            ("team_member", "max_budget", 3 * dollar),
            ("team_member", "rpm_limit", 33),
            ("team_member", "tpm_limit", 10**6),
            ("user", "rpm_limit", 11),
        ]
        await sql.execute("UPDATE budgets SET max_budget = 9")
        key = await changed(directory)
        assert ("team", "max_budget", 9 * dollar) in await bound_by(one, key)


async def test_customers_tags_and_everybody_are_held_to_theirs_as_they_change(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(rpm_limit=50)
    async with worker(database, tmp_path) as one:
        plans = one.allowances._plans

        async def heard(version: int) -> None:
            while plans._version == version or plans._outdated:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.005)

        assert await bound_by(one, key, end_user="c", tags=("x",)) == [("key", "rpm_limit", 50)]
        version = plans._version
        await insert(sql, "customers", user_id="c", max_parallel_requests=2)
        await heard(version)
        assert ("customer", "max_parallel_requests", 2) in await bound_by(one, key, end_user="c")
        assert await bound_by(one, key, end_user="d") == [("key", "rpm_limit", 50)]
        version = plans._version
        await insert(sql, "budgets", budget_id="tag:x", rpm_limit=8)
        await insert(sql, "budgets", budget_id="global", rpm_limit=900)
        await insert(sql, "budgets", budget_id="default:customer", max_parallel_requests=4, tpd_limit=10**6)
        await heard(version)
        await heard(version + 1)
        await heard(version + 2)
        assert await bound_by(one, key, end_user="c", tags=("x", "y")) == [
            ("customer", "max_parallel_requests", 2),
            ("customer", "tpd_limit", 10**6),
            ("global", "rpm_limit", 900),
            ("key", "rpm_limit", 50),
            ("tag", "rpm_limit", 8),
        ]
        assert ("customer", "max_parallel_requests", 4) in await bound_by(one, key, end_user="d")
        assert await bound_by(one, key_with("cd" * 32)) == [("global", "rpm_limit", 900)]


async def test_a_budget_counts_what_was_spent_before_it_was_set(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    # 81 calls of 1.75 microdollars each before, and one that is under way when the budget is set
    spent = Decimal("0.00000175")
    free, key = key_with(), key_with(max_budget=Decimal("0.0002"))
    daily = key_with(max_budget=Decimal("0.0002"), budget_duration="1d")
    hourly = key_with(budget_limits=[{"max_budget": Decimal("0.0002"), "budget_duration": "2h"}])
    async with workers(database, tmp_path, 2, recording=True) as two:
        for _ in range(80):
            await two[0].call(free)
        assert two[0].ledger is not None
        await two[0].ledger.flush(10)
        late = call_of(free)
        two[0].ledger.append(two[0].end(late, await two[0].hold(free, entry=late)))
        for one in (key, daily, hourly):
            (await two[1].hold(one)).release()
        await two[0].ledger.flush(10)
        rows = await sql.fetch("SELECT period, used FROM allowances")
        assert {row["period"]: row["used"] for row in rows} == dict.fromkeys(("", "1d", "2h"), (81 * spent).scaleb(12))


async def test_a_temporary_increase_ends_when_it_says(tmp_path: Path, database: Database) -> None:
    now = [1_900_000_000.0]
    until = datetime.fromtimestamp(now[0] + 100, UTC)
    key = key_with(max_budget=Decimal(0), temp_budget_increase=Decimal(1), temp_budget_expiry=until)
    steps = [0.0]
    async with worker(database, tmp_path, wall=lambda: now[0] + steps[0], monotonic=lambda: 5000.0 + steps[0]) as one:
        (await one.hold(key)).release()
        steps[0] = 101.0
        with pytest.raises(Refusal, match="max_budget, 0 USD"):
            await one.hold(key)


async def test_what_is_left_is_told_as_it_is_at_the_moment(tmp_path: Path, database: Database) -> None:
    key = key_with(rpm_limit=100, max_budget=Decimal(1), budget_duration="1d", tpm_limit=5000, max_parallel_requests=9)
    now = datetime.now(UTC)
    async with workers(database, tmp_path, 2, recording=True) as two:
        for number in range(10):
            await two[number % 2].call(key)
        open_call = await two[0].hold(key)
        assert two[0].ledger is not None
        assert two[1].ledger is not None
        await two[0].ledger.flush(10)
        await two[1].ledger.flush(10)
        async with database.engine.connect() as connection:
            found = {state.limit.field: state for state in await states(connection, key.limits, now, fresh=True)}
        open_call.release()
    spent = 10 * Decimal("0.00000175")
    reserved = Decimal(open_call.needs[3]).scaleb(-12)
    assert found["max_budget"].fields() == {
        "subject": "key",
        "name": KEY,
        "field": "max_budget",
        "unit": "usd",
        "model": None,
        "window": "1d",
        "limit": 1,
        "used": spent,
        "held": reserved,
        "lost": 0,
        "remaining": 1 - spent - reserved,
        "resets_at": found["max_budget"].resets_at,
        "shadow": False,
    }
    assert (found["rpm_limit"].used, found["rpm_limit"].held, found["rpm_limit"].remaining) == (10, 1, 89)
    assert (found["tpm_limit"].used, found["tpm_limit"].remaining) == (200, 4800 - open_call.needs[1])
    assert (found["max_parallel_requests"].held, found["max_parallel_requests"].remaining) == (1, 8)
    assert found["max_budget"].resets_at is not None
    assert found["max_budget"].resets_at.hour == 0


async def test_a_limit_that_nobody_used_is_whole(database: Database) -> None:
    key = key_with(rpm_limit=3, max_budget=Decimal(1), budget_duration="1mo")
    async with database.engine.connect() as connection:
        found = await states(connection, key.limits, datetime(2026, 2, 14, tzinfo=UTC))
    assert [(state.remaining, state.resets_at) for state in found] == [
        (3, None),
        (1, datetime(2026, 3, 1, tzinfo=UTC)),
    ]


async def test_resetting_a_counter_fills_the_budget_again(tmp_path: Path, database: Database) -> None:
    key = key_with(max_budget=Decimal("0.00003"))
    async with worker(database, tmp_path, recording=True) as one:
        await one.call(key, used=(10, 90))
        with pytest.raises(Refusal):
            await one.hold(key)
        assert one.ledger is not None
        await one.ledger.flush(10)
        async with database.begin() as connection:
            await set_counter(connection, "key", KEY, Decimal(0))
        await asyncio.sleep(1.1)  # for so long a spent budget is known to be spent
        await one.call(key, used=(10, 90))


async def test_resetting_a_counter_fills_the_budgets_of_single_models_again_and_never_spends_of_them(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(model_max_budget={MODEL: {"max_budget": 0.00003}}, max_budget=Decimal(1))
    used = "SELECT used FROM allowances WHERE kind = 3 ORDER BY model"
    async with worker(database, tmp_path, recording=True) as one:
        await one.call(key, used=(10, 90))
        with pytest.raises(Refusal, match="model_max_budget"):
            await one.hold(key)
        assert one.ledger is not None
        await one.ledger.flush(10)
        spent = await sql.fetchval("SELECT spend FROM spend WHERE kind = 'key'")
        for counter, left in ((Decimal(1), spent), (spent / 2, spent / 2), (Decimal(0), Decimal(0))):
            async with database.begin() as connection:
                await set_counter(connection, "key", KEY, counter)
            assert [row["used"].scaleb(-12) for row in await sql.fetch(used)] == [counter, left]
        await asyncio.sleep(1.1)  # for so long a spent budget is known to be spent
        await one.call(key, used=(10, 90))


async def test_a_rotated_key_keeps_its_count_and_a_deleted_one_leaves_none(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    await insert(sql, "keys", key_id=KEY, key_name="k", rpm_limit=2)
    async with worker(database, tmp_path) as one:
        await one.call(key_with(rpm_limit=2))
        await sql.execute("UPDATE keys SET key_id = $1", "cd" * 32)
        rotated = key_with("cd" * 32, rpm_limit=2)
        await one.call(rotated)
        with pytest.raises(Refusal):
            await one.hold(rotated)
    await sql.execute("DELETE FROM keys")
    assert await sql.fetchval("SELECT count(*) FROM allowances") == 0
    assert await sql.fetchval("SELECT count(*) FROM allowance_leases") == 0


async def test_a_call_is_charged_to_all_of_its_budgets_once_however_often_it_is_shipped(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(max_budget=Decimal(1), budget_limits=[{"max_budget": Decimal(1), "budget_duration": "1d"}])
    async with worker(database, tmp_path, recording=True) as one:
        entry = await one.call(key)
        assert len(entry.charges) == 2
        assert one.ledger is not None
        await one.ledger.flush(10)
        async with Ledger(tmp_path / "again", database.connect) as again:
            again.append(entry)
            await again.flush(10)
    assert {row["used"] for row in await sql.fetch("SELECT used FROM allowances")} == {Decimal(1_750_000)}
