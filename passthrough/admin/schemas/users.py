"""Requests and answers about users."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from passthrough.admin.schemas.fields import Aliases, DurationText, Given, Idle, Label, Name, Usd, Word
from passthrough.admin.schemas.keys import KeyRow, Page
from passthrough.admin.schemas.owners import Email, Identifiers, OwnerRow, PageSize
from passthrough.admin.schemas.requests import Restrictions
from passthrough.admin.schemas.teams import TeamRow

# Roles that may administrate are refused: only the master key administrates.
Role = Literal["internal_user", "internal_user_viewer"]


class UserFields(Restrictions, kw_only=True, forbid_unknown_fields=True):
    """What making and updating a user may set, its address aside."""

    user_alias: Label | Given | None = UNSET
    user_role: Role | Given | None = UNSET
    spend: Usd | Given | None = UNSET

    allowed_routes: Idle | Given = UNSET
    organizations: Idle | Given = UNSET
    password: Idle | Given = UNSET
    sso_user_id: Idle | Given = UNSET
    invited_user_email: Idle | Given = UNSET


class TeamReference(Struct, kw_only=True, forbid_unknown_fields=True):
    """A team that a new user joins, and in which role."""

    team_id: Word
    user_role: Literal["admin", "user"] = "user"
    max_budget_in_team: Usd | None = None


class NewUser(UserFields, kw_only=True, forbid_unknown_fields=True):
    """Makes a user, and unless `auto_create_key` is false a key, to which alias, duration and aliases go."""

    user_id: Name | None = None
    user_email: Email | Given | None = UNSET
    teams: Annotated[list[Word | TeamReference], Meta(max_length=100)] | None = None
    auto_create_key: bool | None = None
    key_alias: Name | None = None
    duration: DurationText | None = None
    aliases: Aliases | None = None


class UpdateUser(UserFields, kw_only=True, forbid_unknown_fields=True):
    """Names a user by `user_id`, or by `user_email` where that is left out."""

    user_id: Word | None = None
    user_email: Email | Given | None = UNSET


class UserIds(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names users."""

    user_ids: Identifiers


class UserQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a user."""

    user_id: Word


class UserListQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Filters, order and page of users; `user_ids` is a list with commas, `user_email` a piece of an address."""

    user_ids: Name | None = None
    user_email: Label | None = None
    role: Role | None = None
    team: Name | None = None
    page: Page = 1
    page_size: PageSize = 25
    sort_by: Literal["user_id", "user_email", "user_alias", "created_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"


class UserRow(OwnerRow, kw_only=True):
    """A user as it is kept; `teams` are ids."""

    user_id: str
    user_email: str | None
    user_alias: str | None
    user_role: str | None
    teams: list[str]


class NewUserAnswer(UserRow, kw_only=True):
    """A new user, and the text of the key that was made for it: the only answer that holds it."""

    key: str | None = None
    token: str | None = None
    key_name: str | None = None
    key_alias: str | None = None
    expires: datetime | None = None


class UserUpdated(Struct, kw_only=True):
    """A user's id and row."""

    user_id: str
    data: UserRow


class UserList(Struct, kw_only=True):
    """A page of users."""

    users: list[UserRow]
    total: int
    page: int
    page_size: int
    total_pages: int


class UserInfo(Struct, kw_only=True):
    """A user, its newest keys, and its teams."""

    user_id: str
    user_info: UserRow
    keys: list[KeyRow]
    teams: list[TeamRow]


class AvailableRole(Struct, kw_only=True):
    """What a role means, and what LiteLLM's page calls it."""

    description: str
    ui_label: str
