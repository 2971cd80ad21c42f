"""Who changed what, written in the transaction of the change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.storage.schema import Audit

# They change with every change and say nothing about it.
_STAMPS: Final = frozenset({"created_at", "created_by", "updated_at", "updated_by"})


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change, and from which address; None where it was no request."""

    name: str
    client_ip: str | None = None


async def record(
    connection: AsyncConnection,
    actor: Actor,
    *,
    action: str,
    table: str,
    identifier: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Write one change: of an update what differs, of a creation or deletion what was set."""
    old, new = _plain(before), _plain(after)
    if old is not None and new is not None:
        differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        old, new = ({name: values.get(name) for name in sorted(differing)} for values in (old, new))
    await connection.execute(
        insert(Audit).values(
            changed_by=actor.name,
            client_ip=actor.client_ip,
            action=action,
            table_name=table,
            object_id=identifier,
            before_value=old if after is not None else _set(old),
            updated_values=new if before is not None else _set(new),
        )
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """Which changes: columns that are equal to something, and the time from `since` until before `before`."""

    equal: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    before: datetime | None = None


async def page_of_changes(
    connection: AsyncConnection, which: Seen, *, number: int, size: int, descending: bool = True
) -> tuple[list[dict[str, Any]], int]:
    """A page of changes and how many there are, in one query."""
    conditions: list[ColumnElement[bool]] = [Audit.__table__.c[name] == value for name, value in which.equal.items()]
    if which.since is not None:
        conditions.append(Audit.updated_at >= which.since)
    if which.before is not None:
        conditions.append(Audit.updated_at < which.before)
    total = select(func.count().label("total_count")).select_from(Audit).where(*conditions).subquery("counted")
    order = (Audit.updated_at.desc(), Audit.id.desc()) if descending else (Audit.updated_at, Audit.id)
    page = select(Audit.__table__).where(*conditions).order_by(*order)
    rows = page.limit(size).offset((number - 1) * size).subquery("page")
    query = select(total.c.total_count, *rows.c).select_from(total).join(rows, true(), isouter=True)
    found = (await connection.execute(query)).mappings().all()
    changes = [{str(name): value for name, value in row.items()} for row in found if row["id"] is not None]
    return changes, found[0]["total_count"]


def _set(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return values and {name: value for name, value in values.items() if value not in (None, False, [], {}, 0)}


def _plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: value for name, value in row.items() if name not in _STAMPS}
