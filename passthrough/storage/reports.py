"""Sums of money, tokens and calls, by day and subject: read from the roll-ups, never from the calls.

A key that was rotated is reported under its present digest, also for the days before.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Executable, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.storage.database import Database
from passthrough.storage.schema import FormerKey, Key, Spend
from passthrough.storage.schema_ledger import SUM_COLUMNS, ledger_daily, ledger_daily_labels

Row = dict[str, Any]
Dimension = Literal["day", "key_id", "user_id", "team_id", "model"]
Label = Literal["tag", "customer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Days (UTC), both included; `only` keeps to some values of a dimension, such as one key."""

    first: date
    last: date
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)


def sums_query(span: Span, by: Sequence[Dimension], *, limit: int | None = None) -> Select[Any]:
    """Return the query for the sums of each combination of `by`: by day, then the dearest first."""
    daily = ledger_daily.c
    source = ledger_daily.outerjoin(FormerKey, FormerKey.former_id == daily.key_id) if "key_id" in by else ledger_daily
    present: dict[str, ColumnElement[Any]] = {"key_id": func.coalesce(FormerKey.key_id, daily.key_id)}
    groups = [present.get(name, daily[name]).label(name) for name in by]
    return _summed(select(*groups, *_sums(ledger_daily)).select_from(source), ledger_daily, span, groups, limit)


def label_sums_query(span: Span, label: Label, by: Sequence[str], *, limit: int | None = None) -> Select[Any]:
    """Return the same for tags or customers; `by` is of `day`, `value`, `team_id`, `model`."""
    labels = ledger_daily_labels.c
    groups = [labels[name].label(name) for name in by]
    query = select(*groups, *_sums(ledger_daily_labels)).where(labels.label == label)
    return _summed(query, ledger_daily_labels, span, groups, limit)


async def sums(database: Database, span: Span, by: Sequence[Dimension], *, limit: int | None = None) -> list[Row]:
    """Return a row for each combination: the names of `by`, then `SUM_COLUMNS`."""
    async with database.begin() as connection:
        return await _fetched(connection, sums_query(span, by, limit=limit))


async def label_sums(
    database: Database, span: Span, label: Label, by: Sequence[str], *, limit: int | None = None
) -> list[Row]:
    """Return a row for each combination of `by`, for tags or customers."""
    async with database.begin() as connection:
        return await _fetched(connection, label_sums_query(span, label, by, limit=limit))


async def total(database: Database, span: Span) -> Row:
    """Return one row of `SUM_COLUMNS`, zero where there was nothing."""
    [row] = await sums(database, span, ())
    return {name: value or 0 for name, value in row.items()}


async def spend_ever(database: Database) -> Decimal:
    """Return what everything has cost since the ledger began, whatever was pruned or reset."""
    async with database.begin() as connection:
        spent = await connection.execute(select(func.coalesce(func.sum(ledger_daily.c.spend), 0)))
        return Decimal(spent.scalar_one())


async def counters(database: Database, kind: str, *, subject: str | None = None, limit: int) -> list[Row]:
    """Return subjects of a kind with what they have spent since their counter was reset, the dearest first."""
    query = select(Spend.subject, Spend.spend, Spend.total_spend, Spend.last_active).where(Spend.kind == kind)
    if subject is not None:
        query = query.where(Spend.subject == subject)
    async with database.begin() as connection:
        return await _fetched(connection, query.order_by(Spend.spend.desc(), Spend.subject.desc()).limit(limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """What is shown of a key beside its digest; nothing of a key that was deleted."""

    key_alias: str | None = None
    key_name: str | None = None
    user_id: str | None = None
    team_id: str | None = None


async def key_names(database: Database, key_ids: Sequence[str]) -> defaultdict[str, KeyName]:
    """Return the names of keys by digest."""
    query = select(Key.key_id, Key.key_alias, Key.key_name, Key.user_id, Key.team_id).where(Key.key_id.in_(key_ids))
    async with database.begin() as connection:
        rows = await _fetched(connection, query)
    named = {row.pop("key_id"): row for row in rows}
    return defaultdict(KeyName, {key_id: KeyName(**row) for key_id, row in named.items()})


def _sums(roll_up: Any) -> list[ColumnElement[Any]]:  # one of the two tables
    return [func.sum(roll_up.c[name]).label(name) for name in SUM_COLUMNS]


def _summed(query: Select[Any], roll_up: Any, span: Span, groups: Sequence[Any], limit: int | None) -> Select[Any]:
    query = query.where(roll_up.c.day.between(span.first, span.last)).group_by(*groups)
    for name, values in span.only.items():
        query = query.where(roll_up.c[name].in_(values))
    days = [group for group in groups if group.name == "day"]
    return query.order_by(*days, func.sum(roll_up.c.spend).desc(), *groups).limit(limit)


async def _fetched(connection: AsyncConnection, query: Executable) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in (await connection.execute(query)).mappings()]
