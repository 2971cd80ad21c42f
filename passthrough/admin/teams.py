"""What can be done with teams and their members; each of these is one transaction, and nobody's HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin import owners
from passthrough.admin.patch import columns
from passthrough.admin.schemas import teams as schemas
from passthrough.admin.schemas.requests import given
from passthrough.errors import Refusal, invalid
from passthrough.storage.audit import Actor, record
from passthrough.storage.database import Database
from passthrough.storage.owners import (
    keys_of,
    members_of,
    page_with_spend,
    put_member,
    remove_keys_of,
    remove_members,
    rows_with_spend,
)
from passthrough.storage.rows import TEAMS, USERS, Row
from passthrough.storage.schema import Key, Team, TeamMember, User

_MEMBERS = "team_members"  # in the audit
_SHARE = frozenset({"max_budget_in_team", "budget_duration", "allowed_models", "rpm_limit", "tpm_limit"})


@dataclass(frozen=True, slots=True)
class TeamWithMembers:
    """A team's row, its members' rows (with `user_email`), and its newest keys where they were asked for."""

    row: Row
    members: Sequence[Row]
    keys: Sequence[Row] = ()


class Teams:
    """Teams in the database. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def new(self, request: schemas.NewTeam, actor: Actor) -> TeamWithMembers:
        """Make a team with members; a 400 when there is one of this id."""
        team_id = request.team_id or owners.fresh_id()
        roles = [
            *(request.members_with_roles or ()),
            *(schemas.Member(user_id=user_id, role="admin") for user_id in request.admins or ()),
            *(schemas.Member(user_id=user_id) for user_id in request.members or ()),
        ]
        async with self._database.begin() as connection:
            await owners.create(connection, TEAMS, team_id, owners.settable(request, TEAMS, self._now()), actor)
            for member in roles:
                await self._put(connection, team_id, member, {}, actor)
            return await _shown(connection, team_id)

    async def update(self, request: schemas.UpdateTeam, actor: Actor) -> TeamWithMembers:
        """Change what was given of a team; 404 if there is none."""
        values = owners.settable(request, TEAMS, self._now())
        values.pop("team_id")
        return await self._change(request.team_id, values, actor)

    async def block(self, team_id: str, actor: Actor, *, blocked: bool) -> TeamWithMembers:
        """Block or unblock all of a team's keys."""
        return await self._change(team_id, {"blocked": blocked}, actor, action="blocked" if blocked else "unblocked")

    async def change_models(self, team_id: str, models: Sequence[str], actor: Actor, *, add: bool) -> TeamWithMembers:
        """Add patterns to a team's list, or take them from it; one that becomes empty would allow all: a 400."""
        async with self._database.begin() as connection:
            before = await owners.locked(connection, TEAMS, team_id)
            kept = [model for model in before["models"] if model not in models]
            if not add and before["models"] and not kept:
                raise invalid(
                    "The team would be left without a model list, which allows all: name another list in /team/update.",
                    param="models",
                )
            listed = list(dict.fromkeys([*before["models"], *models])) if add else kept
            await owners.change(connection, TEAMS, before, {"models": listed}, actor)
            return await _shown(connection, team_id)

    async def delete(self, team_ids: Sequence[str], actor: Actor) -> None:
        """Delete teams and their keys, all or none; 404 if one does not exist."""
        wanted = list(dict.fromkeys(team_ids))
        async with self._database.begin() as connection:
            rows = await TEAMS.get(connection, wanted, lock=True)
            if len(rows) < len(wanted):
                raise owners.unknown(TEAMS)
            await remove_keys_of(connection, Key.team_id.in_(wanted), actor)
            await TEAMS.remove(connection, list(rows.values()), actor)

    async def info(self, team_id: str) -> TeamWithMembers:
        """Give a team with its newest keys; 404 if there is none."""
        async with self._database.begin() as connection:
            team = await _shown(connection, team_id)
            return TeamWithMembers(team.row, team.members, await keys_of(connection, Key.team_id == team_id))

    async def page(self, query: schemas.TeamListQuery, *, whole: bool = False) -> tuple[list[TeamWithMembers], int]:
        """A page of teams, or all of them, and how many there are."""
        async with self._database.begin() as connection:
            rows, total = await page_with_spend(
                connection,
                TEAMS,
                _conditions(query),
                order=query.sort_by,
                descending=query.sort_order == "desc",
                number=query.page,
                size=None if whole else query.page_size,
            )
            return await _with_members(connection, rows), total

    async def add_members(self, request: schemas.AddMembers, actor: Actor) -> TeamWithMembers:
        """Make people members, creating those that nobody created before."""
        share = self._share(request)
        members = request.member if isinstance(request.member, list) else [request.member]
        async with self._database.begin() as connection:
            await owners.locked(connection, TEAMS, request.team_id)
            for member in members:
                await self._put(connection, request.team_id, member, share, actor)
            return await _shown(connection, request.team_id)

    async def update_member(self, request: schemas.UpdateMember, actor: Actor) -> Row:
        """Change a membership; 404 if there is none."""
        async with self._database.begin() as connection:
            await owners.locked(connection, TEAMS, request.team_id)
            user_id = await _member_id(connection, request)
            values = self._share(request) | ({"role": request.role} if request.role else {})
            before = await _membership(connection, request.team_id, user_id)
            await put_member(connection, request.team_id, user_id, values)
            after = await _membership(connection, request.team_id, user_id)
            await _audit(connection, actor, request.team_id, user_id, before, after)
            return after

    async def delete_member(self, request: schemas.DeleteMember, actor: Actor) -> TeamWithMembers:
        """End a membership; 404 if there is none."""
        async with self._database.begin() as connection:
            await owners.locked(connection, TEAMS, request.team_id)
            user_id = await _member_id(connection, request)
            before = await _membership(connection, request.team_id, user_id)
            await remove_members(connection, request.team_id, [user_id])
            await _audit(connection, actor, request.team_id, user_id, before, None)
            return await _shown(connection, request.team_id)

    async def reset_member_spend(self, team_id: str, user_id: str, amount: float, actor: Actor) -> tuple[Row, Decimal]:
        """Lower what a member has spent in a team to `amount`; gives the membership and what it was before."""
        async with self._database.begin() as connection:
            await owners.locked(connection, TEAMS, team_id)
            before = await _membership(connection, team_id, user_id)
            who, spent = f"{team_id}/{user_id}", before["spend"]
            await owners.lower_counter(
                connection, "team_member", _MEMBERS, who, spent=spent, amount=amount, actor=actor
            )
            return await _membership(connection, team_id, user_id), spent

    async def _change(
        self, team_id: str, values: Mapping[str, Any], actor: Actor, *, action: str = "updated"
    ) -> TeamWithMembers:
        async with self._database.begin() as connection:
            before = await owners.locked(connection, TEAMS, team_id)
            await owners.change(connection, TEAMS, before, values, actor, action=action)
            return await _shown(connection, team_id)

    async def _put(
        self,
        connection: AsyncConnection,
        team_id: str,
        member: schemas.Member,
        share: Mapping[str, Any],
        actor: Actor,
    ) -> None:
        user_id = member.user_id or await _ensured_by_email(connection, member.user_email, actor)
        await USERS.ensure(connection, user_id, actor)
        await put_member(connection, team_id, user_id, {**share, "role": member.role})
        after = await _membership(connection, team_id, user_id)
        await _audit(connection, actor, team_id, user_id, None, after)

    def _share(self, request: schemas.MemberShare) -> dict[str, Any]:
        return columns({name: value for name, value in given(request).items() if name in _SHARE}, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


async def _ensured_by_email(connection: AsyncConnection, email: str | None, actor: Actor) -> str:
    if not email:
        raise invalid("A member needs a user_id or a user_email.", param="member")
    found = await connection.scalar(select(User.user_id).where(User.user_email == email).limit(1))
    if found is not None:
        return found
    return str((await owners.create(connection, USERS, owners.fresh_id(), {"user_email": email}, actor))["user_id"])


async def _member_id(connection: AsyncConnection, request: schemas.UpdateMember | schemas.DeleteMember) -> str:
    if request.user_id:
        return request.user_id
    if not request.user_email:
        raise invalid("Name the member by 'user_id', or by 'user_email'.", param="user_id")
    query = select(TeamMember.user_id).join(User, User.user_id == TeamMember.user_id)
    query = query.where(TeamMember.team_id == request.team_id, User.user_email == request.user_email)
    found = await connection.scalar(query.limit(1))
    if found is None:
        raise _no_member()
    return found


async def _membership(connection: AsyncConnection, team_id: str, user_id: str) -> Row:
    for member in (await members_of(connection, [team_id]))[team_id]:
        if member["user_id"] == user_id:
            return member
    raise _no_member()


def _no_member() -> Refusal:
    return Refusal(404, "", "There is no such member in this team: name an existing one.", param="user_id")


async def _audit(
    connection: AsyncConnection, actor: Actor, team_id: str, user_id: str, before: Row | None, after: Row | None
) -> None:
    action = "updated" if before and after else "created" if after else "deleted"
    identifier = f"{team_id}/{user_id}"
    await record(connection, actor, action=action, table=_MEMBERS, identifier=identifier, before=before, after=after)


async def _shown(connection: AsyncConnection, team_id: str) -> TeamWithMembers:
    found = await rows_with_spend(connection, TEAMS, [team_id])
    if not found:
        raise owners.unknown(TEAMS)
    return (await _with_members(connection, list(found.values())))[0]


async def _with_members(connection: AsyncConnection, rows: list[Row]) -> list[TeamWithMembers]:
    members = await members_of(connection, [row["team_id"] for row in rows])
    return [TeamWithMembers(row, members[row["team_id"]]) for row in rows]


def _conditions(query: schemas.TeamListQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.team_id:
        conditions.append(Team.team_id == query.team_id)
    if query.team_alias:
        conditions.append(Team.team_alias.icontains(query.team_alias, autoescape=True))
    if query.user_id:
        conditions.append(Team.team_id.in_(select(TeamMember.team_id).where(TeamMember.user_id == query.user_id)))
    return conditions
