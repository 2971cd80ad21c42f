"""Requests and answers about users and teams."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from passthrough.admin.schemas.fields import (
    EMAIL_PATTERN,
    Aliases,
    Count,
    DurationText,
    Given,
    Idle,
    Label,
    Models,
    Name,
    Usd,
    Word,
    Words,
)
from passthrough.admin.schemas.keys import KeyRow, Page
from passthrough.admin.schemas.requests import Restrictions

PageSize = Annotated[int, Meta(ge=1, le=500)]
Email = Annotated[str, Meta(max_length=256, pattern=EMAIL_PATTERN)]
Identifiers = Annotated[list[Word], Meta(min_length=1, max_length=1000)]
# Roles that may administrate are refused: only the master key administrates.
Role = Literal["internal_user", "internal_user_viewer"]


class UserFields(Restrictions, kw_only=True, forbid_unknown_fields=True):
    """What making and updating a user may set."""

    user_email: Email | Given | None = UNSET
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
    teams: Annotated[list[Word | TeamReference], Meta(max_length=100)] | None = None
    auto_create_key: bool | None = None
    key_alias: Name | None = None
    duration: DurationText | None = None
    aliases: Aliases | None = None


class UpdateUser(UserFields, kw_only=True, forbid_unknown_fields=True):
    """Names a user by `user_id`, or by `user_email` where that is left out."""

    user_id: Word | None = None


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


class LimitsRow(Struct, kw_only=True):
    """Limits as they are kept, and when and by whom the row was made and changed."""

    max_budget: Decimal | None
    soft_budget: Decimal | None
    budget_duration: str | None
    budget_reset_at: datetime | None
    rpm_limit: int | None
    tpm_limit: int | None
    tpd_limit: int | None
    max_parallel_requests: int | None
    model_max_budget: dict[str, Any]
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class OwnerRow(LimitsRow, kw_only=True):
    """What rows of users and teams have in common; `spend` in USD since the counter was last reset."""

    models: list[str]
    metadata: dict[str, Any]
    blocked: bool
    budget_id: str | None
    budget_limits: list[dict[str, Any]]
    model_rpm_limit: dict[str, int]
    model_tpm_limit: dict[str, int]
    spend: Decimal
    total_spend: Decimal


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


class Member(Struct, kw_only=True, forbid_unknown_fields=True):
    """Somebody in a team, by id or address."""

    user_id: Name | None = None
    user_email: Email | None = None
    role: Literal["admin", "user"] = "user"


Members = Annotated[list[Member], Meta(max_length=1000)]


class TeamFields(Restrictions, kw_only=True, forbid_unknown_fields=True):
    """What making and updating a team may set."""

    team_alias: Label | Given | None = UNSET
    model_aliases: Aliases | Given | None = UNSET
    tags: Words | Given | None = UNSET
    team_member_budget: Usd | Given | None = UNSET
    team_member_budget_duration: DurationText | Given | None = UNSET
    team_member_rpm_limit: Count | Given | None = UNSET
    team_member_tpm_limit: Count | Given | None = UNSET

    secret_manager_settings: Idle | Given = UNSET
    team_member_key_duration: Idle | Given = UNSET
    team_member_permissions: Idle | Given = UNSET


class NewTeam(TeamFields, kw_only=True, forbid_unknown_fields=True):
    """Makes a team, with members."""

    team_id: Name | None = None
    members_with_roles: Members | None = None
    members: Words | None = None
    admins: Words | None = None


class UpdateTeam(TeamFields, kw_only=True, forbid_unknown_fields=True):
    """Names a team, and says what to change."""

    team_id: Word


class MemberRow(Struct, kw_only=True):
    """Somebody in a team."""

    user_id: str
    user_email: str | None
    role: str


class Membership(Struct, kw_only=True):
    """What holds for a member in a team."""

    user_id: str
    team_id: str
    role: str
    allowed_models: list[str]
    max_budget_in_team: Decimal | None
    budget_duration: str | None
    budget_reset_at: datetime | None
    rpm_limit: int | None
    tpm_limit: int | None
    spend: Decimal


class TeamRow(OwnerRow, kw_only=True):
    """A team as it is kept."""

    team_id: str
    team_alias: str | None
    members_with_roles: list[MemberRow]
    members: list[str]
    admins: list[str]
    model_aliases: dict[str, str]
    tags: list[str]
    team_member_budget: Decimal | None
    team_member_budget_duration: str | None
    team_member_rpm_limit: int | None
    team_member_tpm_limit: int | None


class UserInfo(Struct, kw_only=True):
    """A user, its newest keys, and its teams."""

    user_id: str
    user_info: UserRow
    keys: list[KeyRow]
    teams: list[TeamRow]


class TeamInfo(Struct, kw_only=True):
    """A team, its newest keys, and its members' shares."""

    team_id: str
    team_info: TeamRow
    keys: list[KeyRow]
    team_memberships: list[Membership]


class TeamUpdated(Struct, kw_only=True):
    """A team's id and row."""

    team_id: str
    data: TeamRow


class TeamQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a team."""

    team_id: Word


class OneTeam(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a team."""

    team_id: Word


class TeamIds(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names teams."""

    team_ids: Identifiers


class DeletedTeams(Struct, kw_only=True):
    """The ids of teams that are gone, with their keys."""

    deleted_teams: list[str]


class TeamsOfQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Only teams of this user."""

    user_id: Name | None = None


class TeamListQuery(TeamsOfQuery, kw_only=True, forbid_unknown_fields=True):
    """Filters, order and page of teams; `team_alias` is a piece of one."""

    team_id: Name | None = None
    team_alias: Label | None = None
    page: Page = 1
    page_size: PageSize = 10
    sort_by: Literal["team_id", "team_alias", "created_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"


class TeamList(Struct, kw_only=True):
    """A page of teams."""

    teams: list[TeamRow]
    total: int
    page: int
    page_size: int
    total_pages: int


class TeamModels(Struct, kw_only=True, forbid_unknown_fields=True):
    """Patterns to add to a team's list, or to take from it."""

    team_id: Word
    models: Models


class MemberShare(Struct, kw_only=True, forbid_unknown_fields=True):
    """What may hold for a member in a team alone."""

    max_budget_in_team: Usd | Given | None = UNSET
    budget_duration: DurationText | Given | None = UNSET
    allowed_models: Models | Given | None = UNSET
    rpm_limit: Count | Given | None = UNSET
    tpm_limit: Count | Given | None = UNSET


class AddMembers(MemberShare, kw_only=True, forbid_unknown_fields=True):
    """Makes one or several people members."""

    team_id: Word
    member: Member | Annotated[list[Member], Meta(min_length=1, max_length=1000)]


class UpdateMember(MemberShare, kw_only=True, forbid_unknown_fields=True):
    """Changes a membership; the member by id or address."""

    team_id: Word
    user_id: Name | None = None
    user_email: Email | None = None
    role: Literal["admin", "user"] | None = None


class DeleteMember(Struct, kw_only=True, forbid_unknown_fields=True):
    """Ends a membership; the member by id or address."""

    team_id: Word
    user_id: Name | None = None
    user_email: Email | None = None
