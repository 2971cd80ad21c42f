"""Requests and answers about single calls. Names of the ledger are its own, others LiteLLM's."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import MONEY_PATTERN, STATUS_PATTERN, KeyText
from passthrough.admin.schemas.spans import Limit, ModelText, Moment, SpanQuery, Text

Money = Annotated[str, Meta(pattern=MONEY_PATTERN)]
"""USD, read as an exact decimal."""


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
    status: Annotated[str, Meta(pattern=STATUS_PATTERN)] | None = None
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
