"""Rows of keys as the API shows them, one by one and in pages: each a single query, each from an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, Text, and_, false, func, or_, select, true, union
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.storage.rows import Row, plain
from passthrough.storage.schema import FormerKey, Key, Spend

Order = Literal["created_at", "updated_at", "expires", "max_budget", "spend", "key_alias", "token"]

_ORDERS: Final[Mapping[Order, Any]] = {
    "created_at": Key.created_at,
    "updated_at": Key.updated_at,
    "expires": Key.expires,
    "max_budget": Key.max_budget,
    "spend": Spend.spend,
    "key_alias": Key.key_alias,
    "token": Key.key_id,
}
_COLUMNS: Final = (*Key.__table__.c, Spend.spend, Spend.total_spend, Spend.last_active)
_SPENT: Final = and_(Spend.kind == "key", Spend.subject == Key.key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which keys; None is any. `pieces` are all somewhere in the alias."""

    user_id: str | None = None
    team_id: str | None = None
    key_id: str | None = None
    alias: str | None = None
    has_alias: bool = False
    pieces: tuple[str, ...] = ()
    status: Literal["active", "expired", "revoked"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`number` counts from 1."""

    number: int
    size: int
    order: Order = "created_at"
    descending: bool = True


async def rows_of(connection: AsyncConnection, key_ids: Sequence[str]) -> list[Row]:
    """The rows of these keys that exist, with what they spent; a former id finds its key, until its grace ends."""
    return [plain(row) for row in (await connection.execute(rows_query(key_ids))).mappings()]


def rows_query(key_ids: Sequence[str]) -> Select[Any]:
    """The query of `rows_of`."""
    former = select(FormerKey.key_id).where(FormerKey.former_id.in_(key_ids), FormerKey.valid_until > func.now())
    wanted = union(select(func.unnest(array(key_ids, type_=Text)).label("key_id")), former).subquery("wanted")
    return select(*_COLUMNS).join(wanted, wanted.c.key_id == Key.key_id).join(Spend, _SPENT, isouter=True)


async def page_of(connection: AsyncConnection, which: Filter, page: Page, now: datetime) -> tuple[list[Row], int]:
    """A page of keys and how many there are of them; the count is part of the same query."""
    found = (await connection.execute(page_query(which, page, now))).mappings().all()
    rows = [plain(row) for row in found if row["key_id"] is not None]
    return rows, found[0]["total_count"]


def page_query(which: Filter, page: Page, now: datetime) -> Select[Any]:
    """The query of `page_of`. A count without a page (one beyond the end) is a single row without a key."""
    conditions = _conditions(which, now)
    column = _ORDERS[page.order]
    order = (column.desc(), Key.key_id.desc()) if page.descending else (column.asc(), Key.key_id.asc())
    total = select(func.count().label("total_count")).select_from(Key).where(*conditions).subquery("counted")
    rows = (
        select(*_COLUMNS)
        # Every key has a counter from its first moment; so an inner join keeps the order of spend in its index.
        .join(Spend, _SPENT)
        .where(*conditions)
        .order_by(*order)
        .limit(page.size)
        .offset((page.number - 1) * page.size)
        .subquery("page")
    )
    return select(total.c.total_count, *rows.c).select_from(total).join(rows, true(), isouter=True)


def _conditions(which: Filter, now: datetime) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (Key.user_id, which.user_id),
        (Key.team_id, which.team_id),
        (Key.key_id, which.key_id),
        (Key.key_alias, which.alias),
    ):
        if value is not None:
            conditions.append(column == value)
    if which.has_alias:
        conditions.append(Key.key_alias.is_not(None))
    conditions += [_holds(piece) for piece in which.pieces]
    match which.status:
        case "active":
            conditions += [Key.blocked == false(), or_(Key.expires.is_(None), Key.expires > now)]
        case "expired":
            conditions.append(Key.expires <= now)
        case "revoked":
            conditions.append(Key.blocked == true())
        case None:
            pass
    return conditions


def _holds(piece: str) -> ColumnElement[bool]:
    """The alias holds the piece, in any case; one or two letters: it begins with them."""
    grams = func.passthrough_trigrams(Key.key_alias).op("@>")(func.passthrough_search_trigrams(piece))
    escaped = piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = f"{escaped}%" if len(piece) < 3 else f"%{escaped}%"  # noqa: PLR2004  # the length of a trigram
    return and_(grams, Key.key_alias.ilike(pattern, escape="\\"))
