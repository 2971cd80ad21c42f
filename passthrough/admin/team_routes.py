"""The routes below /team that are about teams; those about their members are in `member_routes`."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.key_answers import key_row
from passthrough.admin.schemas import teams as schemas
from passthrough.admin.team_answers import membership, team_row
from passthrough.admin.teams import Teams

_UNKNOWN = {404: "There is no such team."}


class TeamRoutes:
    """Requests about teams, handed to `Teams`, and its rows made into answers."""

    def __init__(self, teams: Teams, clock: Callable[[], float]) -> None:
        self._teams = teams
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        return [*self._reading(), *self._writing(), *self._changing()]

    def _reading(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/team/info",
                handle=self.info,
                query=schemas.TeamQuery,
                answer=schemas.TeamInfo,
                refuses=_UNKNOWN,
                summary="Show a team with its newest keys and its members' shares.",
            ),
            Endpoint(
                method="GET",
                path="/team/list",
                handle=self.list,
                query=schemas.TeamsOfQuery,
                answer=list[schemas.TeamRow],
                summary="List all teams.",
            ),
            Endpoint(
                method="GET",
                path="/v2/team/list",
                handle=self.page,
                query=schemas.TeamListQuery,
                answer=schemas.TeamList,
                summary="List teams, a page at a time.",
            ),
        ]

    def _writing(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/team/new",
                handle=self.new,
                body=schemas.NewTeam,
                answer=schemas.TeamRow,
                summary="Make a team.",
            ),
            Endpoint(
                method="POST",
                path="/team/update",
                handle=self.update,
                body=schemas.UpdateTeam,
                answer=schemas.TeamUpdated,
                refuses=_UNKNOWN,
                summary="Change what is given of a team; null takes away.",
            ),
            Endpoint(
                method="POST",
                path="/team/delete",
                handle=self.delete,
                body=schemas.TeamIds,
                answer=schemas.DeletedTeams,
                refuses=_UNKNOWN,
                summary="Delete teams and their keys: all of them, or none.",
            ),
        ]

    def _changing(self) -> list[Endpoint]:
        blocking = (("block", self.block), ("unblock", self.unblock))
        listing = (("add", self.add_models), ("delete", self.delete_models))
        return [
            *(
                Endpoint(
                    method="POST",
                    path=f"/team/{verb}",
                    handle=handle,
                    body=schemas.OneTeam,
                    answer=schemas.TeamRow,
                    refuses=_UNKNOWN,
                    summary=f"{verb.capitalize()} all keys of a team, at once on every worker.",
                )
                for verb, handle in blocking
            ),
            *(
                Endpoint(
                    method="POST",
                    path=f"/team/model/{verb}",
                    handle=handle,
                    body=schemas.TeamModels,
                    answer=schemas.TeamRow,
                    refuses=_UNKNOWN,
                    summary=f"{verb.capitalize()} patterns of a team's model list.",
                )
                for verb, handle in listing
            ),
        ]

    async def new(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.new(asked.body, asked.actor))

    async def info(self, asked: Asked) -> schemas.TeamInfo:
        team = await self._teams.info(asked.query.team_id)
        now = datetime.fromtimestamp(self._clock(), UTC)
        return schemas.TeamInfo(
            team_id=team.row["team_id"],
            team_info=team_row(team),
            keys=[key_row(key, now) for key in team.keys],
            team_memberships=[membership(member) for member in team.members],
        )

    async def list(self, asked: Asked) -> list[schemas.TeamRow]:
        query = schemas.TeamListQuery(user_id=asked.query.user_id)
        return [team_row(team) for team in (await self._teams.page(query, whole=True))[0]]

    async def page(self, asked: Asked) -> schemas.TeamList:
        query: schemas.TeamListQuery = asked.query
        teams, total = await self._teams.page(query)
        return schemas.TeamList(
            teams=[team_row(team) for team in teams],
            total=total,
            page=query.page,
            page_size=query.page_size,
            total_pages=math.ceil(total / query.page_size),
        )

    async def update(self, asked: Asked) -> schemas.TeamUpdated:
        team = await self._teams.update(asked.body, asked.actor)
        return schemas.TeamUpdated(team_id=team.row["team_id"], data=team_row(team))

    async def delete(self, asked: Asked) -> schemas.DeletedTeams:
        await self._teams.delete(asked.body.team_ids, asked.actor)
        return schemas.DeletedTeams(deleted_teams=asked.body.team_ids)

    async def block(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.block(asked.body.team_id, asked.actor, blocked=True))

    async def unblock(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.block(asked.body.team_id, asked.actor, blocked=False))

    async def add_models(self, asked: Asked) -> schemas.TeamRow:
        body: schemas.TeamModels = asked.body
        return team_row(await self._teams.change_models(body.team_id, body.models, asked.actor, add=True))

    async def delete_models(self, asked: Asked) -> schemas.TeamRow:
        body: schemas.TeamModels = asked.body
        return team_row(await self._teams.change_models(body.team_id, body.models, asked.actor, add=False))
