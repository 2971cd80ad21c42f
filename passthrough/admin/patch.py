"""From what a request says to what a row holds: null means empty, amounts become exact, durations become dates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from msgspec import to_builtins

from passthrough.errors import invalid
from passthrough.policy.durations import after, window_end

MOST_METADATA_BYTES: Final = 16 * 1024  # metadata travels with the key into each worker's cache

# What a column holds when nothing is set; every other column then holds null.
_EMPTY: Final[Mapping[str, Any]] = {
    "models": [],
    "allowed_models": [],
    "allowed_routes": [],
    "allowed_regions": [],
    "tags": [],
    "enforced_params": [],
    "metadata": {},
    "aliases": {},
    "model_aliases": {},
    "budget_limits": [],
    "model_max_budget": {},
    "model_rpm_limit": {},
    "model_tpm_limit": {},
    "blocked": False,
    "auto_rotate": False,
}
_TEXT: Final = frozenset(
    {"key_alias", "user_id", "team_id", "budget_id", "region", "user_alias", "user_email", "team_alias", "alias"}
)
_COUNTS: Final = frozenset(
    {
        "rpm_limit",
        "tpm_limit",
        "tpd_limit",
        "max_parallel_requests",
        "team_member_rpm_limit",
        "team_member_tpm_limit",
    }
)
_COUNTS_BY_MODEL: Final = frozenset({"model_rpm_limit", "model_tpm_limit"})
_LASTING: Final = frozenset({"duration", "rotation_interval", "budget_duration", "team_member_budget_duration"})
_MOMENTS: Final = frozenset({"temp_budget_expiry", "budget_reset_at"})
_NEVER: Final = (None, "", "-1")
"""How LiteLLM's clients say that something has no end."""


def columns(given: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Give the columns that a request's fields set, for all kinds of rows alike; ids are the caller's business."""
    values = {name: _column(name, value) for name, value in given.items()}
    if "budget_duration" in values:
        duration = values["budget_duration"]
        if values.get("budget_reset_at") is None:
            values["budget_reset_at"] = window_end(now, duration) if duration else None
    metadata = values.get("metadata")
    if metadata:
        _check_metadata(metadata)
        if "tags" not in values and _are_words(metadata.get("tags")):
            values["tags"] = metadata["tags"]  # where LiteLLM keeps them
    return values


def expiry(duration: str | None, now: datetime, *, param: str) -> datetime | None:
    """When something that lasts for `duration` ends; None for never."""
    lasting = _lasting(duration)
    return after(now, lasting, param=param) if lasting else None


def moment(text: str, *, param: str) -> datetime:
    """Read a date or time; without a zone it is UTC. Raises a 400 for one that is not in the calendar."""
    try:
        value = datetime.fromisoformat(text)
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(f"'{param}' is not in the calendar: write a date such as 2026-01-31.", param=param) from None


def _lasting(duration: str | None) -> str | None:
    return None if duration in _NEVER else duration


def _column(name: str, value: Any) -> Any:
    if value is None or (value == "" and name in _TEXT | _MOMENTS):
        return _EMPTY.get(name)
    if isinstance(value, float):
        return int(value) if name in _COUNTS else exact(value)
    if name in _COUNTS_BY_MODEL:
        return {model: int(count) for model, count in value.items()}
    if name == "model_max_budget":
        return {model: _model_budget(model, to_builtins(budget)) for model, budget in value.items()}
    if name == "budget_limits":
        return to_builtins(value)
    if name in _LASTING:
        return _lasting(value)
    if name in _MOMENTS:
        return moment(value, param=name)
    return list(dict.fromkeys(value)) if isinstance(value, list) else value


def exact(amount: float) -> Decimal:
    """The decimal that was written: the shortest that reads as this float."""
    return Decimal(repr(amount))


def _model_budget(model: str, budget: dict[str, Any]) -> dict[str, Any]:
    amounts = [budget[name] for name in ("max_budget", "budget_limit") if budget[name] is not None]
    durations = [budget[name] for name in ("budget_duration", "time_period") if _lasting(budget[name])]
    if len(set(amounts)) > 1 or len(set(durations)) > 1:
        raise invalid(
            f"model_max_budget names two budgets or two windows for {model}: name one.", param="model_max_budget"
        )
    kept = {"max_budget": amounts[0] if amounts else None, "budget_duration": durations[0] if durations else None}
    kept |= {name: int(budget[name]) for name in ("rpm_limit", "tpm_limit") if budget[name] is not None}
    return {name: value for name, value in kept.items() if value is not None}


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and 0 < len(item) <= 256 for item in value)  # noqa: PLR2004  # fields.LONGEST_NAME


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    size = 0
    waiting: list[Any] = [metadata]
    while waiting:
        match waiting.pop():
            case dict() as table:
                waiting.extend((*table.keys(), *table.values()))
            case list() as items:
                waiting.extend(items)
            case str() as text:
                size += len(text.encode("utf-8", "surrogatepass"))
            case _:
                pass
        size += 4  # a number, or quotes and commas
    if size > MOST_METADATA_BYTES:
        raise invalid(f"The field 'metadata' is larger than {MOST_METADATA_BYTES} bytes: shorten it.", param="metadata")
