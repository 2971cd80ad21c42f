"""The routes below /user."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.key_answers import key_row
from passthrough.admin.schemas import users as schemas
from passthrough.admin.schemas.teams import TeamListQuery
from passthrough.admin.team_answers import team_row, user_row
from passthrough.admin.teams import Teams
from passthrough.admin.users import Users

_UNKNOWN = {404: "There is no such user."}
# With the words of LiteLLM's page. Its roles that administrate are not among them: only the master key does that.
_ROLES = {
    "internal_user": schemas.AvailableRole(
        description="A person or program with keys; the role is kept, and changes nothing that a key may do.",
        ui_label="Internal User (Create/Delete/View)",
    ),
    "internal_user_viewer": schemas.AvailableRole(
        description="As internal_user: a virtual key reads its own info and spend alone.",
        ui_label="Internal User (View Only)",
    ),
}


class UserRoutes:
    """Requests about users, handed to `Users`, and its rows made into answers."""

    def __init__(self, users: Users, teams: Teams, clock: Callable[[], float]) -> None:
        self._users = users
        self._teams = teams
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/user/new",
                handle=self.new,
                body=schemas.NewUser,
                answer=schemas.NewUserAnswer,
                summary="Make a user, and a key for it.",
            ),
            Endpoint(
                method="GET",
                path="/user/info",
                handle=self.info,
                query=schemas.UserQuery,
                answer=schemas.UserInfo,
                refuses=_UNKNOWN,
                summary="Show a user with its newest keys and its teams.",
            ),
            Endpoint(
                method="GET",
                path="/v2/user/info",
                handle=self.row,
                query=schemas.UserQuery,
                answer=schemas.UserRow,
                refuses=_UNKNOWN,
                summary="Show a user.",
            ),
            Endpoint(
                method="GET",
                path="/user/list",
                handle=self.list,
                query=schemas.UserListQuery,
                answer=schemas.UserList,
                summary="List users, a page at a time.",
            ),
            Endpoint(
                method="GET",
                path="/user/available_roles",
                handle=self.roles,
                answer=dict[str, schemas.AvailableRole],
                summary="Show the roles that a user may be given.",
            ),
            Endpoint(
                method="POST",
                path="/user/update",
                handle=self.update,
                body=schemas.UpdateUser,
                answer=schemas.UserUpdated,
                refuses=_UNKNOWN,
                summary="Change what is given of a user; null takes away.",
            ),
            Endpoint(
                method="POST",
                path="/user/delete",
                handle=self.delete,
                body=schemas.UserIds,
                answer=int,
                refuses=_UNKNOWN,
                summary="Delete users and their keys: all of them, or none; answers how many.",
            ),
        ]

    async def new(self, asked: Asked) -> schemas.NewUserAnswer:
        row, made = await self._users.new(asked.body, asked.actor)
        shown = dict(row)
        if made is not None:
            of_key = {name: made.row[name] for name in ("key_name", "key_alias", "expires")}
            shown |= {**of_key, "key": made.key, "token": made.row["key_id"]}
        return msgspec.convert(shown, schemas.NewUserAnswer)

    async def info(self, asked: Asked) -> schemas.UserInfo:
        user = await self._users.info(asked.query.user_id)
        teams, _ = await self._teams.page(TeamListQuery(user_id=asked.query.user_id), whole=True)
        now = datetime.fromtimestamp(self._clock(), UTC)
        return schemas.UserInfo(
            user_id=user.row["user_id"],
            user_info=user_row(user.row),
            keys=[key_row(key, now) for key in user.keys],
            teams=[team_row(team) for team in teams],
        )

    async def row(self, asked: Asked) -> schemas.UserRow:
        return user_row((await self._users.info(asked.query.user_id)).row)

    async def list(self, asked: Asked) -> schemas.UserList:
        query: schemas.UserListQuery = asked.query
        rows, total = await self._users.page(query)
        return schemas.UserList(
            users=[user_row(row) for row in rows],
            total=total,
            page=query.page,
            page_size=query.page_size,
            total_pages=math.ceil(total / query.page_size),
        )

    async def roles(self, asked: Asked) -> dict[str, schemas.AvailableRole]:  # noqa: ARG002  # that of a handler
        return _ROLES

    async def update(self, asked: Asked) -> schemas.UserUpdated:
        row = await self._users.update(asked.body, asked.actor)
        return schemas.UserUpdated(user_id=row["user_id"], data=user_row(row))

    async def delete(self, asked: Asked) -> int:
        return await self._users.delete(asked.body.user_ids, asked.actor)
