"""Calls as users read them: filtered, newest first, a page at a time.

A page is found by ids alone, in the order of an index, and only its rows are then joined with the side
tables. Pages may be asked for by number, or by the last id of the one before, which costs the same however
deep one is.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    func,
    literal,
    or_,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.policy.ledger import Entry, first_call_id
from passthrough.storage.database import Database
from passthrough.storage.schema import FormerKey
from passthrough.storage.schema_ledger import ledger_callers, ledger_calls, ledger_routes

Row = dict[str, Any]

# Up to so many callers are each looked up by themselves in the order of their ids, which is what finds the newest
# calls of a rare key at once; with more of them, the newest calls of all soon hold a page of theirs.
_MOST_CALLERS_APART = 64
_BATCH = 1000

_calls = ledger_calls.c
_JSON = ("metadata", "usage_details")
_UNSHOWN = {"metadata", "units", "by_model", "charges"}  # as JSON, within `usage_details`, or not of the row
_NAMES = [name for name in Entry.__struct_fields__ if name not in _UNSHOWN]
_view = table("ledger", *(column(name) for name in _NAMES), *(column(name, JSONB) for name in _JSON))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which calls. Times are seconds since 1970, `since` included, `until` not; None does not filter.

    `key_ids` are all digests that a key has had. `status` is an HTTP status; `failed` tells calls that were not
    answered as asked from the others. `model` is the model as asked or as billed.
    """

    since: float
    until: float
    key_ids: Sequence[str] | None = None
    key_alias: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    end_user: str | None = None
    model: str | None = None
    status: int | None = None
    failed: bool | None = None
    call_id: str | None = None
    session_id: str | None = None
    tag: str | None = None
    least_cost: Decimal | None = None
    most_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A filter with its callers and routes found; None where they do not filter."""

    conditions: list[ColumnElement[bool]]
    callers: list[int] | None = field(default=None)


async def page(database: Database, wanted: Wanted, *, offset: int, limit: int) -> tuple[list[Row], int]:
    """Return `limit` calls from the `offset`-newest on, and how many there are in all."""
    async with database.begin() as connection:
        found = await _resolve(connection, wanted)
        count = select(func.count()).select_from(ledger_calls).where(*found.conditions, *_caller_condition(found))
        total = (await connection.execute(count)).scalar_one()
        return await _rows(connection, found, offset, limit), total


async def after(database: Database, wanted: Wanted, *, cursor: str | None, limit: int) -> list[Row]:
    """Return the next `limit` calls behind `cursor`, the id of the last call that was seen."""
    async with database.begin() as connection:
        found = await _resolve(connection, wanted)
        if cursor is not None:
            found.conditions.append(_calls.call_id < UUID(cursor))
        return await _rows(connection, found, 0, limit)


async def every(database: Database, wanted: Wanted) -> AsyncIterator[list[Row]]:
    """Give all calls, batch by batch, holding no connection in between: a slow reader must not hold one."""
    cursor = None
    while rows := await after(database, wanted, cursor=cursor, limit=_BATCH):
        yield rows
        cursor = str(rows[-1]["call_id"])


async def digests_of(database: Database, key_id: str) -> list[str]:
    """Return the key's digest and those that it had before it was rotated."""
    async with database.begin() as connection:
        former = await connection.execute(select(FormerKey.former_id).where(FormerKey.key_id == key_id))
        return [key_id, *former.scalars()]


def newest(
    found_conditions: Sequence[ColumnElement[bool]], callers: list[int] | None, *, offset: int, limit: int
) -> Select[Any]:
    """Return the query for the newest ids, shaped so that an index gives them in order."""
    ids = select(_calls.call_id).where(*found_conditions)
    if callers is not None and len(callers) <= _MOST_CALLERS_APART:
        wanted = (
            func.unnest(bindparam("callers", callers, ARRAY(Integer)))
            .table_valued("caller", name="wanted")
            .render_derived()
        )
        each = (
            ids.where(_calls.caller == wanted.c.caller)
            .order_by(_calls.call_id.desc())
            .limit(offset + limit)
            .lateral("each")
        )
        ids = select(each.c.call_id).select_from(wanted.join(each, true())).order_by(each.c.call_id.desc())
    else:
        if callers is not None:
            ids = ids.where(_calls.caller == any_(bindparam("callers", callers, ARRAY(Integer))))
        ids = ids.order_by(_calls.call_id.desc())
    return ids.limit(limit).offset(offset)


async def _rows(connection: AsyncConnection, found: _Found, offset: int, limit: int) -> list[Row]:
    query = newest(found.conditions, found.callers, offset=offset, limit=limit)
    ids = list((await connection.execute(query)).scalars())
    if not ids:
        return []
    these = any_(bindparam("ids", ids, ARRAY(Uuid)))
    rows: Select[Any] = select(_view).where(_view.c.call_id == these).order_by(_view.c.call_id.desc())
    return [{str(name): value for name, value in row.items()} for row in (await connection.execute(rows)).mappings()]


async def _resolve(connection: AsyncConnection, wanted: Wanted) -> _Found:
    conditions = _conditions(wanted)
    if wanted.model is not None:
        route = ledger_routes.c
        routes = select(route.id).where(or_(route.model == wanted.model, route.billed_model == wanted.model))
        found = list((await connection.execute(routes)).scalars())
        conditions.append(_calls.route == any_(bindparam("routes", found, ARRAY(Integer))))
    caller = ledger_callers.c
    named = {caller.key_alias: wanted.key_alias, caller.user_id: wanted.user_id, caller.team_id: wanted.team_id}
    who = [column_ == value for column_, value in named.items() if value is not None]
    if wanted.key_ids is not None:
        who.append(caller.key_id.in_(wanted.key_ids))
    if not who:
        return _Found(conditions)
    return _Found(conditions, list((await connection.execute(select(caller.id).where(and_(*who)))).scalars()))


def _caller_condition(found: _Found) -> list[ColumnElement[bool]]:
    if found.callers is None:
        return []
    return [_calls.caller == any_(bindparam("callers", found.callers, ARRAY(Integer)))]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    equal: dict[ColumnElement[Any], Any] = {
        _calls.end_user: wanted.end_user,
        _calls.status: wanted.status,
        _calls.session_id: wanted.session_id,
        _calls.call_id: UUID(wanted.call_id) if wanted.call_id else None,
    }
    conditions: list[ColumnElement[bool]] = [
        _calls.call_id >= UUID(first_call_id(wanted.since)),
        _calls.call_id < UUID(first_call_id(wanted.until)),
        *(column_ == value for column_, value in equal.items() if value is not None),
    ]
    if wanted.tag is not None:
        conditions.append(literal(wanted.tag) == any_(_calls.tags))
    if wanted.failed is not None:
        answered = _calls.outcome.in_(("ok", "client_gone"))
        conditions.append(~answered if wanted.failed else answered)
    if wanted.least_cost is not None:
        conditions.append(_calls.cost >= wanted.least_cost)
    if wanted.most_cost is not None:
        conditions.append(_calls.cost <= wanted.most_cost)
    return conditions
