"""Batches of finished calls into PostgreSQL: each call once, and every sum with it.

One transaction copies a batch into a temporary table, inserts what `ledger_calls` does not hold yet, and adds
to counters and roll-ups what was truly inserted, so that a batch may be sent any number of times. PostgreSQL
does the sums, in the statement that inserts: no arithmetic here could disagree with the rows.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from passthrough.policy.ledger import Entry, time_of
from passthrough.storage import ledger_partitions
from passthrough.storage.allowances_settle import settle
from passthrough.storage.ledger_sides import SideTable
from passthrough.storage.ledger_sums import STORE_BATCH
from passthrough.storage.schema_ledger import CALLER_COLUMNS, ROUTE_COLUMNS, ledger_calls

_log = logging.getLogger(__name__)

# A long report is in the way, or this role may not make tables.
_NOT_NOW = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.InsufficientPrivilegeError)
_MONTHS_SECONDS = 300.0  # until the next attempt to make a month; they are made two months ahead

_COLUMNS = [column.name for column in ledger_calls.columns]

# Writers take turns: their batches move the same counters, and in two orders they would deadlock.
TURN = "SELECT pg_advisory_xact_lock(8097880544565879911)"  # "passledg" in ASCII

# A transaction that another writer waits for must end, also when this process is stopped in the middle of it.
_SESSION = """
SET statement_timeout = '30s';
SET idle_in_transaction_session_timeout = '30s';
SET timezone = 'UTC';
CREATE TEMPORARY TABLE ledger_batch (LIKE ledger_calls) ON COMMIT DELETE ROWS;
"""


class LedgerWriter:
    """Writes to one connection, one batch at a time."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._callers = SideTable("ledger_callers", CALLER_COLUMNS)
        self._routes = SideTable("ledger_routes", ROUTE_COLUMNS)
        self._months: set[date] = set()
        self._months_again = 0.0

    async def prepare(self) -> None:
        """Call once, before the first batch."""
        await self._connection.execute(_SESSION)

    async def write(self, entries: Sequence[Entry], now: float) -> int:
        """Store the calls that are not stored yet; return how many that were.

        Whatever it raises, nothing was stored, or everything was and only the confirmation was lost: send the
        batch again.
        """
        await self._make_months(entries, now)
        today = datetime.fromtimestamp(now, UTC).date()
        callers, routes = [_caller(entry) for entry in entries], [_route(entry) for entry in entries]
        caller_ids = await self._callers.ids(self._connection, set(callers), today)
        route_ids = await self._routes.ids(self._connection, set(routes), today)
        records = [
            _record(entry, caller_ids[caller], route_ids[route])
            for entry, caller, route in zip(entries, callers, routes, strict=True)
        ]
        async with self._connection.transaction():
            await self._connection.copy_records_to_table("ledger_batch", records=records, columns=_COLUMNS)
            await self._connection.execute(TURN)
            row = await self._connection.fetchrow(STORE_BATCH)
            await settle(self._connection, _fresh(entries, row["which"]))
            return int(row["stored"])

    async def _make_months(self, entries: Iterable[Entry], now: float) -> None:
        # The id's first eight digits are its time in steps of 65 s: a batch has one or two of them.
        prefixes = {entry.call_id[:8] for entry in entries}
        months = {ledger_partitions.month_of(time_of(f"{prefix}-0000")) for prefix in prefixes}
        months |= {ledger_partitions.month_of(time_of(f"{prefix}-ffff")) for prefix in prefixes}
        months |= set(ledger_partitions.months_to_keep_ready(now))
        missing = {month for month in months if ledger_partitions.is_plausible(month, now)} - self._months
        if missing and now >= self._months_again:
            try:
                await ledger_partitions.make(self._connection, missing)
                self._months |= missing
            except _NOT_NOW as error:
                # The default partition takes the calls meanwhile.
                self._months_again = now + _MONTHS_SECONDS
                _log.warning("a month of the ledger cannot be made yet", extra={"cause": str(error)})


def _fresh(entries: Sequence[Entry], which: Iterable[UUID] | None) -> Sequence[Entry]:
    """Return the calls that were stored, each once; `which` is None when all of them were."""
    if which is None:
        return entries
    by_id = {entry.call_id: entry for entry in entries}
    return [by_id[str(call_id)] for call_id in which]


def _caller(entry: Entry) -> tuple[str, ...]:
    return (
        entry.key_id or "",
        entry.key_alias or "",
        entry.user_id or "",
        entry.team_id or "",
        entry.user_agent or "",
    )


def _route(entry: Entry) -> tuple[str, ...]:
    return (
        entry.service or "",
        entry.operation or "",
        entry.model or "",
        entry.billed_model or "",
        entry.region or "",
        entry.identity or "",
        entry.tier or "",
        entry.latency or "",
    )


def _record(entry: Entry, caller: int, route: int) -> tuple[Any, ...]:
    """Return the row in the order of `ledger_calls`."""
    return (
        entry.call_id,
        datetime.fromtimestamp(entry.started_at, UTC),
        entry.request_bytes,
        entry.response_bytes,
        caller,
        route,
        entry.duration_ms,
        entry.ttfb_ms,
        entry.input_tokens,
        entry.output_tokens,
        entry.cache_read_tokens,
        entry.cache_write_tokens,
        entry.cache_write_1h_tokens,
        entry.attempt,
        entry.status,
        entry.stream,
        entry.outcome,
        entry.price_status,
        entry.usage_source,
        entry.cost,
        entry.error_type,
        entry.client_ip,
        entry.upstream_request_id,
        entry.client_invocation_id,
        entry.end_user,
        entry.session_id,
        entry.tags or None,
        entry.metadata,
        _details(entry) if entry.units or entry.by_model else None,
    )


def _details(entry: Entry) -> str:
    return msgspec.json.encode({"units": entry.units, "by_model": entry.by_model}).decode()
