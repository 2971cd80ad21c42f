"""The routes that do one thing for many: what cannot be done for one is told, and does not hinder the others."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, structs

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.key_answers import key_row
from passthrough.admin.keys import Keys
from passthrough.admin.schemas import bulk as schemas
from passthrough.admin.schemas.keys import UpdateKey
from passthrough.admin.schemas.teams import AddMembers, Member
from passthrough.admin.schemas.users import UpdateUser
from passthrough.admin.team_answers import membership, team_row, user_row
from passthrough.admin.teams import Teams
from passthrough.admin.users import Users
from passthrough.errors import Refusal, Unavailable, invalid
from passthrough.policy.keys import key_id_of
from passthrough.storage.audit import Actor
from passthrough.storage.rows import Row


class BulkRoutes:
    """Requests handed to `Keys`, `Users` and `Teams`, piece by piece."""

    def __init__(self, keys: Keys, users: Users, teams: Teams) -> None:
        self._keys = keys
        self._users = users
        self._teams = teams

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/key/bulk_update",
                handle=self.update_keys,
                body=schemas.BulkUpdate,
                answer=schemas.BulkUpdated,
                summary="Update up to 500 keys, one by one.",
            ),
            Endpoint(
                method="POST",
                path="/user/bulk_update",
                handle=self.update_users,
                body=schemas.BulkUpdateUsers,
                answer=schemas.BulkUpdatedUsers,
                summary="Update up to 500 users, one by one.",
            ),
            Endpoint(
                method="POST",
                path="/team/bulk_member_add",
                handle=self.add_members,
                body=schemas.BulkAddMembers,
                answer=schemas.BulkAddedMembers,
                refuses={404: "There is no such team."},
                summary="Make up to 500 people members of a team.",
            ),
        ]

    async def update_keys(self, asked: Asked) -> schemas.BulkUpdated:
        done: list[schemas.Updated] = []
        failed: list[schemas.NotUpdated] = []
        for update in asked.body.keys:
            try:
                row = await self._keys.update(update, asked.actor)
            except Unavailable:
                raise
            except Refusal as refusal:
                failed.append(schemas.NotUpdated(key=_shown(update), failed_reason=refusal.message))
            else:
                done.append(schemas.Updated(key=row["key_id"], key_info=key_row(row, self._keys.now())))
        return schemas.BulkUpdated(total_requested=len(asked.body.keys), successful_updates=done, failed_updates=failed)

    async def update_users(self, asked: Asked) -> schemas.BulkUpdatedUsers:
        results = [await self._update(update, asked.actor) for update in await self._updates(asked.body)]
        done = sum(result.success for result in results)
        return schemas.BulkUpdatedUsers(
            results=results,
            total_requested=len(results),
            successful_updates=done,
            failed_updates=len(results) - done,
        )

    async def _updates(self, body: schemas.BulkUpdateUsers) -> Sequence[UpdateUser]:
        if bool(body.users) == bool(body.all_users):
            raise invalid("Give either 'users', or 'all_users' with 'user_updates'.", param="users")
        if (body.user_updates is not None) != bool(body.all_users):
            raise invalid("The field 'user_updates' belongs to 'all_users': give both or none.", param="user_updates")
        if body.users:
            return body.users
        changes = structs.asdict(body.user_updates) if body.user_updates else {}
        user_ids = _not_too_many(await self._users.ids(schemas.MOST + 1))
        return [UpdateUser(user_id=user_id, **changes) for user_id in user_ids]

    async def _update(self, update: UpdateUser, actor: Actor) -> schemas.UserUpdateResult:
        email = update.user_email if isinstance(update.user_email, str) else None
        try:
            row = await self._users.update(update, actor)
        except Unavailable:
            raise
        except Refusal as refusal:
            return schemas.UserUpdateResult(
                user_id=update.user_id, user_email=email, success=False, error=refusal.message
            )
        return schemas.UserUpdateResult(
            user_id=row["user_id"], user_email=row["user_email"], success=True, updated_user=user_row(row)
        )

    async def add_members(self, asked: Asked) -> schemas.BulkAddedMembers:
        body: schemas.BulkAddMembers = asked.body
        members = await self._members(body)
        named = [member for member in members if member.user_id or member.user_email]
        budget = UNSET if body.max_budget_in_team is None else body.max_budget_in_team
        team = await self._teams.add_members(
            AddMembers(team_id=body.team_id, member=named, max_budget_in_team=budget), asked.actor
        )
        rows = [_row_of(member, team.members) for member in members]
        users = {row["user_id"]: row for row in await self._users.rows([row["user_id"] for row in rows if row])}
        results = [_added(row, users) for row in rows]
        return schemas.BulkAddedMembers(
            team_id=body.team_id,
            results=results,
            total_requested=len(results),
            successful_additions=sum(result.success for result in results),
            failed_additions=sum(not result.success for result in results),
            updated_team=team_row(team),
        )

    async def _members(self, body: schemas.BulkAddMembers) -> Sequence[Member]:
        if bool(body.members) == bool(body.all_users):
            raise invalid("Give either 'members', or 'all_users'.", param="members")
        if body.members:
            return body.members
        user_ids = _not_too_many(await self._users.ids(schemas.MOST + 1, outside_team=body.team_id))
        return [Member(user_id=user_id) for user_id in user_ids]


def _not_too_many(user_ids: Sequence[str]) -> Sequence[str]:
    if len(user_ids) > schemas.MOST:
        raise invalid(
            f"There are more than {schemas.MOST} users, the most of one request: name them in several.",
            param="all_users",
        )
    return user_ids


def _row_of(member: Member, rows: Sequence[Row]) -> Row | None:
    """The membership that a request named by id or, without one, by address."""
    name, wanted = ("user_id", member.user_id) if member.user_id else ("user_email", member.user_email)
    return next((row for row in rows if wanted and row[name] == wanted), None)


def _added(row: Row | None, users: Mapping[str, Any]) -> schemas.MemberAddResult:
    if row is None:
        reason = "A member needs a user_id or a user_email."
        return schemas.MemberAddResult(user_id=None, user_email=None, success=False, error=reason)
    return schemas.MemberAddResult(
        user_id=row["user_id"],
        user_email=row["user_email"],
        success=True,
        updated_user=user_row(users[row["user_id"]]),
        updated_team_membership=membership(row),
    )


def _shown(update: UpdateKey) -> str | None:
    """How the key was named, the key itself aside."""
    if update.key is not None:
        return key_id_of(update.key)
    return update.key_alias if isinstance(update.key_alias, str) else None
