"""Requests and answers about teams and their members."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from passthrough.admin.schemas.fields import (
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
from passthrough.admin.schemas.owners import Email, Identifiers, OwnerRow, PageSize
from passthrough.admin.schemas.requests import Restrictions


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


class MembersSpendWasReset(Struct, kw_only=True):
    """Whose it was, and what the member's counter in the team is now and was."""

    team_id: str
    user_id: str
    spend: Decimal
    previous_spend: Decimal
    max_budget: Decimal | None


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
