"""What requests have in common: the limits and restrictions that keys, users and teams may be given.

Every field may be left out (nothing changes) or null (what was there is taken away).
"""

from typing import Any

from msgspec import UNSET, Struct, structs

from passthrough.admin.schemas.fields import (
    BudgetWindows,
    Count,
    DurationText,
    Given,
    Idle,
    Metadata,
    ModelBudgets,
    ModelCounts,
    Models,
    Name,
    Usd,
)


class Limits(Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits that a key, user, team, customer or shared budget has alike. Budgets in USD, rates per minute or day."""

    max_budget: Usd | Given | None = UNSET
    soft_budget: Usd | Given | None = UNSET
    budget_duration: DurationText | Given | None = UNSET
    rpm_limit: Count | Given | None = UNSET
    tpm_limit: Count | Given | None = UNSET
    tpd_limit: Count | Given | None = UNSET
    max_parallel_requests: Count | Given | None = UNSET
    model_max_budget: ModelBudgets | Given | None = UNSET


class Restrictions(Limits, kw_only=True, forbid_unknown_fields=True):
    """What an owner may be given beside limits; then LiteLLM's fields that passthrough does not act on."""

    models: Models | Given | None = UNSET
    metadata: Metadata | Given | None = UNSET
    blocked: bool | Given | None = UNSET
    budget_id: Name | Given | None = UNSET
    budget_limits: BudgetWindows | Given | None = UNSET
    model_rpm_limit: ModelCounts | Given | None = UNSET
    model_tpm_limit: ModelCounts | Given | None = UNSET

    access_group_ids: Idle | Given = UNSET
    allowed_cache_controls: Idle | Given = UNSET
    allowed_passthrough_routes: Idle | Given = UNSET
    budget_fallbacks: Idle | Given = UNSET
    config: Idle | Given = UNSET
    default_estimated_output_tokens: Idle | Given = UNSET
    default_estimated_output_tokens_per_model: Idle | Given = UNSET
    denied_passthrough_routes: Idle | Given = UNSET
    disable_global_guardrails: Idle | Given = UNSET
    enable_prompt_caching: Idle | Given = UNSET
    guardrails: Idle | Given = UNSET
    object_permission: Idle | Given = UNSET
    organization_id: Idle | Given = UNSET
    permissions: Idle | Given = UNSET
    policies: Idle | Given = UNSET
    prompts: Idle | Given = UNSET
    router_settings: Idle | Given = UNSET
    rpm_limit_type: Idle | Given = UNSET
    send_invite_email: Idle | Given = UNSET
    tag_rpm_limit: Idle | Given = UNSET
    tpm_limit_type: Idle | Given = UNSET


def given(request: Struct) -> dict[str, Any]:
    """The fields that a request has and that act, null ones included."""
    fields = structs.asdict(request).items()
    return {name: value for name, value in fields if value is not UNSET and not isinstance(value, Idle)}
