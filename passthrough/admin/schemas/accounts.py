"""Requests and answers about customers (end users of calls), shared budgets, and the audit."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from passthrough.admin.schemas.fields import Given, Idle, Label, Models, Moment, Name, Usd, Word
from passthrough.admin.schemas.keys import Page
from passthrough.admin.schemas.owners import Identifiers, LimitsRow
from passthrough.admin.schemas.requests import Limits

Longer = Annotated[int, Meta(ge=1, le=1000)]


class CustomerFields(Limits, kw_only=True, forbid_unknown_fields=True):
    """What making and updating a customer may set."""

    alias: Label | Given | None = UNSET
    blocked: bool | Given | None = UNSET
    models: Models | Given | None = UNSET
    budget_id: Name | Given | None = UNSET
    spend: Usd | Given | None = UNSET

    allowed_model_region: Idle | Given = UNSET
    default_model: Idle | Given = UNSET
    metadata: Idle | Given = UNSET
    object_permission: Idle | Given = UNSET


class Customer(CustomerFields, kw_only=True, forbid_unknown_fields=True):
    """Names a customer, and what holds for it."""

    user_id: Word


class CustomerQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a customer."""

    end_user_id: Word


class CustomerListQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """A page of customers."""

    page: Page = 1
    size: Longer = 1000


class CustomerIds(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names customers."""

    user_ids: Identifiers


class CustomerRow(LimitsRow, kw_only=True):
    """A customer as it is kept; `spend` in USD since the counter was last reset."""

    user_id: str
    alias: str | None
    blocked: bool
    models: list[str]
    allowed_model_region: str | None
    budget_id: str | None
    spend: Decimal
    total_spend: Decimal


class BlockedCustomers(Struct, kw_only=True):
    """The customers that were blocked."""

    blocked_users: list[CustomerRow]


class UnblockedCustomers(Struct, kw_only=True):
    """The customers that were unblocked."""

    unblocked_users: list[CustomerRow]


class DeletedCustomers(Struct, kw_only=True):
    """How many customers are gone."""

    deleted_customers: int
    message: str


class BudgetFields(Limits, kw_only=True, forbid_unknown_fields=True):
    """Limits that several subjects may refer to."""

    budget_reset_at: Moment | Given | None = UNSET


class NewBudget(BudgetFields, kw_only=True, forbid_unknown_fields=True):
    """Makes a budget."""

    budget_id: Name | None = None


class UpdateBudget(BudgetFields, kw_only=True, forbid_unknown_fields=True):
    """Names a budget, and says what to change."""

    budget_id: Word


class BudgetIds(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names budgets."""

    budgets: Identifiers


class OneBudget(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a budget."""

    id: Word


class BudgetQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Names a budget."""

    budget_id: Word


class BudgetSetting(Struct, kw_only=True):
    """One field of a budget: what it is, and what it is set to; for LiteLLM's page, with its names."""

    field_name: str
    field_type: Literal["Integer", "Float", "String", "Object"]
    field_description: str
    field_value: Any
    stored_in_db: bool = True
    field_default_value: None = None
    premium_field: bool = False
    nested_fields: None = None


class BudgetRow(LimitsRow, kw_only=True):
    """A budget as it is kept."""

    budget_id: str


class AuditQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Filters and page of changes; dates are `YYYY-MM-DD` or with a time, UTC, the last one included."""

    page: Page = 1
    page_size: Longer = 50
    changed_by: Label | None = None
    action: Name | None = None
    table_name: Name | None = None
    object_id: Name | None = None
    start_date: Moment | None = None
    end_date: Moment | None = None
    sort_order: Literal["asc", "desc"] = "desc"


class AuditRow(Struct, kw_only=True):
    """One change: of an update what differed, of a creation or deletion what was set."""

    id: int
    updated_at: datetime
    changed_by: str
    client_ip: str | None
    action: str
    table_name: str
    object_id: str
    before_value: dict[str, Any] | None
    updated_values: dict[str, Any] | None


class AuditList(Struct, kw_only=True):
    """A page of changes."""

    audit_logs: list[AuditRow]
    total: int
    page: int
    page_size: int
    total_pages: int
