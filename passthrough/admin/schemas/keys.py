"""Requests and answers about keys."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from passthrough.admin.schemas.fields import (
    ROUTE_PATTERN,
    Aliases,
    DurationText,
    Given,
    Idle,
    KeyText,
    Moment,
    Name,
    NewKeyText,
    Usd,
    Word,
    Words,
)
from passthrough.admin.schemas.requests import Restrictions

Route = Annotated[str, Meta(min_length=1, max_length=2048, pattern=ROUTE_PATTERN)]
Empty = Annotated[str, Meta(max_length=0)]
Routes = Annotated[list[Route], Meta(max_length=200)]
Page = Annotated[int, Meta(ge=1, le=1_000_000)]
PageSize = Annotated[int, Meta(ge=1, le=100)]


class KeyFields(Restrictions, kw_only=True, forbid_unknown_fields=True):
    """What generating, updating and regenerating a key may set."""

    key_alias: Name | Given | None = UNSET
    user_id: Name | Given | None = UNSET
    team_id: Name | Given | None = UNSET
    duration: DurationText | Given | None = UNSET
    aliases: Aliases | Given | None = UNSET
    allowed_routes: Routes | Given | None = UNSET
    allowed_regions: Words | Given | None = UNSET
    region: Name | Given | None = UNSET
    tags: Words | Given | None = UNSET
    enforced_params: list[Literal["user"]] | Given | None = UNSET
    auto_rotate: bool | Given | None = UNSET
    rotation_interval: DurationText | Given | None = UNSET
    spend: Usd | Given | None = UNSET

    agent_id: Idle | Given = UNSET
    end_user_budget_id: Idle | Given = UNSET
    project_id: Idle | Given = UNSET
    throttle_on_budget_exceeded: Idle | Given = UNSET


class GenerateKey(KeyFields, kw_only=True, forbid_unknown_fields=True):
    """`key` is a key of one's own choice."""

    key: NewKeyText | None = None
    key_type: Literal["default", "llm_api"] | None = None


class ServiceAccountKey(GenerateKey, kw_only=True, forbid_unknown_fields=True):
    """A key that is its team's and no user's, so that it outlives whoever made it."""

    team_id: Word
    user_id: Given | None = UNSET


class UpdateKey(KeyFields, kw_only=True, forbid_unknown_fields=True):
    """Names a key by `key` (itself or its SHA-256) or, without it, by `key_alias`."""

    key: KeyText | None = None
    temp_budget_increase: Usd | Given | None = UNSET
    temp_budget_expiry: Moment | Given | None = UNSET


class RegenerateKey(KeyFields, kw_only=True, forbid_unknown_fields=True):
    """What to change beside the key's text; `new_key` is one of one's own choice.

    The former text goes on opening the key for `grace_period`. `key` names the key where the path does not.
    """

    key: KeyText | None = None
    new_key: NewKeyText | None = None
    grace_period: DurationText | None = None

    new_master_key: Idle | Given = UNSET


