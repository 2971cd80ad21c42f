"""Processes are killed, PostgreSQL comes and goes, disks are damaged: every acknowledged call is one row."""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import asyncpg
import msgspec
import pytest

from passthrough.errors import UserError
from passthrough.policy.ledger import CallIds, Entry
from passthrough.storage.database import Database, open_database
from passthrough.storage.embedded import embedded
from passthrough.storage.journal import MIB, Journal
from passthrough.storage.ledger import Ledger
from passthrough.storage.migrations import migrate

ids = CallIds()
COST = Decimal("0.0000000001")

# Appends calls until it is killed; a line of its output is what a client of ours has in hand.
WORKER = """
import asyncio, os, sys, time
from decimal import Decimal
from pathlib import Path
from passthrough.policy.ledger import Entry, uuid7
from passthrough.storage.database import open_database
from passthrough.storage.ledger import Ledger

async def work(directory, url):
    async with open_database(url) as database, Ledger(Path(directory), database.connect) as ledger:
        while True:
            for _ in range(20):
                now = time.time()
                entry = Entry(call_id=uuid7(now), started_at=now, key_id="k" * 64, cost=Decimal("0.0000000001"))
                word = entry.call_id.encode() + b"\\n"
                ledger.append_soon(entry, lambda problem, word=word: problem or os.write(1, word))
            await asyncio.sleep(0.001)

asyncio.run(work(*sys.argv[1:]))
"""


def call(cost: Decimal = COST) -> Entry:
    now = time.time()
    return Entry(call_id=ids(now), started_at=now, key_id="k" * 64, cost=cost)


async def kill_after(seconds: float, directory: Path, url: str) -> list[str]:
    """Run a worker, kill it `seconds` after its first call; return what it acknowledged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(directory), url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    first = await process.stdout.readline()
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(seconds)
    process.kill()
    lines = (first + await reading).decode()
    await process.wait()
    return lines[: lines.rfind("\n") + 1].split()


async def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # what other processes leave on a disk cannot be awaited
            await asyncio.sleep(0.02)


def nothing_is_left(directory: Path) -> bool:
    return not list(directory.glob("*/*.calls"))


async def stored(url: str) -> tuple[set[str], Decimal]:
    """The calls in the ledger and the sum of their costs, once it is certain that all sums agree."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT call_id::text, cost FROM ledger")
        cost = sum((row["cost"] for row in rows), Decimal(0))
        assert await connection.fetchval("SELECT spend FROM spend WHERE kind = 'key'") == cost
        assert await connection.fetchval("SELECT sum(spend) FROM ledger_daily") == cost
        assert await connection.fetchval("SELECT sum(calls) FROM ledger_daily") == len(rows)
        return {row["call_id"] for row in rows}, cost
    finally:
        await connection.close()


async def test_workers_that_are_killed_at_any_moment_lose_no_acknowledged_call_and_double_none(
    tmp_path: Path, database_url: str
) -> None:
    moments = random.Random(7)  # noqa: S311  # moments of death, no secret
    directory = tmp_path / "journal"
    acknowledged: list[str] = []
    for _ in range(2):  # the second generation adopts what the first one left, and is killed while it does
        lives = [kill_after(moments.uniform(0.05, 0.9), directory, database_url) for _ in range(3)]
        acknowledged += [each for life in await asyncio.gather(*lives) for each in life]
    async with open_database(database_url) as database, Ledger(directory, database.connect) as successor:
        await eventually(lambda: nothing_is_left(directory))
        assert successor.state().adopted_calls > 0
        assert successor.state().damaged_bytes == 0
    found, cost = await stored(database_url)
    assert len(acknowledged) == len(set(acknowledged)) > 100
    assert set(acknowledged) <= found
    # Each of the six may have been killed between the append of 20 calls and the word of them.
    assert len(found) - len(acknowledged) <= 6 * 20
    assert cost == COST * len(found)


async def test_siblings_adopt_what_a_killed_worker_left_once(tmp_path: Path, database_url: str) -> None:
    async with open_database(database_url) as database:
        one = Ledger(tmp_path, database.connect)
        other = Ledger(tmp_path, database.connect)
        left = Journal(tmp_path, name="killed", max_bytes=64 * MIB)
        calls = [call() for _ in range(1000)]
        for each in calls:
            left.append(msgspec.msgpack.encode(each))
        left.close()
        async with one, other:
            await eventually(lambda: nothing_is_left(tmp_path))
            assert one.state().adopted_calls + other.state().adopted_calls == 1000
    assert (await stored(database_url))[0] == {each.call_id for each in calls}


