"""Months come and go, prices come late, and the queries of ten million rows stay small."""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from passthrough.bedrock.usage import Usage
from passthrough.policy.ledger import CallIds, Entry
from passthrough.storage import ledger_partitions, ledger_rows, ledger_upkeep, reports
from passthrough.storage.database import Database
from passthrough.storage.ledger_rows import Wanted
from passthrough.storage.ledger_upkeep import Pruned, prune, prune_sums, reprice
from passthrough.storage.ledger_writer import LedgerWriter
from passthrough.storage.reports import Span

NOW = datetime(2026, 5, 15, 12, tzinfo=UTC)
ids: defaultdict[datetime, CallIds] = defaultdict(CallIds)  # they only grow, and tests go back in time


def call(at: datetime = NOW, **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "key_id": "ab" * 32,
        "user_id": "alice",
        "team_id": "red",
        "model": "m",
        "billed_model": "m",
        "tags": ("t",),
        "cost": Decimal("0.25"),
        "price_status": "priced",
    }
    return Entry(call_id=ids[at](at.timestamp()), started_at=at.timestamp(), **(known | fields))


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    opened = await database.connect()
    yield opened
    await opened.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[LedgerWriter]:
    opened = await database.connect()
    writer = LedgerWriter(opened)
    await writer.prepare()
    yield writer
    await opened.close()


async def months(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'ledger_calls'::regclass"
    )
    return sorted(row["name"].removeprefix("ledger_calls_") for row in rows)


async def test_months_are_made_ahead_and_for_a_backlog_but_not_for_a_clock_that_is_out(
    writer: LedgerWriter, connection: asyncpg.Connection
) -> None:
    calls = [call(), call(NOW - timedelta(days=40)), call(datetime(1999, 1, 1, tzinfo=UTC))]
    assert await writer.write(calls, NOW.timestamp()) == 3
    assert await months(connection) == ["2026_04", "2026_05", "2026_06", "2026_07", "default"]
    places = await connection.fetch("SELECT tableoid::regclass::text AS name FROM ledger_calls ORDER BY call_id")
    assert [row["name"] for row in places] == ["ledger_calls_default", "ledger_calls_2026_04", "ledger_calls_2026_05"]


async def test_a_month_that_is_made_late_takes_over_its_strays(
    writer: LedgerWriter, connection: asyncpg.Connection
) -> None:
    early = call(datetime(2030, 1, 1, tzinfo=UTC))
    await writer.write([early], NOW.timestamp())
    await ledger_partitions.make(connection, [date(2030, 1, 1)])
    assert await connection.fetchval("SELECT call_id::text FROM ledger_calls_2030_01") == early.call_id
    assert await connection.fetchval("SELECT count(*) FROM ledger_calls_default") == 0


async def test_a_month_that_cannot_be_made_now_holds_up_no_call(
    writer: LedgerWriter, connection: asyncpg.Connection
) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger_calls_default IN ACCESS SHARE MODE")  # as a long report does
        assert await writer.write([call()], NOW.timestamp()) == 1
    assert await months(connection) == ["default"]
    assert await writer.write([call()], NOW.timestamp() + 301) == 1
    assert await connection.fetchval("SELECT count(*) FROM ledger_calls_2026_05") == 2


async def test_every_moment_of_a_month_lies_within_its_bounds() -> None:
    for month in (date(2024, 2, 1), date(2026, 12, 1)):
        first, end = ledger_partitions.bounds(month)
        start = datetime(month.year, month.month, 1, tzinfo=UTC)
        last = ledger_partitions.add_months(month, 1)
        after = datetime(last.year, last.month, 1, tzinfo=UTC)
        assert first <= CallIds()(start.timestamp()) < end
        assert first <= CallIds()((after - timedelta(milliseconds=1)).timestamp()) < end
        assert CallIds()(after.timestamp()) >= end


async def test_pruning_drops_whole_months_and_what_only_they_referred_to(
    writer: LedgerWriter, connection: asyncpg.Connection
) -> None:
    march = datetime(2026, 3, 10, tzinfo=UTC)
    await writer.write([call(march, model="old", key_alias="old")], march.timestamp())
    await writer.write([call(datetime(1999, 1, 1, tzinfo=UTC), key_alias="stray")], NOW.timestamp())
    kept = [call(datetime(2026, 4, 20, tzinfo=UTC)), call()]
    await writer.write(kept, NOW.timestamp())
    gone = await prune(connection, date(2026, 4, 14))
    assert gone == Pruned(months=(date(2026, 3, 1),), strays=1)
    assert "2026_03" not in await months(connection)
    assert await connection.fetchval("SELECT to_regclass('ledger_calls_2026_03')") is None
    left = await connection.fetch("SELECT call_id::text, key_id FROM ledger ORDER BY call_id")
    assert [row["call_id"] for row in left] == [each.call_id for each in kept]
    assert await connection.fetchval("SELECT count(*) FROM ledger_routes WHERE model = 'old'") == 0
    assert await connection.fetchval("SELECT sum(spend) FROM ledger_daily") == 1
    assert await prune(connection, date(2026, 4, 14)) == Pruned(months=(), strays=0)


