"""The routes below /team that are about a team's members."""

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas import teams as schemas
from passthrough.admin.team_answers import membership, team_row
from passthrough.admin.teams import Teams


class MemberRoutes:
    """Requests about members, handed to `Teams`."""

    def __init__(self, teams: Teams) -> None:
        self._teams = teams

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/team/member_add",
                handle=self.add,
                body=schemas.AddMembers,
                answer=schemas.TeamRow,
                refuses={404: "There is no such team."},
                summary="Make people members of a team.",
            ),
            Endpoint(
                method="POST",
                path="/team/member_update",
                handle=self.update,
                body=schemas.UpdateMember,
                answer=schemas.Membership,
                refuses={404: "There is no such team or member."},
                summary="Change what holds for a member in a team alone.",
            ),
            Endpoint(
                method="POST",
                path="/team/member_delete",
                handle=self.delete,
                body=schemas.DeleteMember,
                answer=schemas.TeamRow,
                refuses={404: "There is no such team or member."},
                summary="End a membership.",
            ),
        ]

    async def add(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.add_members(asked.body, asked.actor))

    async def update(self, asked: Asked) -> schemas.Membership:
        return membership(await self._teams.update_member(asked.body, asked.actor))

    async def delete(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.delete_member(asked.body, asked.actor))
