"""Requests and answers about what calls cost together. Names are LiteLLM's."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import KeyText
from passthrough.admin.schemas.spans import Limit, ModelText, SpanQuery, Text, TopQuery


class CountersQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The dearest `limit`, or one user."""

    limit: Limit = 100
    user_id: Text | None = None


class ReportQuery(TopQuery, kw_only=True, forbid_unknown_fields=True):
    """What the report is by. `limit` does not cut it: it is there for LiteLLM's scripts."""

    group_by: Literal["team", "customer", "api_key", "user", "model", "tag"] = "team"


class ActivityQuery(SpanQuery, kw_only=True, forbid_unknown_fields=True):
    """Days, newest first. `user_id`, `team_ids` (a comma list), `api_key` and `model` filter."""

    page: Annotated[int, Meta(ge=1, le=100_000)] = 1
    page_size: Limit = 50
    user_id: Text | None = None
    team_ids: Annotated[str, Meta(max_length=4096)] | None = None
    api_key: KeyText | None = None
    model: ModelText | None = None


class UserSpend(Struct, kw_only=True):
    """A user and what it has spent since its counter was reset, and ever."""

    user_id: str
    spend: Decimal
    total_spend: Decimal
    last_active: datetime | None


class KeySpend(Struct, kw_only=True):
    """A key and what it has spent since its counter was reset, and ever; a deleted key has no name."""

    token: str
    key_alias: str | None
    key_name: str | None
    user_id: str | None
    team_id: str | None
    spend: Decimal
    total_spend: Decimal
    last_active: datetime | None


class TagSpend(Struct, kw_only=True):
    """A call with several tags counts under each."""

    individual_request_tag: str
    log_count: int
    total_spend: Decimal


class GlobalSpend(Struct, kw_only=True):
    """What everything has cost; `max_budget` is null as long as there is no global budget."""

    spend: Decimal
    max_budget: Decimal | None = None


class GlobalKey(Struct, kw_only=True):
    """A key's spend in the span."""

    api_key: str
    key_alias: str | None
    key_name: str | None
    total_spend: Decimal


class GlobalModel(Struct, kw_only=True):
    """A billed model's spend in the span."""

    model: str
    total_spend: Decimal


class GlobalEndUser(Struct, kw_only=True):
    """A customer's spend and calls in the span."""

    end_user: str
    total_count: int
    total_spend: Decimal


class TeamTotal(Struct, kw_only=True):
    """A team's spend in the span."""

    team_id: str
    total_spend: Decimal


class GlobalTeams(Struct, kw_only=True):
    """`daily_spend` has an object a day: `date`, and each team's spend under its name."""

    daily_spend: list[dict[str, Any]]
    teams: list[str]
    total_spend_per_team: list[TeamTotal]


class TagTotal(Struct, kw_only=True):
    """A tag's spend and calls in the span."""

    name: str
    spend: Decimal
    log_count: int


class GlobalTags(Struct, kw_only=True):
    """The dearest tags."""

    spend_per_tag: list[TagTotal]


class ActivityDay(Struct, kw_only=True):
    """Calls and tokens of a day."""

    date: str
    api_requests: int
    total_tokens: int


class GlobalActivity(Struct, kw_only=True):
    """Calls and tokens by day, and in all."""

    daily_data: list[ActivityDay]
    sum_api_requests: int
    sum_total_tokens: int


class Metrics(Struct, kw_only=True):
    """Sums; `prompt_tokens` are input tokens with what was read from and written to caches."""

    spend: Decimal = Decimal(0)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    total_tokens: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    api_requests: int = 0


class Part(Struct, kw_only=True):
    """A part of a day's sums."""

    metrics: Metrics
    metadata: dict[str, str | None] = {}


class Breakdown(Struct, kw_only=True):
    """The day's sums by billed model, by key, and by what was asked for (users or teams)."""

    models: dict[str, Part]
    api_keys: dict[str, Part]
    entities: dict[str, Part]


class DailyActivityDay(Struct, kw_only=True):
    """One day."""

    date: str
    metrics: Metrics
    breakdown: Breakdown


class DailyActivityTotals(Struct, kw_only=True):
    """Sums of the whole span, and which page of days this is."""

    total_spend: Decimal
    total_prompt_tokens: int
    total_completion_tokens: int
    total_tokens: int
    total_api_requests: int
    total_successful_requests: int
    total_failed_requests: int
    total_cache_read_input_tokens: int
    total_cache_creation_input_tokens: int
    page: int
    total_pages: int
    has_more: bool


class DailyActivity(Struct, kw_only=True):
    """Days, newest first."""

    results: list[DailyActivityDay]
    metadata: DailyActivityTotals