async def test_old_sums_are_dropped_and_what_they_cost_is_not(
    writer: LedgerWriter, connection: asyncpg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_upkeep, "_FOLD_BATCH", 2)
    await connection.execute("INSERT INTO customers (user_id) VALUES ('made')")
    days = [NOW - timedelta(days=days) for days in (100, 70, 69, 68, 0)]
    calls = [call(day, end_user=user) for day in days for user in ("made", "said")]
    await writer.write([*calls, call(days[0], cost=None, key_id="cd" * 32)], NOW.timestamp())
    counters = await connection.fetch("SELECT * FROM spend ORDER BY kind, subject")
    ever = await reports.spend_ever(database)
    assert await prune_sums(connection, date(2026, 5, 14)) == 5 + 3 * 4
    assert await prune_sums(connection, date(2026, 5, 14)) == 0
    assert await connection.fetch("SELECT * FROM spend ORDER BY kind, subject") == counters
    assert await reports.spend_ever(database) == ever == Decimal("2.5")
    rows = await connection.fetch("SELECT day, key_id, calls, spend FROM ledger_daily ORDER BY day")
    assert [(row["day"], row["calls"], row["spend"]) for row in rows] == [
        (date(1970, 1, 1), 0, Decimal(2)),
        (NOW.date(), 2, Decimal("0.5")),
    ]
    labels = await connection.fetch("SELECT value, spend FROM ledger_daily_labels WHERE day < '2026-05-01' ORDER BY 1")
    assert [tuple(row) for row in labels] == [("made", Decimal(1)), ("t", Decimal(2))]


async def test_a_price_that_comes_late_fills_the_row_and_moves_every_sum(
    writer: LedgerWriter, connection: asyncpg.Connection
) -> None:
    unknown: dict[str, Any] = {"cost": None, "price_status": "unknown_model", "input_tokens": 100, "tier": "flex"}
    old = call(NOW - timedelta(days=20), **unknown)
    missing = [call(**unknown), call(**unknown, units={"pages": 2.0}), call(**unknown | {"billed_model": "other"})]
    await writer.write([old, call(), call(cost=None, price_status="not_metered"), *missing], NOW.timestamp())

    def price(entry: Entry, usage: Usage) -> None:
        if entry.billed_model == "m":
            assert usage.tier == "flex"
            entry.cost = Decimal(usage.input_tokens or 0) / 1000 + Decimal(usage.units.get("pages", 0))
            entry.price_status = "priced"

    done = await reprice(connection, price, (NOW - timedelta(days=1)).timestamp())
    assert (done.unpriced, done.priced, done.cost) == (3, 2, Decimal("2.2"))
    spent = await connection.fetch("SELECT kind, spend FROM spend")
    assert {row["kind"]: row["spend"] for row in spent} == dict.fromkeys(
        ("key", "user", "team", "team_member", "tag"), Decimal("2.45")
    )
    day = await connection.fetchrow("SELECT * FROM ledger_daily WHERE day = '2026-05-15' AND model = 'm'")
    assert (day["calls"], day["unpriced_calls"], day["input_tokens"], day["spend"]) == (4, 0, 200, Decimal("2.45"))
    again = await reprice(connection, price, (NOW - timedelta(days=1)).timestamp())
    assert (again.unpriced, again.priced) == (1, 0)


