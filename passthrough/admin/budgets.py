"""Budgets that several keys, users, teams or customers share by id: what can be done with them, and its routes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from passthrough.admin import owners
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas import accounts as schemas
from passthrough.errors import invalid
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database
from passthrough.storage.owners import all_rows
from passthrough.storage.rows import BUDGETS, Row, Taken

_UNKNOWN = {404: "There is no such budget."}
_FIELDS: Final[tuple[tuple[str, Literal["Integer", "Float", "String", "Object"], str], ...]] = (
    ("max_budget", "Float", "What may be spent in a window, USD: calls beyond it are refused."),
    ("soft_budget", "Float", "What may be spent before it is told, USD: nothing is refused."),
    ("budget_duration", "String", "The window after which budgets begin anew, such as 30d."),
    ("model_max_budget", "Object", "What may be spent on a model in a window, by pattern."),
    ("max_parallel_requests", "Integer", "Calls at one time."),
    ("tpm_limit", "Integer", "Tokens a minute."),
    ("tpd_limit", "Integer", "Tokens a day."),
    ("rpm_limit", "Integer", "Requests a minute."),
)


class Budgets:
    """Budgets in the database. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def new(self, request: schemas.NewBudget, actor: Actor) -> Row:
        """Make a budget; a 400 when there is one of this id."""
        budget_id = request.budget_id or owners.fresh_id()
        async with self._database.begin() as connection:
            values = owners.settable(request, BUDGETS, self._now())
            return await owners.create(connection, BUDGETS, budget_id, values, actor)

    async def update(self, request: schemas.UpdateBudget, actor: Actor) -> Row:
        """Change what was given of a budget; 404 if there is none."""
        async with self._database.begin() as connection:
            before = await owners.locked(connection, BUDGETS, request.budget_id)
            values = owners.settable(request, BUDGETS, self._now())
            return await owners.change(connection, BUDGETS, before, values, actor)

    async def delete(self, budget_id: str, actor: Actor) -> Row:
        """Delete a budget; 404 if there is none, a 400 while somebody has it."""
        async with self._database.begin() as connection:
            row = await owners.locked(connection, BUDGETS, budget_id)
            try:
                await BUDGETS.remove(connection, [row], actor)
            except Taken:
                raise invalid("This budget is in use: take it from its keys and owners first.", param="id") from None
        return row

    async def info(self, budget_ids: Sequence[str]) -> list[Row]:
        """The budgets of these ids that exist."""
        async with self._database.begin() as connection:
            return list((await BUDGETS.get(connection, budget_ids)).values())

    async def all(self) -> list[Row]:
        """Every budget."""
        async with self._database.begin() as connection:
            return await all_rows(connection, BUDGETS)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


class BudgetRoutes:
    """Requests about budgets, handed to `Budgets`."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/budget/new",
                handle=self.new,
                body=schemas.NewBudget,
                answer=schemas.BudgetRow,
                summary="Make a budget that several subjects can share.",
            ),
            Endpoint(
                method="POST",
                path="/budget/update",
                handle=self.update,
                body=schemas.UpdateBudget,
                answer=schemas.BudgetRow,
                refuses=_UNKNOWN,
                summary="Change what is given of a budget; null takes away.",
            ),
            Endpoint(
                method="POST",
                path="/budget/info",
                handle=self.info,
                body=schemas.BudgetIds,
                answer=list[schemas.BudgetRow],
                summary="Show several budgets; those that do not exist are left out.",
            ),
            Endpoint(
                method="GET",
                path="/budget/list",
                handle=self.list,
                answer=list[schemas.BudgetRow],
                summary="List all budgets.",
            ),
            Endpoint(
                method="GET",
                path="/budget/settings",
                handle=self.settings,
                query=schemas.BudgetQuery,
                answer=list[schemas.BudgetSetting],
                refuses=_UNKNOWN,
                summary="Show a budget field by field, each with what it means.",
            ),
            Endpoint(
                method="POST",
                path="/budget/delete",
                handle=self.delete,
                body=schemas.OneBudget,
                answer=schemas.BudgetRow,
                refuses=_UNKNOWN,
                summary="Delete a budget that nobody has any more.",
            ),
        ]

    async def new(self, asked: Asked) -> schemas.BudgetRow:
        return _row(await self._budgets.new(asked.body, asked.actor))

    async def update(self, asked: Asked) -> schemas.BudgetRow:
        return _row(await self._budgets.update(asked.body, asked.actor))

    async def info(self, asked: Asked) -> list[schemas.BudgetRow]:
        return [_row(row) for row in await self._budgets.info(asked.body.budgets)]

    async def list(self, asked: Asked) -> list[schemas.BudgetRow]:  # noqa: ARG002  # the interface of a handler
        return [_row(row) for row in await self._budgets.all()]

    async def settings(self, asked: Asked) -> Sequence[schemas.BudgetSetting]:
        found = await self._budgets.info([asked.query.budget_id])
        if not found:
            raise owners.unknown(BUDGETS)
        return [
            schemas.BudgetSetting(field_name=name, field_type=kind, field_description=text, field_value=found[0][name])
            for name, kind, text in _FIELDS
        ]

    async def delete(self, asked: Asked) -> schemas.BudgetRow:
        return _row(await self._budgets.delete(asked.body.id, asked.actor))


def _row(row: Row) -> schemas.BudgetRow:
    return msgspec.convert(row, schemas.BudgetRow)