class KeyReference(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names one key, by itself or its SHA-256."""

    key: KeyText


class DeleteKeys(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names keys, by themselves or their SHA-256, or by their aliases."""

    keys: Annotated[list[KeyText], Meta(max_length=1000)] | None = None
    key_aliases: Annotated[list[Name], Meta(max_length=1000)] | None = None


class DeletedKeys(Struct, kw_only=True):
    """The keys that are gone, as they were named."""

    deleted_keys: list[str]


class KeyRow(Struct, kw_only=True):
    """A key as it is kept. `token` is its SHA-256, `spend` in USD since the counter was last reset."""

    token: str
    key_name: str
    key_alias: str | None
    status: Literal["active", "expired", "revoked"]
    user_id: str | None
    team_id: str | None
    models: list[str]
    aliases: dict[str, str]
    allowed_routes: list[str]
    allowed_regions: list[str]
    region: str | None
    tags: list[str]
    metadata: dict[str, Any]
    enforced_params: list[str]
    blocked: bool
    duration: str | None
    expires: datetime | None
    auto_rotate: bool
    rotation_interval: str | None
    rotation_count: int
    last_rotation_at: datetime | None
    key_rotation_at: datetime | None
    spend: Decimal
    total_spend: Decimal
    last_active: datetime | None
    max_budget: Decimal | None
    soft_budget: Decimal | None
    budget_duration: str | None
    budget_reset_at: datetime | None
    budget_limits: list[dict[str, Any]]
    budget_id: str | None
    temp_budget_increase: Decimal | None
    temp_budget_expiry: datetime | None
    rpm_limit: int | None
    tpm_limit: int | None
    tpd_limit: int | None
    max_parallel_requests: int | None
    model_max_budget: dict[str, Any]
    model_rpm_limit: dict[str, int]
    model_tpm_limit: dict[str, int]
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    # LiteLLM's answers have these; here they never hold anything
    config: dict[str, Any] = {}
    permissions: dict[str, Any] = {}
    allowed_cache_controls: list[str] = []
    guardrails: list[str] | None = None
    object_permission: dict[str, Any] | None = None
    litellm_budget_table: dict[str, Any] | None = None


class KeyAnswer(KeyRow, kw_only=True):
    """A key's row, with its SHA-256 as `key`."""

    key: str


class GeneratedKey(KeyRow, kw_only=True):
    """The only answer that holds a key's text, as `key`."""

    key: str
    token_id: str


class AllowanceInfo(Struct, kw_only=True):
    """What is left of one limit, whoever's it is: of money in USD, else whole numbers.

    `field` is the limit's name. `used` is known to be used, `held` reserved for calls under way or leased by a worker
    that was not heard of for a while, `lost` was reserved by calls whose cost nobody will know. A `shadow` limit
    refuses nobody.
    """

    subject: str
    name: str
    field: str
    unit: Literal["usd", "tokens", "requests", "concurrency"]
    model: str | None
    window: str | None
    limit: Decimal
    used: Decimal
    held: Decimal
    lost: Decimal
    remaining: Decimal
    resets_at: datetime | None
    shadow: bool


class KeyInfo(Struct, kw_only=True):
    """One key: its SHA-256, its row, and what is left of each limit that binds it."""

    key: str
    info: KeyRow
    allowances: list[AllowanceInfo]


class KeyInfoQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Without `key`: the caller's own."""

    key: KeyText | None = None


class KeyListQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Filters, order and page of a list of keys; `search` and `substring_matching` find pieces of an alias.

    The last six are LiteLLM's and may ask for nothing that the list does not hold anyway.
    """

    page: Page = 1
    size: PageSize = 10
    user_id: Name | None = None
    team_id: Name | None = None
    key_hash: KeyText | None = None
    key_alias: Name | None = None
    search: Name | None = None
    substring_matching: bool = False
    status: Literal["active", "expired", "revoked"] | None = None
    return_full_object: bool = False
    sort_by: Literal["created_at", "updated_at", "expires", "max_budget", "spend", "key_alias", "token"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    include_team_keys: bool = False
    include_created_by_keys: bool = False
    organization_id: Empty | None = None
    project_id: Empty | None = None
    access_group_id: Empty | None = None
    expand: Empty | None = None


class KeyReferences(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names keys, by themselves or their SHA-256."""

    keys: Annotated[list[KeyText], Meta(max_length=1000)]


class KeyInfos(Struct, kw_only=True):
    """The keys that exist of those that were named: SHA-256s, and rows in the same order."""

    key: list[str]
    info: list[KeyRow]


class AliasQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """A page of aliases; `search` finds a piece of one."""

    page: Page = 1
    size: PageSize = 50
    search: Name | None = None


class AliasList(Struct, kw_only=True):
    """Aliases in their order."""

    aliases: list[str]
    total_count: int
    current_page: int
    total_pages: int
    size: int


class ResetSpend(Struct, kw_only=True, forbid_unknown_fields=True):
    """What the counter is lowered to, USD."""

    reset_to: Usd


class SpendWasReset(KeyAnswer, kw_only=True):
    """The key's row after it, and what the counter was."""

    key_hash: str
    previous_spend: Decimal


class KeyHealth(Struct, kw_only=True):
    """Whether the key of the request works."""

    key: Literal["healthy"] = "healthy"
    logging_callbacks: None = None


class KeyList(Struct, kw_only=True):
    """A page of keys: their SHA-256s, or their rows if `return_full_object` was asked for."""

    keys: list[str | KeyRow]
    total_count: int
    current_page: int
    total_pages: int
