"""Rows of teams and users as answers."""

from typing import Any

import msgspec

from passthrough.admin.schemas.teams import Membership, TeamRow
from passthrough.admin.schemas.users import UserRow
from passthrough.admin.teams import TeamWithMembers
from passthrough.storage.rows import Row


def user_row(row: Row) -> UserRow:
    return msgspec.convert(row, UserRow)


def team_row(team: TeamWithMembers) -> TeamRow:
    members: list[dict[str, Any]] = [
        {name: member[name] for name in ("user_id", "user_email", "role")} for member in team.members
    ]
    people = {"members_with_roles": members, "members": _ids(team, "user"), "admins": _ids(team, "admin")}
    return msgspec.convert({**team.row, **people}, TeamRow)


def membership(row: Row) -> Membership:
    return msgspec.convert(row, Membership)


def _ids(team: TeamWithMembers, role: str) -> list[str]:
    return [member["user_id"] for member in team.members if member["role"] == role]
