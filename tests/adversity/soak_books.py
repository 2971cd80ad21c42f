"""Whether the ledger's books agree: rows, counters and roll-ups, added up here a second time."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC
from decimal import Decimal
from typing import Any

import asyncpg

Row = dict[str, Any]
Sums = dict[tuple[Any, ...], tuple[Decimal, ...]]

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
SUMS = ("calls", "failed_calls", "unpriced_calls", *TOKENS, "spend")


async def rows_of(connection: asyncpg.Connection) -> dict[str, Row]:
    """The ledger by call; a call that stands in it twice fails the test."""
    rows = [dict(row) for row in await connection.fetch("SELECT * FROM ledger ORDER BY call_id")]
    doubled = {call: count for call, count in Counter(str(row["call_id"]) for row in rows).items() if count > 1}
    assert not doubled
    assert await connection.fetchval("SELECT count(*) FROM ledger_calls") == len(rows)
    return {str(row["call_id"]): row for row in rows}


async def assert_sums_agree(connection: asyncpg.Connection, rows: Iterable[Row]) -> None:
    """Compare counters and roll-ups with the sums of the rows, to the last decimal."""
    rows = list(rows)
    held = await connection.fetch("SELECT * FROM spend")
    counters = {(row["kind"], row["subject"]): (row["spend"], row["total_spend"]) for row in held}
    spent = {subject: (spend, spend) for subject, spend in _spent(rows).items()}
    assert _without_nothing(counters) == _without_nothing(spent)

    days = await _stored(connection, "ledger_daily", ("day", "key_id", "user_id", "team_id", "model"))
    assert days == _summed(rows, _unlabelled, ("key_id", "user_id", "team_id"))
    labels = await _stored(connection, "ledger_daily_labels", ("day", "label", "value", "team_id", "model"))
    assert labels == _summed(rows, _labels, ("team_id",))


async def texts_with(connection: asyncpg.Connection, needles: Iterable[str]) -> set[tuple[str, str]]:
    """Which needle stands in which table, in whatever column."""
    kept = "relkind = 'r' AND relpersistence <> 't'"  # of a crash, the names of temporary tables remain for a while
    tables = await connection.fetch(f"SELECT oid::regclass::text AS name FROM pg_class WHERE {kept}")  # noqa: S608  # a text of ours
    found = set()
    for table in tables:
        for needle in needles:
            statement = f"SELECT EXISTS (SELECT FROM {table['name']} t WHERE strpos(t::text, $1) > 0)"  # noqa: S608  # names of tables
            if await connection.fetchval(statement, needle):
                found.add((table["name"], needle))
    return found


def _spent(rows: Iterable[Row]) -> dict[tuple[str, str], Decimal]:
    spent: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in rows:
        key, user, team = row["key_id"], row["user_id"], row["team_id"]
        subjects = [("key", key), ("user", user), ("team", team), *_labels(row)]
        if user and team:
            subjects.append(("team_member", f"{team}/{user}"))
        for kind, subject in subjects:
            if subject:
                spent[kind, subject] += row["cost"] or 0
    return spent


def _unlabelled(_: Row) -> list[tuple[()]]:
    return [()]


def _metered(row: Row) -> bool:
    return bool(row["price_status"] != "not_metered")


def _known(row: Row) -> bool:
    throttled = row["outcome"] == "client_error" and row["status"] == 429
    return _metered(row) or throttled or row["outcome"] in {"ok", "cut", "upstream_error"}


def _labels(row: Row) -> list[tuple[str, str]]:
    if not _metered(row):
        return []
    customer = [("customer", row["end_user"])] if row["end_user"] else []
    return customer + [("tag", tag) for tag in set(row["tags"])]


def _summed(rows: Iterable[Row], labels: Any, owners: tuple[str, ...]) -> Sums:
    sums: dict[tuple[Any, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0)] * len(SUMS))
    for row in rows:
        day = row["started_at"].astimezone(UTC).date()
        model = (row["billed_model"] or row["model"] or "") if _known(row) else ""
        for label in labels(row):
            at = (day, *label, *(row[name] or "" for name in owners), model)
            sums[at] = [total + Decimal(more) for total, more in zip(sums[at], _amounts(row), strict=True)]
    return {at: tuple(totals) for at, totals in sums.items()}


def _amounts(row: Row) -> Iterator[Decimal | int]:
    yield 1
    yield row["outcome"] not in {"ok", "client_gone"}
    yield row["price_status"] == "unknown_model"
    yield from (row[name] or 0 for name in TOKENS)
    yield row["cost"] or 0


async def _stored(connection: asyncpg.Connection, table: str, key: tuple[str, ...]) -> Sums:
    held = await connection.fetch(f"SELECT * FROM {table}")  # noqa: S608  # a table of ours
    return {tuple(row[name] for name in key): tuple(Decimal(row[name]) for name in SUMS) for row in held}


def _without_nothing(
    counters: dict[tuple[str, str], tuple[Decimal, ...]],
) -> dict[tuple[str, str], tuple[Decimal, ...]]:
    """A counter at zero is as good as none."""
    return {subject: sums for subject, sums in counters.items() if any(sums)}