async def test_calls_go_on_while_postgresql_is_away_and_are_shipped_in_order_when_it_is_back(tmp_path: Path) -> None:
    data, directory = tmp_path / "data", tmp_path / "journal"
    running = contextlib.ExitStack()
    with running:
        url = await asyncio.to_thread(running.enter_context, embedded(data))
        await migrate(url)
        async with open_database(url) as database, Ledger(directory, database.connect) as ledger:
            calls = [call() for _ in range(10)]
            for each in calls:
                ledger.append(each)
            await ledger.flush(10)
            await asyncio.to_thread(running.close)
            while_away = [call() for _ in range(2000)]
            for each in while_away:
                ledger.append(each)
            assert ledger.writable()
            await eventually(lambda: ledger.state().database_problem is not None)
            await asyncio.to_thread(running.enter_context, embedded(data))
            await ledger.flush(20)
            assert ledger.state().database_problem is None
            connection = await database.connect()
            order = await connection.fetch(
                "SELECT call_id::text FROM ledger_calls ORDER BY xmin::text::bigint, call_id"
            )
            await connection.close()
        expected = [each.call_id for each in calls + while_away]
        assert [row["call_id"] for row in order] == expected
        assert len((await stored(url))[0]) == 2010


async def test_an_outage_of_the_database_is_one_line_and_a_fault_of_ours_one_traceback(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Queue[None]()

    async def connect() -> asyncpg.Connection:
        tried.put_nowait(None)
        if not answers:
            raise ConnectionRefusedError("nobody listens")
        return await answers[0]()

    answers: list[Callable[[], Awaitable[asyncpg.Connection]]] = []
    async with asyncio.timeout(20), Ledger(tmp_path, connect) as ledger:
        for _ in range(3):
            await tried.get()
        [line] = caplog.records
        assert (line.levelname, line.exc_info) == ("WARNING", None)
        assert "nobody listens" in line.__dict__["cause"]
        caplog.clear()

        connection = await database.connect()
        await connection.execute("ALTER TABLE ledger_calls RENAME TO elsewhere")
        answers.append(database.connect)
        ledger.append(call())
        for _ in range(4):  # connections are to be had, and each ends in the same way
            await tried.get()
        [line] = caplog.records
        assert (line.levelname, line.exc_info is None) == ("ERROR", False)
        await connection.execute("ALTER TABLE elsewhere RENAME TO ledger_calls")
        await connection.close()
        await ledger.flush(20)
        assert ledger.state().database_problem is None


async def test_a_full_journal_refuses_until_the_database_took_what_was_waiting(
    tmp_path: Path, database: Database
) -> None:
    reachable = asyncio.Event()

    async def connect() -> asyncpg.Connection:
        await reachable.wait()
        return await database.connect()

    async with Ledger(tmp_path, connect, max_bytes=MIB) as ledger:
        appended = 0
        while ledger.writable():
            ledger.append(call())
            appended += 1
        assert "full" in (ledger.problem() or "")
        reachable.set()
        await ledger.flush(30)
        assert ledger.writable()
        assert ledger.problem() is None
        assert ledger.state().stored_calls == appended


async def test_a_damaged_segment_gives_what_is_whole_and_is_kept_for_a_person(
    tmp_path: Path, database_url: str
) -> None:
    left = Journal(tmp_path, name="damaged", max_bytes=64 * MIB)
    calls = [call() for _ in range(300)]
    for each in calls:
        left.append(msgspec.msgpack.encode(each))
    path = left.segments[0].path
    left.close()
    damaged = bytearray(path.read_bytes())
    hit = damaged.index(calls[150].call_id.encode())
    damaged[hit : hit + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(damaged)
    async with open_database(database_url) as database, Ledger(tmp_path, database.connect) as ledger:
        await eventually(lambda: nothing_is_left(tmp_path))
        assert ledger.state().damaged_bytes > 0
    assert (await stored(database_url))[0] == {each.call_id for each in calls} - {calls[150].call_id}
    assert [kept.name for kept in tmp_path.iterdir()] == ["damaged-00000001.calls.damaged"]


async def test_what_is_no_call_is_put_aside_and_holds_up_nothing(tmp_path: Path, database_url: str) -> None:
    left = Journal(tmp_path, name="01", max_bytes=64 * MIB)
    good = call()
    for payload in (b"\xc1 no msgpack", msgspec.msgpack.encode(["not a uuid", 0.0]), msgspec.msgpack.encode(good)):
        left.append(payload)
    left.close()
    async with open_database(database_url) as database, Ledger(tmp_path, database.connect) as ledger:
        await eventually(lambda: nothing_is_left(tmp_path))
        assert ledger.state().rejected_calls == 2
    assert (await stored(database_url))[0] == {good.call_id}
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 2


async def test_a_data_directory_that_cannot_be_written_is_said_in_one_sentence(
    tmp_path: Path, database: Database
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another data directory"):
        await Ledger(tmp_path / "file", database.connect).__aenter__()


async def test_a_disk_that_fails_is_a_reason_not_to_be_ready(tmp_path: Path, database: Database) -> None:
    async with Ledger(tmp_path, database.connect) as ledger:
        assert ledger.problem() is None
        own = next(tmp_path.iterdir())
        own.rename(tmp_path / "gone")
        await eventually(lambda: not ledger.writable())
        assert "cannot be" in (ledger.problem() or "")
        (tmp_path / "gone").rename(own)
        await eventually(ledger.writable)
