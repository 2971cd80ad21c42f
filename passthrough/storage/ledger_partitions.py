"""The months of `ledger_calls`: made ahead, detached and dropped when they are old.

A partition is named `ledger_calls_YYYY_MM` and holds the ids of that month (UTC). The default partition is a
net for ids from a clock that is far out, and for a month that nobody made in time: its rows move when it is made.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime

import asyncpg

from passthrough.policy.ledger import first_call_id

MONTHS_AHEAD = 2
OLDEST_MONTHS = 24  # older ids than that are not a backlog but a clock that is out
_LOCK = 0x70617373_6C646772  # "passldgr": shippers make months one at a time


def partition_name(month: date) -> str:
    return f"ledger_calls_{month:%Y_%m}"


def add_months(month: date, count: int) -> date:
    years, index = divmod(month.month - 1 + count, 12)
    return date(month.year + years, index + 1, 1)


def month_of(moment: float) -> date:
    """Return the first day of the month (UTC) of a moment in seconds since 1970."""
    day = datetime.fromtimestamp(moment, UTC)
    return date(day.year, day.month, 1)


def months_to_keep_ready(now: float) -> list[date]:
    return [add_months(month_of(now), ahead) for ahead in range(MONTHS_AHEAD + 1)]


def is_plausible(month: date, now: float) -> bool:
    this = month_of(now)
    return add_months(this, -OLDEST_MONTHS) <= month <= add_months(this, MONTHS_AHEAD)


def bounds(month: date) -> tuple[str, str]:
    """Return the first id of the month and the first one after it."""
    following = add_months(month, 1)
    return first_id(month), first_id(following)


def first_id(day: date) -> str:
    """Return what no id of the day (UTC) or later sorts below."""
    return first_call_id(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


async def make(connection: asyncpg.Connection, months: Iterable[date]) -> None:
    """Make the partitions that are missing, and take their rows out of the default partition."""
    for month in sorted(months):
        async with connection.transaction():
            # Whoever reads the ledger holds its default partition; behind us would queue all others.
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", partition_name(month)):
                await _make_one(connection, month)


async def _make_one(connection: asyncpg.Connection, month: date) -> None:
    name, (first, end) = partition_name(month), bounds(month)
    # ATTACH instead of PARTITION OF: it does not lock out those who read and insert.
    await connection.execute(f"""
        CREATE TABLE {name} (LIKE ledger_calls INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
        WITH strayed AS (
            DELETE FROM ledger_calls_default WHERE call_id >= '{first}' AND call_id < '{end}' RETURNING *
        ) INSERT INTO {name} SELECT * FROM strayed;
        ALTER TABLE ledger_calls ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{end}');
    """)  # noqa: S608  # names and bounds are made above, from a date
