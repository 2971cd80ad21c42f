"""The kinds of fields that requests are made of, with their bounds.

A field that was not given is UNSET and leaves things as they are; null takes away. Text is refused where it holds
what names do not (quotes, control characters…): PostgreSQL cannot keep a NUL, and terminals and logs show
these.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, UnsetType

from passthrough.policy import durations
from passthrough.policy.keys import KEY_PREFIX, LONGEST_KEY, SHORTEST_KEY

# Everything but control characters, quotes, brackets and backslashes; no line feed at the end either, which
# Python's `$` lets pass.
_NAME_PATTERN: Final = r"""^[^\x00-\x1f\x7f"'`;<>\\(){}\[\]]*$(?!\n)"""
_PRINTABLE_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$(?!\n)"
_KEY_PATTERN: Final = rf"^{KEY_PREFIX}[!-~]+$(?!\n)"
_DURATION_PATTERN: Final = rf"^(-1|{durations.PATTERN})?$(?!\n)"
_WINDOW_PATTERN: Final = rf"^({durations.PATTERN})$(?!\n)"
_MOMENT_PATTERN: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{5,15}(Z|[+-][0-9]{2}:[0-9]{2})?)?)?$(?!\n)"
EMAIL_PATTERN: Final = r"^([^@\s\x00-\x1f\x7f;]+@[^@\s\x00-\x1f\x7f;]+)?$(?!\n)"
ROUTE_PATTERN: Final = r"^[!-~]+$(?!\n)"
_DAY: Final = r"(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
SPAN_PATTERN: Final = rf"^{_DAY}([T ]{_TIME})?$(?!\n)"
MONEY_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,18})?$(?!\n)"
STATUS_PATTERN: Final = r"^([1-5][0-9][0-9]|success|failure)$(?!\n)"

FORMS: Final = {
    _NAME_PATTERN: "a text without control characters, quotes, semicolons, backslashes and brackets",
    _PRINTABLE_PATTERN: "a text without control characters",
    _KEY_PATTERN: f"a key: {KEY_PREFIX} and ASCII characters without blanks",
    _DURATION_PATTERN: "a duration such as 30d (units s, m, h, d, w, mo)",
    _WINDOW_PATTERN: "a duration such as 30d (units s, m, h, d, w, mo)",
    _MOMENT_PATTERN: "a date or time such as 2026-01-31T12:00:00Z",
    EMAIL_PATTERN: "an e-mail address",
    SPAN_PATTERN: "a date of UTC such as 2026-01-31 or 2026-01-31 12:00:00, from 1970 to 2099",
    MONEY_PATTERN: "an amount in USD such as 0.25",
    STATUS_PATTERN: "an HTTP status such as 200, success or failure",
    ROUTE_PATTERN: "an operation, a service or a path, without blanks",
}
"""What a pattern asks for, in words for a refusal."""

LONGEST_NAME: Final = 256
LONGEST_MODEL: Final = 2048  # botocore: `max` of InvokeModelIdentifier
MOST_BUDGET: Final = 1e12  # USD; a float is exact to the cent below
MOST_COUNT: Final = 2**53 - 1  # up to here every JSON reader, and a float, is exact

Name = Annotated[str, Meta(max_length=LONGEST_NAME, pattern=_NAME_PATTERN)]
Label = Annotated[str, Meta(max_length=LONGEST_NAME, pattern=_PRINTABLE_PATTERN)]
NewKeyText = Annotated[str, Meta(min_length=SHORTEST_KEY, max_length=LONGEST_KEY, pattern=_KEY_PATTERN)]
KeyText = Annotated[str, Meta(max_length=LONGEST_KEY, pattern=_PRINTABLE_PATTERN)]
ModelPattern = Annotated[str, Meta(min_length=1, max_length=LONGEST_MODEL, pattern=_NAME_PATTERN)]
DurationText = Annotated[str, Meta(max_length=10, pattern=_DURATION_PATTERN)]
WindowText = Annotated[str, Meta(max_length=10, pattern=_WINDOW_PATTERN)]
Moment = Annotated[str, Meta(max_length=40, pattern=_MOMENT_PATTERN)]
Usd = Annotated[float, Meta(ge=0, le=MOST_BUDGET)]
# A JSON number without a fraction, also where it is written 10.0, as Python's json does with floats.
Count = Annotated[float, Meta(ge=0, le=MOST_COUNT, multiple_of=1)]
Models = Annotated[list[ModelPattern], Meta(max_length=1000)]
Word = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=_NAME_PATTERN)]
Words = Annotated[list[Word], Meta(max_length=100)]

JSON_VALUE: Final[dict[str, Any]] = {
    "description": "Any JSON without NUL characters.",
    "anyOf": [
        {"type": ["null", "boolean", "number"]},
        {"type": "string", "pattern": r"^[^\x00]*$"},
        {"type": "array", "items": {"$ref": "#/components/schemas/JsonValue"}},
        {
            "type": "object",
            "propertyNames": {"pattern": r"^[^\x00]*$"},
            "additionalProperties": {"$ref": "#/components/schemas/JsonValue"},
        },
    ],
}
Metadata = Annotated[dict[str, Any], Meta(extra_json_schema=JSON_VALUE["anyOf"][3])]

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

    budget_duration: WindowText
    max_budget: Usd


ModelBudgets = dict[ModelPattern, ModelBudget]
ModelCounts = dict[ModelPattern, Count]
BudgetWindows = Annotated[list[BudgetWindow], Meta(max_length=10)]
Aliases = dict[Name, ModelPattern]