async def test_a_row_is_small(writer: LedgerWriter, connection: asyncpg.Connection) -> None:
    """The worst usual case: every field set, with ids as long as real ones."""
    agent = "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.1.0-18-amd64 md/arch#x86_64 lang/python#3.11.7"
    calls = [
        call(
            NOW + timedelta(seconds=second),
            duration_ms=1234,
            ttfb_ms=250,
            key_alias="a-service-of-ours",
            end_user=f"customer-{second}",
            tags=("production", "search"),
            session_id=str(uuid.uuid4()),
            client_ip="10.123.123.123",
            user_agent=agent,
            service="bedrock-runtime",
            operation="InvokeModelWithResponseStream",
            model="us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            billed_model="anthropic.claude-sonnet-4-5-20250929-v1:0",
            region="us-east-1",
            identity="default",
            status=200,
            upstream_request_id=str(uuid.uuid4()),
            client_invocation_id=str(uuid.uuid4()),
            attempt=1,
            request_bytes=123_456,
            response_bytes=98_765,
            input_tokens=12_345,
            output_tokens=6_789,
            cache_read_tokens=50_000,
            cache_write_tokens=1_000,
            cache_write_1h_tokens=0,
            usage_source="stream",
            cost=Decimal("0.1234567890123"),
            stream=True,
            metadata='{"job": "nightly", "agent_id": "reviewer"}',
        )
        for second in range(3000)
    ]
    await writer.write(calls, NOW.timestamp())
    row = await connection.fetchval("SELECT avg(pg_column_size(call.*)) FROM ledger_calls call")
    with_indexes = await connection.fetchval("SELECT pg_total_relation_size('ledger_calls_2026_05')") / len(calls)
    assert row < 400
    assert with_indexes < 700  # with pages that are still filling, and all four of its indexes
    usual = [
        call(
            NOW + timedelta(days=31, seconds=n),
            status=200,
            upstream_request_id=str(uuid.uuid4()),
            client_invocation_id=str(uuid.uuid4()),
            client_ip="10.0.0.1",
            tags=(),
        )
        for n in range(3000)
    ]
    await writer.write(usual, NOW.timestamp())
    assert await connection.fetchval("SELECT pg_total_relation_size('ledger_calls_2026_06')") / len(usual) < 500


async def plan_of(connection: asyncpg.Connection, query: Any) -> str:
    text = str(query.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
    return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {text}"))


async def fill(connection: asyncpg.Connection) -> None:
    """A month of 60,000 calls of 200 callers, as statistics see it."""
    await ledger_partitions.make(connection, [date(2026, 5, 1)])
    first, _ = ledger_partitions.bounds(date(2026, 5, 1))
    await connection.execute(FILL.replace("FIRST", first))


FILL = """
    INSERT INTO ledger_callers (digest, key_id)
    SELECT md5(n::text)::uuid, n::text FROM generate_series(1, 200) n;
    INSERT INTO ledger_routes (digest, model) VALUES (md5('m')::uuid, 'm');
    INSERT INTO ledger_calls (call_id, started_at, request_bytes, response_bytes, caller, route, duration_ms,
                              status, stream, outcome, price_status, usage_source)
    SELECT (substr('FIRST', 1, 9) || lpad(to_hex(n), 4, '0') || substr('FIRST', 14))::uuid, now(), 1, 1,
           1 + n % 200, 1, 1, 200, false, 'ok', 'priced', 'body'
    FROM generate_series(1, 60000) n;
    ANALYZE ledger_calls;
"""


async def test_the_newest_calls_are_found_by_an_index_in_its_order(connection: asyncpg.Connection) -> None:
    await fill(connection)
    everything = ledger_rows.newest([], None, offset=0, limit=100)
    of_one = ledger_rows.newest([], [17], offset=0, limit=100)
    for query in (everything, of_one):
        plan = await plan_of(connection, query)
        assert "Seq Scan on ledger_calls_2026" not in plan
        assert "Bitmap" not in plan
    assert "ledger_calls_2026_05_caller_call_id_idx" in await plan_of(connection, of_one)


async def test_reports_read_roll_ups_and_not_one_call(connection: asyncpg.Connection) -> None:
    span = Span(first=date(2026, 5, 1), last=date(2026, 5, 31))
    mine = Span(first=span.first, last=span.last, only={"key_id": ["ab" * 32]})
    queries = [
        reports.sums_query(span, ()),
        reports.sums_query(span, ("day",)),
        reports.sums_query(span, ("day", "team_id", "key_id", "model"), limit=10),
        reports.sums_query(mine, ("day", "model")),
        reports.label_sums_query(span, "tag", ("value",), limit=10),
        reports.label_sums_query(span, "customer", ("day", "value", "model")),
    ]
    for query in queries:
        plan = await plan_of(connection, query)
        assert "ledger_daily" in plan
        assert "ledger_calls" not in plan


async def test_what_is_asked_of_a_hundred_callers_gives_what_is_asked_of_one(
    writer: LedgerWriter, database: Database
) -> None:
    calls = [call(NOW + timedelta(seconds=n), user_agent=f"agent {n % 100}") for n in range(300)]
    await writer.write(calls, NOW.timestamp())
    span = {"since": NOW.timestamp() - 1, "until": NOW.timestamp() + 1000}
    rows, total = await ledger_rows.page(database, Wanted(**span, team_id="red"), offset=10, limit=20)
    assert total == 300
    assert [str(row["call_id"]) for row in rows] == [each.call_id for each in reversed(calls)][10:30]
