"""What is done to the ledger now and then: old months go, and calls get the price that was missing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import msgspec

from passthrough.bedrock.usage import Usage
from passthrough.policy.ledger import Entry, first_call_id
from passthrough.storage.ledger_partitions import add_months, first_id
from passthrough.storage.ledger_sums import STORE_PRICES
from passthrough.storage.ledger_writer import TURN

Price = Callable[[Entry, Usage], None]
"""Fills in an entry's cost and price status."""

_BATCH = 500
# Detaching shuts out readers and writers for a moment; if a long query is in the way, rather give up and let the
# next attempt find a better moment than have every call's shipment wait behind us.
_PATIENCE = "SET lock_timeout = '4s'; SET statement_timeout = '600s'"

_MONTHS = """
SELECT child.relname AS name FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'ledger_calls'::regclass AND child.relname ~ '^ledger_calls_[0-9]{4}_[0-9]{2}$'
ORDER BY name
"""
_STRAYS = "DELETE FROM ledger_calls_default WHERE call_id < $1"
# A side table's row was last referred to on `last_seen`, by calls of that day or before: no month that is kept has one.
_UNUSED = """
DELETE FROM {table} side WHERE last_seen < $1
AND NOT EXISTS (SELECT FROM ledger_calls_default stray WHERE stray.{column} = side.id)
"""
# What a budget without a window may ask for, and `/global/spend`, outlives the days: their spend, as of a day before
# all others. Of customers it is kept for those that an administrator made: the others are whatever calls say.
_NO_DAY = date(1970, 1, 1)
_FOLD = """
WITH gone AS (
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {table} WHERE day > $1 AND day < $2 ORDER BY day LIMIT $3
    )) RETURNING *
), kept AS (
    INSERT INTO {table} AS held (day, {key}, spend)
    SELECT $1, {key}, sum(spend) FROM gone WHERE spend <> 0 AND {asked_for} GROUP BY {key} ORDER BY {key}
    ON CONFLICT (day, {key}) DO UPDATE SET spend = held.spend + excluded.spend
)
SELECT count(*) FROM gone
"""
_FOLDED = (
    ("ledger_daily", "key_id, user_id, team_id, model", "true"),
    (
        "ledger_daily_labels",
        "label, value, team_id, model",
        "(label <> 'customer' OR EXISTS (SELECT FROM customers WHERE customers.user_id = gone.value))",
    ),
)
_FOLD_BATCH = 5000  # rows; writers of the ledger wait for some 100 ms
_UNPRICED = """
SELECT call_id, started_at, key_id, key_alias, team_id, model, billed_model, region, tier, latency, usage_source,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, usage_details
FROM ledger WHERE price_status = 'unknown_model' AND call_id > $1 ORDER BY call_id LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The months that are gone, and how many rows of impossible times went with them."""

    months: tuple[date, ...]
    strays: int


@dataclass(frozen=True, slots=True)
class Repriced:
    """How many calls had no price, how many of them have one now, and what those cost together."""

    unpriced: int
    priced: int
    cost: Decimal


class _Details(msgspec.Struct):
    """What `usage_details` holds."""

    units: dict[str, float] | None = None
    by_model: tuple[Usage, ...] = ()


async def prune(connection: asyncpg.Connection, keep_from: date) -> Pruned:
    """Drop the months that end before `keep_from`; roll-ups and counters stay.

    Raises `asyncpg.LockNotAvailableError` when somebody reads the ledger for too long: try again.
    """
    await connection.execute(_PATIENCE)
    gone = []
    for row in await connection.fetch(_MONTHS):
        year, month = row["name"].rsplit("_", 2)[1:]
        first = date(int(year), int(month), 1)
        if add_months(first, 1) <= keep_from:
            async with connection.transaction():
                # With a default partition there can be no DETACH … CONCURRENTLY.
                await connection.execute(f"ALTER TABLE ledger_calls DETACH PARTITION {row['name']}")
                await connection.execute(f"DROP TABLE {row['name']}")
            gone.append(first)
    kept = keep_from.replace(day=1)
    strays = await connection.execute(_STRAYS, UUID(first_id(kept)))
    for table, column in (("ledger_callers", "caller"), ("ledger_routes", "route")):
        # A day's grace for clocks that disagree.
        await connection.execute(_UNUSED.format(table=table, column=column), kept - timedelta(days=1))
    return Pruned(tuple(gone), int(strays.split()[-1]))


async def prune_sums(connection: asyncpg.Connection, keep_from: date) -> int:
    """Drop the daily sums of the months that end before `keep_from`; how many rows that were. Counters stay.

    To be kept as long as the calls: a late price moves the sums of the day of its call.
    """
    await connection.execute(_PATIENCE)
    dropped = 0
    for table, key, asked_for in _FOLDED:
        fold = _FOLD.format(table=table, key=key, asked_for=asked_for)
        count = _FOLD_BATCH
        while count == _FOLD_BATCH:
            async with connection.transaction():
                await connection.execute(TURN)
                count = await connection.fetchval(fold, _NO_DAY, keep_from.replace(day=1), _FOLD_BATCH)
            dropped += count
    return dropped


async def reprice(connection: asyncpg.Connection, price: Price, since: float) -> Repriced:
    """Price the calls from `since` (seconds since 1970) on whose model was unknown; sums move with them."""
    seen, priced, cost = 0, 0, Decimal(0)
    after = UUID(first_call_id(since))
    while rows := await connection.fetch(_UNPRICED, after, _BATCH):
        after = rows[-1]["call_id"]
        seen += len(rows)
        found = {entry.call_id: entry.cost for entry in map(_entry, rows) if _has_price(entry, price)}
        if found:
            async with connection.transaction():
                await connection.execute(TURN)
                count, spent = await connection.fetchrow(STORE_PRICES, list(found), list(found.values()))
            priced, cost = priced + count, cost + spent
    return Repriced(seen, priced, cost)


def _has_price(entry: Entry, price: Price) -> bool:
    price(entry, entry.usage())
    return entry.price_status == "priced" and entry.cost is not None


def _entry(row: asyncpg.Record) -> Entry:
    details = msgspec.json.decode(row["usage_details"], type=_Details) if row["usage_details"] else _Details()
    plain = dict(row)
    del plain["usage_details"]
    return Entry(
        **plain | {"call_id": str(row["call_id"]), "started_at": row["started_at"].timestamp()},
        units=details.units,
        by_model=details.by_model,
    )
