"""What users, teams and customers have in common: rows made, changed and counted, with words for what fails."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin.patch import columns, exact
from passthrough.admin.schemas.requests import given
from passthrough.admin.secrecy import refuse_keys
from passthrough.errors import Refusal, invalid
from passthrough.storage.audit import Actor, record
from passthrough.storage.owners import set_counter
from passthrough.storage.rows import Row, Rows, Taken


def fresh_id() -> str:
    """An id for what was given none."""
    return str(uuid.uuid4())


def settable(request: Struct, rows: Rows, now: datetime) -> dict[str, Any]:
    """The columns of `rows` that a request sets; its other fields are the caller's business."""
    table = rows.table.c
    return columns({name: value for name, value in given(request).items() if name in table}, now)


async def create(
    connection: AsyncConnection, rows: Rows, identifier: str, values: Mapping[str, Any], actor: Actor
) -> Row:
    await refuse_keys(connection, {**values, rows.identifier: identifier})
    try:
        return await rows.create(connection, {**values, rows.identifier: identifier}, actor)
    except Taken as taken:
        raise _explained(taken, rows) from None


async def change(
    connection: AsyncConnection,
    rows: Rows,
    before: Row,
    values: Mapping[str, Any],
    actor: Actor,
    *,
    action: str = "updated",
) -> Row:
    await refuse_keys(connection, values)
    try:
        return await rows.change(connection, before, values, actor, action=action)
    except Taken as taken:
        raise _explained(taken, rows) from None


async def locked(connection: AsyncConnection, rows: Rows, identifier: str) -> Row:
    """The row, locked; 404 if there is none."""
    found = await rows.get(connection, [identifier], lock=True)
    if not found:
        raise unknown(rows)
    return found[identifier]


async def count_from(connection: AsyncConnection, rows: Rows, identifier: str, amount: Any) -> None:
    """Set the spend counter, where a request said so."""
    if isinstance(amount, float) and rows.kind:
        await set_counter(connection, rows.kind, identifier, exact(amount))


async def lower_counter(
    connection: AsyncConnection, kind: str, table: str, identifier: str, *, spent: Decimal, amount: Any, actor: Actor
) -> None:
    """Lower a spend counter that stands at `spent` to `amount`; a 400 for what would raise it."""
    if exact(amount) > spent:
        raise invalid(f"The field 'reset_to' must not be more than what was spent, {spent}.", param="reset_to")
    await set_counter(connection, kind, identifier, exact(amount))
    await record(
        connection,
        actor,
        action="spend_reset",
        table=table,
        identifier=identifier,
        before={"spend": spent},
        after={"spend": exact(amount)},
    )


def unknown(rows: Rows) -> Refusal:
    thing = rows.name.removesuffix("s")
    return Refusal(404, "", f"There is no such {thing}: name an existing one.", param=rows.identifier)


def _explained(taken: Taken, rows: Rows) -> Refusal:
    if taken.constraint == f"pk_{rows.name}":
        thing = rows.name.removesuffix("s")
        return invalid(f"This {thing} is there already: choose another {rows.identifier}.", param=rows.identifier)
    if taken.constraint.endswith("_budget_id"):
        return invalid("There is no budget of this budget_id: create it with /budget/new first.", param="budget_id")
    raise taken
