"""Users, teams, customers and budgets as the API shows them: rows with what they spent, and pages of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.storage.allowances_state import count_from
from passthrough.storage.audit import Actor
from passthrough.storage.rows import KEYS, Row, Rows, plain
from passthrough.storage.schema import Key, Spend, TeamMember, User

_MOST_KEYS = 100  # shown with their owner; /key/list has the others


async def rows_with_spend(connection: AsyncConnection, rows: Rows, identifiers: Sequence[str]) -> dict[str, Row]:
    """The rows that exist, by id, with `spend` and `total_spend`."""
    column = rows.table.c[rows.identifier]
    query = _with_spend(rows).where(column.in_(identifiers))
    return {row[rows.identifier]: plain(row) for row in (await connection.execute(query)).mappings()}


async def page_with_spend(
    connection: AsyncConnection,
    rows: Rows,
    conditions: Sequence[ColumnElement[bool]],
    *,
    order: str = "created_at",
    descending: bool = True,
    number: int = 1,
    size: int | None = None,
) -> tuple[list[Row], int]:
    """A page of rows, and how many there are in all; `size` None is all of them."""
    total = select(func.count().label("total_count")).select_from(rows.table).where(*conditions).subquery("counted")
    columns = (rows.table.c[order], rows.table.c[rows.identifier])
    page = (
        _with_spend(rows)
        .where(*conditions)
        .order_by(*(column.desc() if descending else column.asc() for column in columns))
        .limit(size)
        .offset((number - 1) * size if size else None)
        .subquery("page")
    )
    query = select(total.c.total_count, *page.c).select_from(total).join(page, true(), isouter=True)
    found = [plain(row) for row in (await connection.execute(query)).mappings()]
    return [row for row in found if row[rows.identifier] is not None], found[0]["total_count"]


async def all_rows(connection: AsyncConnection, rows: Rows) -> list[Row]:
    """Every row of a table that stays small."""
    query = select(rows.table).order_by(rows.table.c[rows.identifier])
    return [plain(row) for row in (await connection.execute(query)).mappings()]


def _with_spend(rows: Rows) -> Any:  # a select of as many types as columns
    spent = and_(Spend.kind == rows.kind, Spend.subject == rows.table.c[rows.identifier])
    columns = (*rows.table.c, func.coalesce(Spend.spend, 0).label("spend"))
    total = func.coalesce(Spend.total_spend, 0).label("total_spend")
    return select(*columns, total).select_from(rows.table.outerjoin(Spend.__table__, spent))


async def keys_of(connection: AsyncConnection, owner: ColumnElement[bool]) -> list[Row]:
    """The newest keys of an owner, as many as an answer can hold."""
    query = (
        select(*Key.__table__.c, Spend.spend, Spend.total_spend, Spend.last_active)
        .outerjoin(Spend, and_(Spend.kind == "key", Spend.subject == Key.key_id))
        .where(owner)
        .order_by(Key.created_at.desc())
        .limit(_MOST_KEYS)
    )
    return [plain(row) for row in (await connection.execute(query)).mappings()]


async def remove_keys_of(connection: AsyncConnection, owner: ColumnElement[bool], actor: Actor) -> None:
    """Delete all keys of an owner who is deleted."""
    found = await connection.execute(select(Key.__table__).where(owner).order_by(Key.key_id).with_for_update())
    await KEYS.remove(connection, [plain(row) for row in found.mappings()], actor)


async def members_of(connection: AsyncConnection, team_ids: Sequence[str]) -> dict[str, list[Row]]:
    """The members of each team, in the order of their ids, with what they spent there."""
    spent = and_(Spend.kind == "team_member", Spend.subject == TeamMember.team_id + "/" + TeamMember.user_id)
    query = (
        select(*TeamMember.__table__.c, User.user_email, func.coalesce(Spend.spend, 0).label("spend"))
        .join(User, User.user_id == TeamMember.user_id)
        .outerjoin(Spend, spent)
        .where(TeamMember.team_id.in_(team_ids))
        .order_by(TeamMember.user_id)
    )
    members: dict[str, list[Row]] = {team_id: [] for team_id in team_ids}
    for row in (await connection.execute(query)).mappings():
        members[row["team_id"]].append(plain(row))
    return members


async def teams_of(connection: AsyncConnection, user_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ids of each user's teams."""
    query = select(TeamMember.user_id, TeamMember.team_id).where(TeamMember.user_id.in_(user_ids))
    teams: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
    for row in await connection.execute(query.order_by(TeamMember.team_id)):
        teams[row.user_id].append(row.team_id)
    return teams


async def put_member(connection: AsyncConnection, team_id: str, user_id: str, values: Mapping[str, Any]) -> None:
    """Make somebody a member, or set what is given of a membership."""
    identity = {"team_id": team_id, "user_id": user_id}
    statement = upsert(TeamMember).values({**identity, **values})
    update = {**values} or identity
    await connection.execute(statement.on_conflict_do_update(index_elements=list(identity), set_=update))


async def remove_members(connection: AsyncConnection, team_id: str, user_ids: Sequence[str]) -> int:
    """End memberships; gives how many there were."""
    statement = delete(TeamMember).where(TeamMember.team_id == team_id, TeamMember.user_id.in_(user_ids))
    return len((await connection.execute(statement.returning(TeamMember.user_id))).all())


async def set_counter(connection: AsyncConnection, kind: str, subject: str, amount: Any) -> None:
    """Set a spend counter, and with it what is left of the subject's budgets; what was spent in all stays."""
    statement = upsert(Spend).values(kind=kind, subject=subject, spend=amount)
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["kind", "subject"], set_={"spend": amount})
    )
    await count_from(connection, kind, subject, amount)
