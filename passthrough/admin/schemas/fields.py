"""The kinds of fields that requests are made of, with their bounds.

A field that was not given is UNSET and leaves things as they are; null takes away. Text is refused where it holds
what names do not (quotes, control characters…): PostgreSQL cannot keep a NUL, and terminals and logs show
these.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, UnsetType

# Everything but control characters, quotes, brackets and backslashes; no line feed at the end either, which
# Python's `$` lets pass.
_NAME_PATTERN: Final = r"""^[^\x00-\x1f\x7f"'`;<>\\(){}\[\]]*$(?!\n)"""
_PRINTABLE_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$(?!\n)"

LONGEST_NAME: Final = 256
LONGEST_MODEL: Final = 2048  # botocore: `max` of InvokeModelIdentifier
MOST_BUDGET: Final = 1e12  # USD; a float is exact to the cent below
MOST_COUNT: Final = 2**53  # what every JSON reader reads exactly

Name = Annotated[str, Meta(max_length=LONGEST_NAME, pattern=_NAME_PATTERN)]
Label = Annotated[str, Meta(max_length=LONGEST_NAME, pattern=_PRINTABLE_PATTERN)]
KeyText = Annotated[str, Meta(max_length=512, pattern=_PRINTABLE_PATTERN)]
ModelPattern = Annotated[str, Meta(min_length=1, max_length=LONGEST_MODEL, pattern=_NAME_PATTERN)]
DurationText = Annotated[str, Meta(max_length=9, pattern=r"^(-1|[1-9][0-9]{0,6}(s|m|h|d|w|mo))?$(?!\n)")]
Usd = Annotated[float, Meta(ge=0, le=MOST_BUDGET)]
Count = Annotated[int, Meta(ge=0, le=MOST_COUNT)]
Models = Annotated[list[ModelPattern], Meta(max_length=1000)]
Word = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=_NAME_PATTERN)]
Words = Annotated[list[Word], Meta(max_length=100)]
Metadata = dict[str, Any]

Given = UnsetType
"""In a field's type: "or it was not given"."""


class Idle:
    """A LiteLLM field that passthrough does not act on: it may be there as long as it asks for nothing."""


NOTHING: Final[tuple[Any, ...]] = (None, False, "", [], {})


class ModelBudget(Struct, kw_only=True, forbid_unknown_fields=True):
    """One model's share: LiteLLM has two names for the amount and for the window."""

    budget_limit: Usd | None = None
    max_budget: Usd | None = None
    time_period: DurationText | None = None
    budget_duration: DurationText | None = None
    rpm_limit: Count | None = None
    tpm_limit: Count | None = None


class BudgetWindow(Struct, kw_only=True, forbid_unknown_fields=True):
    """One of several windows that hold at once."""

    budget_duration: DurationText
    max_budget: Usd


ModelBudgets = dict[ModelPattern, ModelBudget]
ModelCounts = dict[ModelPattern, Count]
BudgetWindows = Annotated[list[BudgetWindow], Meta(max_length=10)]
Aliases = dict[Name, ModelPattern]
