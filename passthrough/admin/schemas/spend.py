"""Requests and answers about calls and what they cost. Names of the ledger are interface §4's, others LiteLLM's."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import LONGEST_MODEL, LONGEST_NAME, KeyText

Text = Annotated[str, Meta(max_length=LONGEST_NAME)]
ModelText = Annotated[str, Meta(max_length=LONGEST_MODEL)]
_DAY = r"(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
Moment = Annotated[str, Meta(max_length=19, pattern=rf"^{_DAY}([T ]{_TIME})?$(?!\n)")]
"""A day, or a second, of UTC."""
Limit = Annotated[int, Meta(ge=1, le=1000)]
Money = Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,18})?$(?!\n)")]
"""USD, read as an exact decimal."""


class SpanQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Without dates: the last 30 days. Both days are included."""

    start_date: Moment | None = None
    end_date: Moment | None = None


class TopQuery(SpanQuery, kw_only=True, forbid_unknown_fields=True):
    """The dearest `limit`."""

    limit: Limit = 100


class CallsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Filters of calls. `api_key` is a key or its SHA-256; `status` an HTTP status, `success` or `failure`.

    `cursor` is the last `call_id` of the page before: then nothing is counted, however deep one is.
    """

    start_date: Moment
    end_date: Moment
    page: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    page_size: Limit = 100
    cursor: UUID | None = None
    api_key: KeyText | None = None
    key_alias: Text | None = None
    user_id: Text | None = None
    team_id: Text | None = None
    end_user: Text | None = None
    model: ModelText | None = None
    status: Annotated[str, Meta(pattern=r"^([1-5][0-9][0-9]|success|failure)$(?!\n)")] | None = None
    status_filter: Literal["success", "failure"] | None = None
    call_id: UUID | None = None
    request_id: UUID | None = None
    session_id: Text | None = None
    tag: Text | None = None
    min_spend: Money | None = None
    max_spend: Money | None = None
    sort_by: Literal["startTime", "started_at"] = "started_at"
    sort_order: Literal["desc"] = "desc"


class LogsQuery(SpanQuery, kw_only=True, forbid_unknown_fields=True):
    """With both dates, sums by day, unless `summarize` is false; else calls, newest first."""

    api_key: KeyText | None = None
    user_id: Text | None = None
    request_id: UUID | None = None
    summarize: bool = True


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


class CallRow(Struct, kw_only=True):
    """One call. None is "nobody said"; `cost` is in USD, exact."""

    call_id: UUID
    started_at: datetime
    duration_ms: int
    ttfb_ms: int | None
    key_id: str | None
    key_alias: str | None
    user_id: str | None
    team_id: str | None
    end_user: str | None
    tags: list[str]
    session_id: str | None
    client_ip: str | None
    user_agent: str | None
    service: str | None
    operation: str | None
    model: str | None
    billed_model: str | None
    region: str | None
    identity: str | None
    status: int
    error_type: str | None
    upstream_request_id: str | None
    client_invocation_id: str | None
    attempt: int | None
    request_bytes: int
    response_bytes: int
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    usage_source: str
    cost: Decimal | None
    price_status: str
    outcome: str
    stream: bool
    metadata: dict[str, Any] | None
    tier: str | None
    latency: str | None
    usage_details: dict[str, Any] | None


class CallPage(Struct, kw_only=True):
    """Calls, newest first. With a `cursor` nothing is counted, and the counts are null."""

    data: list[CallRow]
    total: int | None
    page: int | None
    page_size: int
    total_pages: int | None
    next_cursor: UUID | None


class SpendLog(CallRow, kw_only=True):
    """A call with, beside our names, those that LiteLLM's scripts read."""

    request_id: UUID
    api_key: str | None
    user: str | None
    spend: Decimal
    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    startTime: datetime  # noqa: N815  # LiteLLM's name
    endTime: datetime  # noqa: N815  # LiteLLM's name
    request_tags: list[str]


class SpendDay(Struct, kw_only=True):
    """What a day cost, by user and by model."""

    startTime: str  # noqa: N815  # LiteLLM's name
    spend: Decimal
    users: dict[str, Decimal]
    models: dict[str, Decimal]


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
