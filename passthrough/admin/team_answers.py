"""Rows of teams and users as answers."""

from typing import Any

import msgspec

from passthrough.admin.schemas import owners as schemas
from passthrough.admin.teams import TeamWithMembers
from passthrough.storage.rows import Row


def user_row(row: Row) -> schemas.UserRow:
    return msgspec.convert(row, schemas.UserRow)


def team_row(team: TeamWithMembers) -> schemas.TeamRow:
    members: list[dict[str, Any]] = [
        {name: member[name] for name in ("user_id", "user_email", "role")} for member in team.members
    ]
    people = {"members_with_roles": members, "members": _ids(team, "user"), "admins": _ids(team, "admin")}
    return msgspec.convert({**team.row, **people}, schemas.TeamRow)


def membership(row: Row) -> schemas.Membership:
    return msgspec.convert(row, schemas.Membership)


def _ids(team: TeamWithMembers, role: str) -> list[str]:
    return [member["user_id"] for member in team.members if member["role"] == role]
