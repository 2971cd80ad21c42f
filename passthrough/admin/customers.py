"""Customers: the end users whom calls name by a header. What can be done with them, and its routes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin import owners
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas import accounts as schemas
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database
from passthrough.storage.owners import page_with_spend, rows_with_spend
from passthrough.storage.rows import CUSTOMERS, Row

_PREFIXES = ("/customer", "/end_user")  # LiteLLM has both
_UNKNOWN = {404: "There is no such customer."}


class Customers:
    """Customers in the database. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def new(self, request: schemas.Customer, actor: Actor) -> Row:
        """Make a customer; a 400 when there is one of this id."""
        async with self._database.begin() as connection:
            values = owners.settable(request, CUSTOMERS, self._now())
            await owners.create(connection, CUSTOMERS, request.user_id, values, actor)
            await owners.count_from(connection, CUSTOMERS, request.user_id, request.spend)
            return await _shown(connection, request.user_id)

    async def update(self, request: schemas.Customer, actor: Actor) -> Row:
        """Change what was given of a customer; 404 if there is none."""
        async with self._database.begin() as connection:
            before = await owners.locked(connection, CUSTOMERS, request.user_id)
            values = owners.settable(request, CUSTOMERS, self._now())
            await owners.change(connection, CUSTOMERS, before, values, actor)
            await owners.count_from(connection, CUSTOMERS, request.user_id, request.spend)
            return await _shown(connection, request.user_id)

    async def block(self, user_ids: Sequence[str], actor: Actor, *, blocked: bool) -> list[Row]:
        """Block or unblock customers, whom nobody may have created before."""
        wanted = sorted(set(user_ids))
        async with self._database.begin() as connection:
            for user_id in wanted:
                await CUSTOMERS.ensure(connection, user_id, actor)
            rows = await CUSTOMERS.get(connection, wanted, lock=True)
            action = "blocked" if blocked else "unblocked"
            for row in rows.values():
                await owners.change(connection, CUSTOMERS, row, {"blocked": blocked}, actor, action=action)
            return list((await rows_with_spend(connection, CUSTOMERS, wanted)).values())

    async def delete(self, user_ids: Sequence[str], actor: Actor) -> int:
        """Delete customers, all or none; 404 if one does not exist."""
        wanted = list(dict.fromkeys(user_ids))
        async with self._database.begin() as connection:
            rows = await CUSTOMERS.get(connection, wanted, lock=True)
            if len(rows) < len(wanted):
                raise owners.unknown(CUSTOMERS)
            await CUSTOMERS.remove(connection, list(rows.values()), actor)
        return len(wanted)

    async def info(self, user_id: str) -> Row:
        """Give a customer; 404 if there is none."""
        async with self._database.begin() as connection:
            return await _shown(connection, user_id)

    async def page(self, number: int, size: int) -> list[Row]:
        """A page of customers, the newest first."""
        async with self._database.begin() as connection:
            return (await page_with_spend(connection, CUSTOMERS, [], number=number, size=size))[0]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


class CustomerRoutes:
    """Requests about customers, handed to `Customers`."""

    def __init__(self, customers: Customers) -> None:
        self._customers = customers

    def endpoints(self) -> list[Endpoint]:
        return [endpoint for prefix in _PREFIXES for endpoint in (*self._one(prefix), *self._several(prefix))]

    def _one(self, prefix: str) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path=f"{prefix}/new",
                handle=self.new,
                body=schemas.Customer,
                answer=schemas.CustomerRow,
                summary="Make a customer.",
            ),
            Endpoint(
                method="POST",
                path=f"{prefix}/update",
                handle=self.update,
                body=schemas.Customer,
                answer=schemas.CustomerRow,
                refuses=_UNKNOWN,
                summary="Change what is given of a customer; null takes away.",
            ),
            Endpoint(
                method="GET",
                path=f"{prefix}/info",
                handle=self.info,
                query=schemas.CustomerQuery,
                answer=schemas.CustomerRow,
                refuses=_UNKNOWN,
                summary="Show a customer.",
            ),
        ]

    def _several(self, prefix: str) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path=f"{prefix}/list",
                handle=self.list,
                query=schemas.CustomerListQuery,
                answer=list[schemas.CustomerRow],
                summary="List customers, the newest first, a page at a time.",
            ),
            Endpoint(
                method="POST",
                path=f"{prefix}/block",
                handle=self.block,
                body=schemas.CustomerIds,
                answer=schemas.BlockedCustomers,
                summary="Refuse calls of these customers, at once on every worker.",
            ),
            Endpoint(
                method="POST",
                path=f"{prefix}/unblock",
                handle=self.unblock,
                body=schemas.CustomerIds,
                answer=schemas.UnblockedCustomers,
                summary="Let these customers call again.",
            ),
            Endpoint(
                method="POST",
                path=f"{prefix}/delete",
                handle=self.delete,
                body=schemas.CustomerIds,
                answer=schemas.DeletedCustomers,
                refuses=_UNKNOWN,
                summary="Delete customers: all of them, or none.",
            ),
        ]

    async def new(self, asked: Asked) -> schemas.CustomerRow:
        return _row(await self._customers.new(asked.body, asked.actor))

    async def update(self, asked: Asked) -> schemas.CustomerRow:
        return _row(await self._customers.update(asked.body, asked.actor))

    async def info(self, asked: Asked) -> schemas.CustomerRow:
        return _row(await self._customers.info(asked.query.end_user_id))

    async def list(self, asked: Asked) -> list[schemas.CustomerRow]:
        return [_row(row) for row in await self._customers.page(asked.query.page, asked.query.size)]

    async def block(self, asked: Asked) -> schemas.BlockedCustomers:
        rows = await self._customers.block(asked.body.user_ids, asked.actor, blocked=True)
        return schemas.BlockedCustomers(blocked_users=[_row(row) for row in rows])

    async def unblock(self, asked: Asked) -> schemas.UnblockedCustomers:
        rows = await self._customers.block(asked.body.user_ids, asked.actor, blocked=False)
        return schemas.UnblockedCustomers(unblocked_users=[_row(row) for row in rows])

    async def delete(self, asked: Asked) -> schemas.DeletedCustomers:
        count = await self._customers.delete(asked.body.user_ids, asked.actor)
        return schemas.DeletedCustomers(deleted_customers=count, message=f"{count} customers were deleted.")


async def _shown(connection: AsyncConnection, user_id: str) -> Row:
    found = await rows_with_spend(connection, CUSTOMERS, [user_id])
    if not found:
        raise owners.unknown(CUSTOMERS)
    return found[user_id]


def _row(row: Row) -> schemas.CustomerRow:
    return msgspec.convert(row, schemas.CustomerRow)
