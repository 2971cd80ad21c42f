"""Rows of one table by their id: locked, made, changed and taken away, each change with its line in the audit.

A row is a dict by column name, because that is how the API names its fields. Everything here happens in the
caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncpg
from sqlalchemy import Table as SqlTable
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.storage import schema
from passthrough.storage.audit import Actor, record

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """One table of things that have an id, a spend counter of `kind` (if they spend), and an audit."""

    table: SqlTable
    identifier: str
    kind: str | None

    @property
    def name(self) -> str:
        return self.table.name

    async def get(
        self, connection: AsyncConnection, identifiers: Iterable[str], *, lock: bool = False
    ) -> dict[str, Row]:
        """The rows that exist, by id; `lock` keeps others from changing them, in one order for all."""
        column = self.table.c[self.identifier]
        query = select(self.table).where(column.in_(list(identifiers))).order_by(column)
        rows = (await connection.execute(query.with_for_update() if lock else query)).mappings()
        return {row[self.identifier]: plain(row) for row in rows}

    async def create(self, connection: AsyncConnection, values: Mapping[str, Any], actor: Actor) -> Row:
        """Raises `Taken` when the id or another unique value is there already."""
        stamped = {**values, "created_by": actor.name, "updated_by": actor.name}
        try:
            async with connection.begin_nested():
                row = await self._one(connection, insert(self.table).values(stamped).returning(*self.table.c))
        except IntegrityError as error:
            raise conflict(error) from error
        await self._count(connection, [row[self.identifier]])
        await self._record(connection, actor, "created", row[self.identifier], None, row)
        return row

    async def ensure(self, connection: AsyncConnection, identifier: str, actor: Actor) -> None:
        """Create the row with nothing set, unless it is there."""
        statement = upsert(self.table).values(
            {self.identifier: identifier, "created_by": actor.name, "updated_by": actor.name}
        )
        created = await connection.execute(statement.on_conflict_do_nothing().returning(*self.table.c))
        row = created.mappings().one_or_none()
        if row is not None:
            await self._count(connection, [identifier])
            await self._record(connection, actor, "created", identifier, None, plain(row))

    async def change(
        self,
        connection: AsyncConnection,
        before: Row,
        values: Mapping[str, Any],
        actor: Actor,
        *,
        action: str = "updated",
    ) -> Row:
        """Set columns of a row that was read with `lock`; raises `Taken` as `create` does."""
        identifier = before[self.identifier]
        statement = (
            update(self.table)
            .where(self.table.c[self.identifier] == identifier)
            .values({**values, "updated_by": actor.name, "updated_at": func.clock_timestamp()})
            .returning(*self.table.c)
        )
        try:
            async with connection.begin_nested():
                row = await self._one(connection, statement)
        except IntegrityError as error:
            raise conflict(error) from error
        await self._record(connection, actor, action, identifier, before, row)
        return row

    async def remove(self, connection: AsyncConnection, rows: Sequence[Row], actor: Actor) -> None:
        """Delete rows that were read with `lock`, and what they have spent."""
        identifiers = [row[self.identifier] for row in rows]
        try:
            async with connection.begin_nested():
                await connection.execute(delete(self.table).where(self.table.c[self.identifier].in_(identifiers)))
        except IntegrityError as error:
            raise conflict(error) from error
        spend = schema.Spend
        if self.kind:
            await connection.execute(delete(spend).where(spend.kind == self.kind, spend.subject.in_(identifiers)))
        for row in rows:
            await self._record(connection, actor, "deleted", row[self.identifier], row, None)

    async def _count(self, connection: AsyncConnection, identifiers: list[str]) -> None:
        """Begin the spend counters, so that a list in the order of spend has every row."""
        if self.kind:
            counters = [{"kind": self.kind, "subject": identifier} for identifier in identifiers]
            await connection.execute(upsert(schema.Spend).values(counters).on_conflict_do_nothing())

    async def _record(
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        identifier: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        await record(
            connection, actor, action=action, table=self.name, identifier=identifier, before=before, after=after
        )

    @staticmethod
    async def _one(connection: AsyncConnection, statement: Any) -> Row:  # an insert or update with RETURNING
        return plain((await connection.execute(statement)).mappings().one())


def plain(row: RowMapping) -> Row:
    """A dict of one's own; SQLAlchemy's names are a kind of str that other encoders do not take."""
    return {str(name): value for name, value in row.items()}


class Taken(Exception):  # noqa: N818  # it is the state of things, not an error of ours
    """A constraint says no: a value that must be unique is there already, or one that is referred to is not."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


def conflict(error: IntegrityError) -> Taken:
    """Name the constraint that a statement broke."""
    cause = error.orig.__cause__ if error.orig else None
    name = cause.constraint_name if isinstance(cause, asyncpg.IntegrityConstraintViolationError) else None
    return Taken(name or "")


def _table(entity: type[schema.Base]) -> SqlTable:
    return cast("SqlTable", entity.__table__)


KEYS: Final = Rows(_table(schema.Key), "key_id", "key")
USERS: Final = Rows(_table(schema.User), "user_id", "user")
TEAMS: Final = Rows(_table(schema.Team), "team_id", "team")
CUSTOMERS: Final = Rows(_table(schema.Customer), "user_id", "customer")
BUDGETS: Final = Rows(_table(schema.Budget), "budget_id", None)
