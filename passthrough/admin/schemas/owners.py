"""What requests and answers about users, teams, customers and budgets have in common."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import EMAIL_PATTERN, Word

PageSize = Annotated[int, Meta(ge=1, le=500)]
Email = Annotated[str, Meta(max_length=256, pattern=EMAIL_PATTERN)]
Identifiers = Annotated[list[Word], Meta(min_length=1, max_length=1000)]


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
