"""Requests that do one thing for many, and what became of each.

What cannot be done for one does not hinder the others.
"""

from typing import Annotated

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import Usd, Word
from passthrough.admin.schemas.keys import KeyRow, UpdateKey
from passthrough.admin.schemas.teams import Member, Membership, TeamRow
from passthrough.admin.schemas.users import UpdateUser, UserFields, UserRow

MOST = 500  # of one request, LiteLLM's bound


class BulkUpdate(Struct, kw_only=True, forbid_unknown_fields=True):
    """Updates of keys."""

    keys: Annotated[list[UpdateKey], Meta(min_length=1, max_length=MOST)]


class Updated(Struct, kw_only=True):
    """A key that was updated."""

    key: str
    key_info: KeyRow


class NotUpdated(Struct, kw_only=True):
    """A key that was not, and why not."""

    key: str | None
    failed_reason: str


class BulkUpdated(Struct, kw_only=True):
    """What became of each update."""

    total_requested: int
    successful_updates: list[Updated]
    failed_updates: list[NotUpdated]


class BulkUpdateUsers(Struct, kw_only=True, forbid_unknown_fields=True):
    """Either updates of `users`, or with `all_users` one of every user."""

    users: Annotated[list[UpdateUser], Meta(max_length=MOST)] | None = None
    all_users: bool | None = None
    user_updates: UserFields | None = None


class UserUpdateResult(Struct, kw_only=True):
    """What became of a user; `error` says why nothing did."""

    user_id: str | None
    user_email: str | None
    success: bool
    error: str | None = None
    updated_user: UserRow | None = None


class BulkUpdatedUsers(Struct, kw_only=True):
    """What became of each user, in the order of the request."""

    results: list[UserUpdateResult]
    total_requested: int
    successful_updates: int
    failed_updates: int


class BulkAddMembers(Struct, kw_only=True, forbid_unknown_fields=True):
    """Makes `members` members of a team, or with `all_users` every user who is none yet."""

    team_id: Word
    members: Annotated[list[Member], Meta(max_length=MOST)] | None = None
    all_users: bool | None = None
    max_budget_in_team: Usd | None = None


class MemberAddResult(Struct, kw_only=True):
    """What became of somebody who was to be a member; `error` says why nothing did."""

    user_id: str | None
    user_email: str | None
    success: bool
    error: str | None = None
    updated_user: UserRow | None = None
    updated_team_membership: Membership | None = None


class BulkAddedMembers(Struct, kw_only=True):
    """What became of each, in the order of the request, and the team after it."""

    team_id: str
    results: list[MemberAddResult]
    total_requested: int
    successful_additions: int
    failed_additions: int
    updated_team: TeamRow
