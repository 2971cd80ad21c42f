"""What can be done with users; each of these is one transaction, and nobody's HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin import owners
from passthrough.admin.keys import Keys, Made
from passthrough.admin.patch import exact
from passthrough.admin.schemas.keys import GenerateKey
from passthrough.admin.schemas.users import NewUser, TeamReference, UpdateUser, UserListQuery
from passthrough.errors import invalid
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database
from passthrough.storage.owners import (
    keys_of,
    page_with_spend,
    put_member,
    remove_keys_of,
    rows_with_spend,
    teams_of,
)
from passthrough.storage.rows import TEAMS, USERS, Row
from passthrough.storage.schema import Key, TeamMember, User


@dataclass(frozen=True, slots=True)
class UserWithKeys:
    """A user's row (with `teams`, ids), and its newest keys."""

    row: Row
    keys: Sequence[Row]


class Users:
    """Users in the database; `keys` makes the key that a new user gets."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def new(self, request: NewUser, actor: Actor) -> tuple[Row, Made | None]:
        """Make a user, unless told otherwise with a key; a 400 when there is one of this id."""
        user_id = request.user_id or owners.fresh_id()
        async with self._database.begin() as connection:
            values = owners.settable(request, USERS, self._keys.now())
            await owners.create(connection, USERS, user_id, values, actor)
            await owners.count_from(connection, USERS, user_id, request.spend)
            for team in request.teams or ():
                await _join(connection, user_id, team, actor)
            made = None
            if request.auto_create_key is not False:
                key = GenerateKey(
                    user_id=user_id,
                    key_alias=request.key_alias,
                    duration=request.duration,
                    aliases=request.aliases,
                )
                made = await self._keys.generate_in(connection, key, actor)
            return (await _shown(connection, [user_id]))[0], made

    async def update(self, request: UpdateUser, actor: Actor) -> Row:
        """Change what was given of a user; 404 if there is none."""
        async with self._database.begin() as connection:
            user_id = request.user_id or await self._id_of_email(connection, request.user_email)
            before = await owners.locked(connection, USERS, user_id)
            values = owners.settable(request, USERS, self._keys.now())
            values.pop("user_id", None)
            await owners.change(connection, USERS, before, values, actor)
            await owners.count_from(connection, USERS, user_id, request.spend)
            return (await _shown(connection, [user_id]))[0]

    async def delete(self, user_ids: Sequence[str], actor: Actor) -> int:
        """Delete users and their keys, all or none; 404 if one does not exist."""
        wanted = list(dict.fromkeys(user_ids))
        async with self._database.begin() as connection:
            rows = await USERS.get(connection, wanted, lock=True)
            if len(rows) < len(wanted):
                raise owners.unknown(USERS)
            await remove_keys_of(connection, Key.user_id.in_(wanted), actor)
            await USERS.remove(connection, list(rows.values()), actor)
        return len(wanted)

    async def info(self, user_id: str) -> UserWithKeys:
        """Give a user with its newest keys; 404 if there is none."""
        async with self._database.begin() as connection:
            rows = await _shown(connection, [user_id])
            if not rows:
                raise owners.unknown(USERS)
            return UserWithKeys(rows[0], await keys_of(connection, Key.user_id == user_id))

    async def rows(self, user_ids: Sequence[str]) -> list[Row]:
        """The rows of the named users that exist."""
        async with self._database.begin() as connection:
            return await _shown(connection, user_ids)

    async def ids(self, most: int, *, outside_team: str | None = None) -> Sequence[str]:
        """The newest users, at most so many; with `outside_team` those who are not in it."""
        query = select(User.user_id).order_by(User.created_at.desc(), User.user_id).limit(most)
        if outside_team is not None:
            query = query.where(
                User.user_id.not_in(select(TeamMember.user_id).where(TeamMember.team_id == outside_team))
            )
        async with self._database.begin() as connection:
            return (await connection.scalars(query)).all()

    async def page(self, query: UserListQuery) -> tuple[list[Row], int]:
        """A page of users, and how many there are in all."""
        async with self._database.begin() as connection:
            rows, total = await page_with_spend(
                connection,
                USERS,
                _conditions(query),
                order=query.sort_by,
                descending=query.sort_order == "desc",
                number=query.page,
                size=query.page_size,
            )
            return await _with_teams(connection, rows), total

    async def _id_of_email(self, connection: AsyncConnection, email: Any) -> str:
        if not isinstance(email, str) or not email:
            raise invalid("Name the user by 'user_id', or by 'user_email'.", param="user_id")
        found = (await connection.scalars(select(User.user_id).where(User.user_email == email))).all()
        if not found:
            raise owners.unknown(USERS)
        if len(found) > 1:
            raise invalid("Several users have this user_email: name the user by user_id.", param="user_email")
        return found[0]


async def _join(connection: AsyncConnection, user_id: str, team: str | TeamReference, actor: Actor) -> None:
    reference = TeamReference(team_id=team) if isinstance(team, str) else team
    await TEAMS.ensure(connection, reference.team_id, actor)
    budget = reference.max_budget_in_team
    share = {"role": reference.user_role, "max_budget_in_team": None if budget is None else exact(budget)}
    await put_member(connection, reference.team_id, user_id, share)


async def _shown(connection: AsyncConnection, user_ids: Sequence[str]) -> list[Row]:
    found = await rows_with_spend(connection, USERS, user_ids)
    return await _with_teams(connection, list(found.values()))


async def _with_teams(connection: AsyncConnection, rows: list[Row]) -> list[Row]:
    teams = await teams_of(connection, [row["user_id"] for row in rows])
    return [{**row, "teams": teams[row["user_id"]]} for row in rows]


def _conditions(query: UserListQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.user_ids:
        conditions.append(User.user_id.in_([part.strip() for part in query.user_ids.split(",")]))
    if query.user_email:
        conditions.append(User.user_email.icontains(query.user_email, autoescape=True))
    if query.role:
        conditions.append(User.user_role == query.role)
    if query.team:
        conditions.append(User.user_id.in_(select(TeamMember.user_id).where(TeamMember.team_id == query.team)))
    return conditions
