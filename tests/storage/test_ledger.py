import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.policy.ledger import CallIds, Entry
from passthrough.storage import ledger as ledger_module
from passthrough.storage.database import Database
from passthrough.storage.ledger import Ledger

KEY = "ab" * 32
ids = CallIds()


def call(now: float = 1_770_000_000.0, **fields: Any) -> Entry:
    known = {
        "key_id": KEY,
        "user_id": "alice",
        "team_id": "red",
        "service": "bedrock-runtime",
        "operation": "Converse",
        "model": "us.amazon.nova-lite-v1:0",
        "billed_model": "amazon.nova-lite-v1:0",
        "region": "us-east-1",
        "status": 200,
        "input_tokens": 10,
        "output_tokens": 20,
        "usage_source": "body",
        "cost": Decimal("0.0000054"),
        "price_status": "priced",
    }
    return Entry(call_id=ids(now), started_at=now, **(known | fields))


@pytest.fixture
async def reading(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


async def spent(reading: asyncpg.Connection) -> dict[tuple[str, str], Decimal]:
    rows = await reading.fetch("SELECT kind, subject, spend, total_spend FROM spend")
    assert all(row["spend"] == row["total_spend"] for row in rows)
    return {(row["kind"], row["subject"]): row["spend"] for row in rows}


async def test_a_call_is_read_as_it_was_written(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    written = call(
        duration_ms=1234,
        ttfb_ms=300,
        key_alias="ci",
        end_user="customer-1",
        tags=("prod", "eu"),
        session_id="s-1",
        client_ip="10.0.0.1",
        user_agent="Boto3/1.44",
        identity="default",
        error_type=None,
        upstream_request_id=str(uuid.uuid4()),
        client_invocation_id=str(uuid.uuid4()),
        attempt=1,
        request_bytes=100,
        response_bytes=2**33,
        cache_read_tokens=1,
        cache_write_tokens=2,
        cache_write_1h_tokens=1,
        cost=Decimal("0.00000010000000001"),
        outcome="client_gone",
        stream=True,
        metadata='{"job": "nightly"}',
    )
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger.append(written)
        await ledger.flush(10)
        row = await reading.fetchrow("SELECT * FROM ledger")
    for name in Entry.__struct_fields__:
        if name in {"units", "by_model", "charges"}:
            continue
        found = row[name]
        if name == "call_id":
            found = str(found)
        if name == "tags":
            found = tuple(found)
        expected = getattr(written, name)
        if name == "started_at":
            expected = datetime.fromtimestamp(expected, UTC)
        assert found == expected, name


async def test_counters_and_roll_ups_move_by_exactly_what_was_inserted(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    calls = [
        call(cost=Decimal("0.1"), tags=("a", "b", "a"), end_user="c1"),
        call(cost=Decimal("0.02"), tags=("b",)),
        call(cost=None, price_status="unknown_model", billed_model="new.model"),
        call(
            cost=None,
            price_status="not_metered",
            outcome="refused",
            model="typed by a user",
            billed_model="typed by a user",
            tags=("typed too",),
            end_user="typed as well",
        ),
    ]
    async with Ledger(tmp_path, database.connect) as ledger:
        for each in calls:
            ledger.append(each)
        await ledger.flush(10)
    assert await spent(reading) == {
        ("key", KEY): Decimal("0.12"),
        ("user", "alice"): Decimal("0.12"),
        ("team", "red"): Decimal("0.12"),
        ("team_member", "red/alice"): Decimal("0.12"),
        ("customer", "c1"): Decimal("0.1"),
        ("tag", "a"): Decimal("0.1"),
        ("tag", "b"): Decimal("0.12"),
    }
    days = await reading.fetch(
        "SELECT model, calls, failed_calls, unpriced_calls, input_tokens, spend FROM ledger_daily"
    )
    assert {tuple(day) for day in days} == {
        ("amazon.nova-lite-v1:0", 2, 0, 0, 20, Decimal("0.12")),
        ("new.model", 1, 0, 1, 10, 0),
        ("", 1, 1, 0, 10, 0),
    }
    labels = await reading.fetch("SELECT label, value, calls, spend FROM ledger_daily_labels")
    assert {tuple(label) for label in labels} == {
        ("customer", "c1", 1, Decimal("0.1")),
        ("tag", "a", 1, Decimal("0.1")),
        ("tag", "b", 2, Decimal("0.12")),
    }


async def test_a_batch_that_is_sent_twice_is_stored_once(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    twice = [call(cost=Decimal("0.5")) for _ in range(300)]
    for directory in ("one", "other"):
        async with Ledger(tmp_path / directory, database.connect) as ledger:
            for each in twice:
                ledger.append(each)
            await ledger.flush(10)
    assert await reading.fetchval("SELECT count(*) FROM ledger") == 300
    assert (await spent(reading))["key", KEY] == 150


async def test_two_processes_that_ship_at_once_lose_and_double_nothing(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    shared = [call(cost=Decimal("0.01"), tags=(f"t{number % 7}",)) for number in range(500)]
    async with Ledger(tmp_path, database.connect) as one, Ledger(tmp_path, database.connect) as other:
        for each, again in zip(shared, reversed(shared), strict=True):
            one.append(each)
            other.append(again)
        await asyncio.gather(one.flush(20), other.flush(20))
    assert await reading.fetchval("SELECT count(*) FROM ledger") == 500
    assert (await spent(reading))["key", KEY] == 5


async def test_a_clean_end_leaves_nothing_on_the_disk(tmp_path: Path, database: Database) -> None:
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger.append(call())
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # in an async test, ruff wants no Path call


async def test_workers_tell_of_the_journal_what_adds_up_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_INSPECT_SECONDS", 0.05)
    monkeypatch.setattr(ledger_module, "_LAST_SHIPMENT_SECONDS", 0.1)

    async def away() -> asyncpg.Connection:
        raise ConnectionRefusedError

    async with Ledger(tmp_path, away) as dead:
        dead.append(call())
    async with Ledger(tmp_path, away) as one, Ledger(tmp_path, away) as other:
        one.append(call())
        other.append(call())
        on_disk = sum(path.stat().st_size for path in tmp_path.glob("*/*.calls"))
        await asyncio.sleep(0.5)
        assert one.state().journal_bytes + other.state().journal_bytes == on_disk


async def test_a_call_that_the_database_refuses_keeps_no_other_out(
    tmp_path: Path, database: Database, reading: asyncpg.Connection
) -> None:
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger.append(call())
        sizes = {"request_bytes": 2**40, "response_bytes": 2**33}
        ledger.append(call(end_user="nul\x00", metadata='{"bad": "\\u0000"}', attempt=2**40, status=2**20, **sizes))
        ledger.append(call(user_agent="bytes that were no UTF-8: \udcff"))
        ledger.append(call(end_user=os.urandom(4000).hex()))
        ledger.append(call(team_id="much too long for an index " + os.urandom(1500).hex()))
        ledger.append(call())
        await ledger.flush(10)
        assert ledger.state().rejected_calls == 0
    assert await reading.fetchval("SELECT count(*) FROM ledger") == 6
    [cleaned] = await reading.fetch("SELECT * FROM ledger WHERE end_user = $1", "nul\N{REPLACEMENT CHARACTER}")
    assert (cleaned["attempt"], cleaned["status"], {name: cleaned[name] for name in sizes}) == (None, 0, sizes)


async def test_of_a_call_that_names_too_much_only_what_is_too_much_is_left_out(
    tmp_path: Path, database: Database, reading: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    tags = tuple(f"{number:03}" + "t" * 497 for number in range(200))
    said = {"metadata": '{"job": "nightly"}', "session_id": "s" * 512, "units": {"images": 2.0}}
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger.append(call(tags=tags, model="m" * 9000, **said))
        ledger.append(call(metadata=json.dumps({"a": "x" * 5000}), tags=("kept",)))
        await ledger.flush(10)
        assert ledger.state().rejected_calls == 0
    long, other = await reading.fetch("SELECT * FROM ledger ORDER BY call_id")
    assert 120 < len(long["tags"]) < 131  # of 500 bytes, in 64 KiB
    assert tuple(long["tags"]) == tags[: len(long["tags"])]
    assert (long["metadata"], long["session_id"], long["model"]) == (said["metadata"], said["session_id"], "m" * 512)
    assert json.loads(long["usage_details"])["units"] == {"images": 2.0}
    assert (other["metadata"], other["tags"]) == (None, ["kept"])
    assert [record.tags for record in caplog.records if "left out" in record.message] == [200 - len(long["tags"])]
