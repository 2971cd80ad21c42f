"""The routes below /team that are about a team's members."""

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas import teams as schemas
from passthrough.admin.schemas.keys import ResetSpend
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
            Endpoint(
                method="POST",
                path="/team/{team_id}/member/{user_id}/reset_spend",
                handle=self.reset_spend,
                body=ResetSpend,
                answer=schemas.MembersSpendWasReset,
                refuses={404: "There is no such team or member."},
                summary="Lower what a member has spent in a team; what the team and the user spent stays.",
            ),
        ]

    async def add(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.add_members(asked.body, asked.actor))

    async def update(self, asked: Asked) -> schemas.Membership:
        return membership(await self._teams.update_member(asked.body, asked.actor))

    async def delete(self, asked: Asked) -> schemas.TeamRow:
        return team_row(await self._teams.delete_member(asked.body, asked.actor))

    async def reset_spend(self, asked: Asked) -> schemas.MembersSpendWasReset:
        team_id, user_id = asked.parts["team_id"], asked.parts["user_id"]
        row, before = await self._teams.reset_member_spend(team_id, user_id, asked.body.reset_to, asked.actor)
        return schemas.MembersSpendWasReset(
            team_id=team_id,
            user_id=user_id,
            spend=row["spend"],
            previous_spend=before,
            max_budget=row["max_budget_in_team"],
        )
