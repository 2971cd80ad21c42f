"""Workers that die, a PostgreSQL that is away, thresholds that are crossed: what is given back, kept and told."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.errors import Refusal, Unavailable
from passthrough.policy.allowance_events import Event
from passthrough.storage.allowances import Choices
from passthrough.storage.allowances_book import Book, orphans
from passthrough.storage.database import Database
from tests.storage.allowance_victim import LIMITS
from tests.storage.allowance_workers import KEY, Worker, key_with, worker, workers

SPENT = Decimal(1_750_000)  # picodollars of one call of `Worker.call`


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


async def accounts(sql: asyncpg.Connection) -> dict[int, tuple[Decimal, Decimal, Decimal]]:
    rows = await sql.fetch("SELECT kind, used, held, lost FROM allowances")
    return {row["kind"]: (row["used"], row["held"], row["lost"]) for row in rows}


async def until(condition: Any) -> None:  # a coroutine function that tells
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(0.02)


async def test_what_a_killed_worker_held_comes_back_but_for_what_its_calls_may_have_used(
    tmp_path: Path, database: Database, database_url: str, sql: asyncpg.Connection
) -> None:
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.allowance_victim", database_url, str(tmp_path), "7", "3"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert victim.stdout is not None
    tokens, money = map(int, (await victim.stdout.readline()).split())
    victim.kill()
    await victim.wait()
    key = key_with(**LIMITS)
    async with worker(database, tmp_path, recording=True) as heir:
        # calls at one time are over with their worker, and so is what it had leased and not used
        holds = [await heir.hold(key) for _ in range(10)]
        for hold in holds:
            hold.release()

        async def buried() -> bool:
            return int(await sql.fetchval("SELECT count(*) FROM allowance_holders")) == 1

        await until(buried)
    assert not list((tmp_path / "leases").iterdir())
    assert await accounts(sql) == {
        0: (10, 0, 0),
        1: (7 * 20 + 3 * tokens, 0, 0),
        2: (0, 0, 0),
        3: (7 * SPENT, 0, 3 * money),
    }
    assert await sql.fetchval("SELECT spend FROM spend WHERE kind = 'key'") == (7 * SPENT).scaleb(-12)


def test_a_book_is_as_its_worker_left_it_and_nobody_elses_while_it_lives(tmp_path: Path) -> None:
    book = Book(tmp_path, "holder")
    places = [book.place(number, 100 + number) for number in range(1, 10_001)]
    cells, slot = places[4]
    cells[slot] += 2**40
    book.clear(places[6])
    book.rename(places[8], 77_777)
    assert list(orphans(tmp_path)) == []
    book.close(remove=False)
    (orphan,) = orphans(tmp_path)
    figures = orphan.figures()
    assert list(orphans(tmp_path)) == []  # it is being dealt with
    orphan.release(remove=True)
    assert list(tmp_path.iterdir()) == []
    expected = {number: 100 + number for number in range(1, 10_001)} | {5: 105 + 2**40, 77_777: 109}
    del expected[7], expected[9]
    assert (orphan.holder, figures) == ("holder", expected)


class Switch:
    """The way to PostgreSQL, which can be cut."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: list[asyncpg.Connection] = []
        self.cut = False

    async def connect(self) -> asyncpg.Connection:
        if self.cut:
            raise ConnectionRefusedError
        connection = await self._database.connect()
        self._open.append(connection)
        return connection

    def off(self) -> None:
        self.cut = True
        for connection in self._open:
            connection.terminate()


@contextlib.asynccontextmanager
async def cut_off(database: Database, data_dir: Path, **options: Any) -> AsyncIterator[tuple[Worker, Switch]]:
    switch = Switch(database)
    async with worker(database, data_dir, connect=switch.connect, **options) as one:
        yield one, switch


async def calls_until_refused(one: Worker, key: Any) -> tuple[int, Refusal]:
    for count in range(1000):
        try:
            await one.call(key)
        except Refusal as refusal:
            return count, refusal
    raise AssertionError("never refused")


async def back(one: Worker, switch: Switch) -> None:
    switch.cut = False
    while not one.allowances._desk.open:  # noqa: ASYNC110  # nobody is told
        await asyncio.sleep(0.02)


async def test_without_postgresql_leases_go_on_and_then_budgets_are_closed(tmp_path: Path, database: Database) -> None:
    key = key_with(max_budget=Decimal("0.01"))
    async with cut_off(database, tmp_path, recording=True) as (one, switch):
        await one.call(key)
        switch.off()
        count, refusal = await calls_until_refused(one, key)
        assert count > 10
        assert isinstance(refusal, Unavailable)
        await back(one, switch)
        await one.call(key)


