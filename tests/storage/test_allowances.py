import asyncio
import random
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.errors import Refusal
from passthrough.policy.allowance_holds import UNLIMITED
from passthrough.policy.keys import VirtualKey
from passthrough.storage.database import Database
from tests.storage.allowance_workers import CALL, KEY, Worker, call_of, key_with, worker, workers


@pytest.fixture
async def reading(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


async def accounts(reading: asyncpg.Connection) -> dict[tuple[str, int, str], tuple[Decimal, Decimal, Decimal]]:
    rows = await reading.fetch("SELECT subject, kind, model, used, held, lost FROM allowances")
    return {(row["subject"], row["kind"], row["model"]): (row["used"], row["held"], row["lost"]) for row in rows}


async def admitted(one: Worker, key: VirtualKey, **fields: Any) -> bool:
    try:
        await one.call(key, **fields)
    except Refusal as refusal:
        if refusal.status not in {400, 429}:
            raise
        return False
    return True


@pytest.mark.parametrize("limit", [0, 1, 7, 37, 300])
async def test_n_calls_one_after_the_other_over_any_workers_are_exactly_n(
    tmp_path: Path, database: Database, limit: int
) -> None:
    key, pick = key_with(rpm_limit=limit), random.Random(limit)  # noqa: S311  # repeatable
    async with workers(database, tmp_path, 4) as four:
        results = [await admitted(pick.choice(four), key) for _ in range(limit + 20)]
    assert sum(results) == limit
    assert all(results[:limit])


async def test_of_many_calls_at_once_exactly_as_many_as_fit_are_admitted(tmp_path: Path, database: Database) -> None:
    key = key_with(rpm_limit=101)
    async with workers(database, tmp_path, 4) as four:
        results = await asyncio.gather(*(admitted(four[number % 4], key) for number in range(200)))
    assert sum(results) == 101


async def test_a_call_that_one_limit_refuses_takes_nothing_of_the_others(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    key = key_with(rpm_limit=100, tpm_limit=150, max_budget=Decimal(1))
    async with worker(database, tmp_path) as one:
        for _ in range(5):
            with pytest.raises(Refusal) as refused:
                await one.hold(key, most_output=5000)
            assert refused.value.status == 429
            assert "tpm_limit" in refused.value.message
    assert set((await accounts(reading)).values()) == {(0, 0, 0)}


async def test_calls_at_one_time_are_counted_to_their_end(tmp_path: Path, database: Database) -> None:
    key = key_with(max_parallel_requests=3)
    async with workers(database, tmp_path, 2) as two:
        holds = [await two[0].hold(key), await two[1].hold(key), await two[0].hold(key)]
        for one in two:
            with pytest.raises(Refusal) as refused:
                await one.hold(key)
            assert refused.value.headers["Retry-After"] == "1"
            assert refused.value.headers["RateLimit"] == '"key-parallel";r=0'
        holds[1].settle(call_of(key))
        holds[1].settle(call_of(key))  # once is enough
        again = await two[0].hold(key)
        with pytest.raises(Refusal):
            await two[1].hold(key)
        for hold in (holds[0], holds[2], again):
            hold.release()


async def test_what_a_call_did_not_use_is_there_for_another_worker_at_once(tmp_path: Path, database: Database) -> None:
    key = key_with(tpm_limit=1000)
    async with workers(database, tmp_path, 2) as two:
        hold = await two[0].hold(key, most_output=800)
        with pytest.raises(Refusal):
            await two[1].hold(key, most_output=200)
        entry = call_of(key)
        two[0].end(entry, hold, (20, 30))
        hold = await two[1].hold(key, most_output=780)
        assert two[1].allowances.header_lines(hold, None).startswith(b'RateLimit-Policy: "key-tpm";q=1000;w=60;')


async def test_what_is_charged_by_the_piece_uses_no_tokens(tmp_path: Path, database: Database) -> None:
    key = key_with(tpm_limit=1000)
    async with worker(database, tmp_path) as one:
        for _ in range(20):
            (await one.hold(key)).settle(call_of(key, units={"searches": 1.0}))


async def test_money_is_never_over_and_ends_as_the_ledger_does(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    budget = Decimal("0.0004")
    key, pick = key_with(max_budget=budget, budget_duration="1d"), random.Random(1)  # noqa: S311  # repeatable
    async with workers(database, tmp_path, 3, recording=True) as three:

        async def client(number: int) -> int:
            one, count = three[number % 3], 0
            for _ in range(12):
                used = (pick.randrange(200), pick.randrange(100))
                count += await admitted(one, key, used=used, most_output=100)
                await asyncio.sleep(pick.random() * 0.01)
            return count

        done = sum(await asyncio.gather(*(client(number) for number in range(20))))
    assert done > 10
    spent = await reading.fetchval("SELECT sum(cost) FROM ledger")
    assert spent <= budget
    assert await reading.fetchval("SELECT count(*) FROM ledger") == done
    assert await reading.fetchval("SELECT spend FROM spend WHERE kind = 'key'") == spent
    assert await accounts(reading) == {("key", 3, ""): (spent.scaleb(12), 0, 0)}


@pytest.mark.parametrize("behind", [-3000.0, 3000.0])
async def test_a_window_ends_by_the_clock_of_postgresql_also_where_clients_are_told(
    tmp_path: Path, database: Database, behind: float
) -> None:
    key = key_with(rpm_limit=1)
    async with worker(database, tmp_path, wall=lambda: time.time() - behind) as one:
        await one.call(key)
        with pytest.raises(Refusal) as refused:
            await one.hold(key)
    assert 55 <= int(refused.value.headers["Retry-After"]) <= 61


async def test_a_budget_that_is_spent_says_which_and_how_much_and_when(tmp_path: Path, database: Database) -> None:
    key = key_with(max_budget=Decimal("0.00003"), budget_duration="1d")
    async with worker(database, tmp_path) as one:
        await one.call(key, used=(10, 80))
        with pytest.raises(Refusal) as refused:
            await one.hold(key)
    assert (refused.value.status, refused.value.code) == (400, "ServiceQuotaExceededException")
    message = refused.value.message
    assert message.startswith("The budget of the virtual key (max_budget, 0.00003 USD until 20")
    assert "has 0.00001845 USD left, and this call may cost up to 0.000019845 USD" in message
    assert message.endswith("T00:00:00Z.")
    assert refused.value.headers["RateLimit-Policy"] == '"key-budget-1d";q=30;w=86400;qu="usd-micros"'


async def test_a_model_without_a_price_is_refused_under_a_budget_and_nowhere_else(
    tmp_path: Path, database: Database
) -> None:
    async with worker(database, tmp_path) as one:
        nobody = call_of(key_with(), model="nobody.model-v1:0")
        with pytest.raises(Refusal) as refused:
            await one.hold(key_with(max_budget=Decimal(1)), entry=nobody)
        assert (refused.value.status, refused.value.code) == (400, "ServiceQuotaExceededException")
        assert "the price of nobody.model-v1:0 is not known" in refused.value.message
        await one.hold(key_with("cd" * 32, rpm_limit=5), entry=nobody)
        await one.hold(key_with("ef" * 32, soft_budget=Decimal(1)), entry=nobody)
    assert one.counted.refused == {("max_budget", False): 1}


async def test_a_shadow_limit_refuses_nobody_and_counts_what_it_would_have(tmp_path: Path, database: Database) -> None:
    key = key_with(rpm_limit=3, tpm_limit=10**6, shadow=("rpm_limit",))
    async with worker(database, tmp_path) as one:
        for _ in range(5):
            await one.call(key)
        hold = await one.hold(key)
        assert b"rpm" not in one.allowances.header_lines(hold, None)
    assert one.counted.refused == {("rpm_limit", True): 3}


async def test_a_key_that_nothing_limits_holds_nothing(tmp_path: Path, database: Database) -> None:
    async with worker(database, tmp_path) as one:
        hold = await one.hold(key_with())
        assert hold is UNLIMITED
        assert one.allowances.header_lines(hold, "anthropic.claude-x") == b""


async def test_a_client_that_leaves_while_it_waits_holds_nothing(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    key = key_with(max_parallel_requests=5)
    async with worker(database, tmp_path) as one:
        for delay in range(30):
            waiting = asyncio.create_task(one.hold(key_with(f"{delay:064x}", max_parallel_requests=5)))
            for _ in range(delay):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.result().release()
        holds = [await one.hold(key) for _ in range(5)]
        for hold in holds:
            hold.release()
        assert all(account.lease.reserved == 0 for account in one.allowances._plans.accounts())
    assert all(held == 0 for _, held, _ in (await accounts(reading)).values())


async def test_a_limit_that_is_raised_or_lowered_holds_for_the_next_call(tmp_path: Path, database: Database) -> None:
    async with workers(database, tmp_path, 2) as two:
        for most, expected in ((5, 5), (9, 4), (3, 0), (10, 1)):
            key = key_with(rpm_limit=most)
            assert sum([await admitted(two[number % 2], key) for number in range(8)]) == expected


async def test_a_body_that_is_not_read_is_bounded_by_its_model(tmp_path: Path, database: Database) -> None:
    key = key_with(max_budget=Decimal(100))
    async with worker(database, tmp_path) as one:
        hold = await one.allowances.acquire(key, call_of(key), CALL, None, 1000)
        # nova-micro: 128,000 tokens of input and 10,240 of output, in the dearest tier that the body could ask for
        assert hold.needs[3] == (128_000 * 35_000 + 10_240 * 140_000) * 7 // 4
        assert hold.needs[1] == 138_240
        hold.release()


async def test_far_from_a_limit_almost_no_call_asks_the_database(tmp_path: Path, database: Database) -> None:
    key = key_with(rpm_limit=10**6, tpm_limit=10**9, max_parallel_requests=1000, max_budget=Decimal(1000))
    async with workers(database, tmp_path, 2) as two:
        for one in two:
            await one.call(key)
        before = [one.allowances._desk.round_trips for one in two]
        for number in range(2000):
            await two[number % 2].call(key)
            if number % 50 == 0:
                await asyncio.sleep(0)  # blocks that are fetched ahead want a turn
        asked = sum(one.allowances._desk.round_trips for one in two) - sum(before)
    assert asked <= 2000 / 20


async def test_at_a_limit_no_call_asks_more_than_once(tmp_path: Path, database: Database) -> None:
    async with worker(database, tmp_path) as one:
        await one.call(key_with("00" * 32, rpm_limit=1))  # whatever is asked at first
        before = one.allowances._desk.round_trips
        key = key_with(rpm_limit=40)
        results = [await admitted(one, key) for _ in range(200)]
        asked = one.allowances._desk.round_trips - before
    assert sum(results) == 40
    assert asked <= 45


async def test_the_key_of_another_subject_is_another_count(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    async with worker(database, tmp_path) as one:
        assert [await admitted(one, key_with(KEY, rpm_limit=1)) for _ in range(2)] == [True, False]
        assert [await admitted(one, key_with("cd" * 32, rpm_limit=1)) for _ in range(2)] == [True, False]
    assert await reading.fetchval("SELECT count(*) FROM allowances") == 2
