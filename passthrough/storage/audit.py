"""Who changed what, written in the transaction of the change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert
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


def _set(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return values and {name: value for name, value in values.items() if value not in (None, False, [], {}, 0)}


def _plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: value for name, value in row.items() if name not in _STAMPS}