async def test_without_postgresql_rates_are_open_to_the_share_of_a_worker(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(rpm_limit=100)
    async with worker(database, tmp_path), cut_off(database, tmp_path) as (one, switch):
        for _ in range(10):
            await one.call(key)
        leased = one.allowances._plans._accounts["key", KEY, 0, "1m", ""].lease.free
        switch.off()
        count, refusal = await calls_until_refused(one, key)
        assert count == leased + 50  # two workers share
        assert refusal.status == 429
        await back(one, switch)

        async def told() -> bool:
            return bool(await sql.fetchval("SELECT used = $1 FROM allowances", 10 + leased + 50))

        await until(told)
        assert (await calls_until_refused(one, key))[0] == 100 - 10 - leased - 50


async def test_of_one_window_a_worker_takes_its_share_once_however_often_postgresql_goes(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    key = key_with(rpm_limit=100)
    async with worker(database, tmp_path), cut_off(database, tmp_path) as (one, switch):
        await one.call(key)
        switch.off()
        first = (await calls_until_refused(one, key))[0]
        again = []
        for _ in range(2):
            await back(one, switch)
            switch.off()
            again.append((await calls_until_refused(one, key))[0])
        assert first >= 50
        assert sum(again) <= 99 - first  # at most what PostgreSQL has given meanwhile
        await back(one, switch)

        async def told() -> bool:
            return bool(await sql.fetchval("SELECT used = $1 FROM allowances", 1 + first + sum(again)))

        await until(told)


async def test_without_postgresql_rates_can_be_closed_and_budgets_open(
    tmp_path: Path, database: Database, sql: asyncpg.Connection
) -> None:
    choices = Choices(rates="closed", budgets="open")
    key = key_with(max_budget=Decimal("0.0004"))
    async with cut_off(database, tmp_path, choices=choices, recording=True) as (one, switch):
        await one.call(key)
        switch.off()
        with pytest.raises(Unavailable):
            await one.hold(key_with("cd" * 32, rpm_limit=5))
        count, refusal = await calls_until_refused(one, key)
        assert refusal.status == 400
        assert 0 < count * SPENT <= Decimal("0.0005").scaleb(12)
        await back(one, switch)
        assert one.ledger is not None
        await one.ledger.flush(15)
    assert (await accounts(sql))[3] == ((count + 1) * SPENT, 0, 0)


async def test_each_threshold_is_told_once_and_until_the_webhook_has_it(
    tmp_path: Path, database: Database, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Event] = []
    refusing = True

    async def send(event: Event) -> bool:
        got.append(event)
        return not refusing

    await sql.execute("INSERT INTO keys (key_id, key_name, key_alias) VALUES ($1, 'sk-...', 'par')", KEY)
    # each call costs 1.75 microdollars
    key = key_with(max_budget=Decimal("0.0007"), soft_budget=Decimal("0.0001"), budget_duration="1d")
    async with workers(database, tmp_path, 3, recording=True, send=send) as three:
        for number in range(450):
            with contextlib.suppress(Refusal):
                await three[number % 3].call(key)
            if number in {320, 449}:
                for one in three:
                    assert one.ledger is not None
                    await one.ledger.flush(10)

        async def told() -> bool:
            return int(await sql.fetchval("SELECT count(*) FROM allowance_events WHERE told_at IS NOT NULL")) >= 2

        await until(told)
        refusing = False
        for one in three:
            assert one.ledger is not None
            await one.ledger.flush(10)
            with pytest.raises(Refusal):
                await one.hold(key)

        async def done() -> bool:
            await sql.execute("UPDATE allowance_events SET due_at = now() WHERE done_at IS NULL")
            three[0].allowances._exhausted(0, 0)  # wakes whoever tells
            return int(await sql.fetchval("SELECT count(*) FROM allowance_events WHERE done_at IS NULL")) == 0

        await until(done)
        counted = sum((one.counted.crossed for one in three), start=type(three[0].counted.crossed)())
    events = await sql.fetch("SELECT threshold, tries FROM allowance_events ORDER BY id")
    assert [event["threshold"] for event in events] == ["soft", "75", "90", "100"]
    assert counted == {"soft": 1, "75": 1, "90": 1, "100": 1}
    assert len([record for record in caplog.records if "threshold" in record.getMessage()]) == 4
    assert {event.number for event in got} == {1, 2, 3, 4}
    assert max(event["tries"] for event in events) > 1
    assert got[0].fields()["limit"] == "0.0007"
    assert {(event.name, event.fields()["key_alias"]) for event in got} == {(KEY, "par")}
    assert got[0].fields()["kind"] == "usd"
