"""What a key, or anybody it belongs to, may use up: requests, tokens, money, and calls at one time.

An *allowance* is (subject, kind, window, model) and how much there is of it. All four kinds are one mechanism: a
call *reserves* an upper bound on every allowance that applies, or on none, and in the end *settles* with what it
used, or *releases*. Workers lease blocks of an allowance from PostgreSQL (`storage.allowances`) and spend them
by themselves (`policy.allowance_leases`).

Amounts are integers in the unit of their kind: requests, tokens, calls; money in picodollars (10⁻¹² USD), in which
every price per million tokens of up to six decimals is exact. A limit is rounded down, a cost up: never a float.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import IntEnum
from typing import Any, Final, Literal

from passthrough.policy.durations import parse, window_end

SubjectKind = Literal["key", "user", "team", "team_member", "customer", "tag", "global"]

PICODOLLARS: Final = 12  # decimal places of a dollar
MINUTE: Final = "1m"  # of `rpm` and `tpm`: counted from the first call after the last window's end
MINUTE_SECONDS: Final = 60.0
DAY: Final = "1d"  # of `tpd`: midnight to midnight, UTC
ENDLESS: Final = ""

_WHOLE: Final = Decimal(1)


class Kind(IntEnum):
    """What is counted. The number is its place in a call's needs."""

    REQUESTS = 0
    TOKENS = 1
    CONCURRENCY = 2
    MONEY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much a subject may use of one kind in one window; `field` is the name by which an administrator set it.

    `period` is a duration, `ENDLESS` where nothing ever begins anew. `model` is a pattern, '' for all models.
    `bonus` is added until `bonus_until` (seconds since 1970). `soft` is only told of, and a `shadow` limit
    refuses nobody: what it would have refused is counted.
    """

    subject: SubjectKind
    name: str
    kind: Kind
    period: str
    most: int
    field: str
    model: str = ""
    soft: int | None = None
    bonus: int = 0
    bonus_until: float = 0.0
    shadow: bool = False

    @property
    def account(self) -> tuple[str, str, int, str, str]:
        """What it is counted in: the same for all limits that share a count."""
        return (self.subject, self.name, self.kind, self.period, self.model)

    def most_at(self, now: float) -> int:
        return self.most + self.bonus if now < self.bonus_until else self.most

    @property
    def anchored(self) -> bool:
        """Whether a window begins with its first call, not on the calendar."""
        return self.kind in {Kind.REQUESTS, Kind.TOKENS} and self.period == MINUTE


def picodollars(amount: Decimal) -> int:
    """Turn a limit in USD into picodollars, rounded down."""
    return int(amount.scaleb(PICODOLLARS).quantize(_WHOLE, ROUND_FLOOR))


def picodollars_up(amount: Decimal) -> int:
    """Turn a cost in USD into picodollars, rounded up."""
    return int(amount.scaleb(PICODOLLARS).quantize(_WHOLE, ROUND_CEILING))


def dollars(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-PICODOLLARS)


def inherited(own: Mapping[str, Any], budget: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give a subject's fields with those of the shared budget that it refers to; its own values win.

    An amount and its window belong together: an own `max_budget` does not get the shared one's window. An own
    window without an amount is the window of the shared amount, which must not be lost for it.
    """
    fields = dict(own)
    if budget:
        for name, value in budget.items():
            if name == "budget_duration" and own.get("max_budget") is not None:
                continue
            if fields.get(name) in (None, "", {}, []):
                fields[name] = value
    return fields


def limits_of(subject: SubjectKind, name: str, fields: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Read LiteLLM's fields of one subject; those that are absent or null limit nothing.

    `shadow_limits` names fields that are to refuse nobody, or `*` for all.
    """
    listed = fields.get("shadow_limits")
    shadowed = frozenset(word for word in listed if isinstance(word, str)) if isinstance(listed, list) else frozenset()
    return merged(
        Limit(
            subject=subject,
            name=name,
            kind=kind,
            period=period,
            most=most,
            field=field,
            shadow=field in shadowed or "*" in shadowed or field == "soft_budget",
            **rest,
        )
        for kind, period, most, field, rest in _named(fields)
    )


def merged(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Make one of those that share a count: a call counts once, and what refuses nobody must not hide what does.

    Of those that refuse the smaller binds; the lowest amount that is only told of stays.
    """
    found: dict[tuple[str, str, int, str, str], Limit] = {}
    for limit in limits:
        other = found.get(limit.account)
        binding = limit if other is None else min(other, limit, key=lambda each: (each.shadow, each.most))
        soft = min((each.soft for each in (limit, other) if each and each.soft is not None), default=None)
        found[limit.account] = binding if binding.soft == soft else replace(binding, soft=soft)
    return tuple(found.values())


_Named = tuple[Kind, str, int, str, dict[str, Any]]


def _named(fields: Mapping[str, Any]) -> Iterator[_Named]:
    for field, kind, period in (
        ("rpm_limit", Kind.REQUESTS, MINUTE),
        ("tpm_limit", Kind.TOKENS, MINUTE),
        ("tpd_limit", Kind.TOKENS, DAY),
        ("max_parallel_requests", Kind.CONCURRENCY, ENDLESS),
    ):
        most = fields.get(field)
        if most is not None:
            yield kind, period, most, field, {}
    for field, kind in (("model_rpm_limit", Kind.REQUESTS), ("model_tpm_limit", Kind.TOKENS)):
        for model, most in (fields.get(field) or {}).items():
            if most is not None:
                yield kind, MINUTE, most, field, {"model": _pattern(model)}
    yield from _budgets(fields)
    for model, budget in (fields.get("model_max_budget") or {}).items():
        yield from _model_budget(_pattern(model), budget)


def _pattern(model: str) -> str:
    return model.removeprefix("bedrock/")  # LiteLLM's provider prefix, which ids lack


def _budgets(fields: Mapping[str, Any]) -> Iterator[_Named]:
    amount = fields.get("max_budget")
    bonus = _bonus(fields)
    period = fields.get("budget_duration") or ENDLESS
    soft = fields.get("soft_budget")
    warned = {"soft": picodollars(exact(soft))} if soft is not None else {}
    if amount is not None:
        yield Kind.MONEY, period, picodollars(exact(amount)), "max_budget", {**bonus, **warned}
    elif warned:
        # told of, and never refused: there is no maximum
        yield Kind.MONEY, period, warned["soft"], "soft_budget", warned
    for window in fields.get("budget_limits") or ():
        most = picodollars(exact(window["max_budget"]))
        yield Kind.MONEY, window["budget_duration"], most, "budget_limits", bonus


def _bonus(fields: Mapping[str, Any]) -> dict[str, Any]:
    increase, expiry = fields.get("temp_budget_increase"), fields.get("temp_budget_expiry")
    if increase is None or not isinstance(expiry, datetime):
        return {}
    return {"bonus": picodollars(exact(increase)), "bonus_until": expiry.timestamp()}


def _model_budget(model: str, budget: Any) -> Iterator[_Named]:  # a JSON value from the database
    if not isinstance(budget, Mapping):
        budget = {"max_budget": budget}
    amount = budget.get("max_budget", budget.get("budget_limit"))
    period = budget.get("budget_duration") or budget.get("time_period") or ENDLESS
    if amount is not None:
        yield Kind.MONEY, period, picodollars(exact(amount)), "model_max_budget", {"model": model}
    for field, kind in (("rpm_limit", Kind.REQUESTS), ("tpm_limit", Kind.TOKENS)):
        if budget.get(field) is not None:
            yield kind, MINUTE, budget[field], "model_max_budget", {"model": model}


def exact(amount: Any) -> Decimal:
    """Read an amount out of a column or out of JSON, where a float's shortest form is what was written."""
    return amount if isinstance(amount, Decimal) else Decimal(str(amount))


def ordered(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Sort limits so that the one that binds longest is the first to be named in a refusal."""
    return tuple(sorted(limits, key=lambda limit: (-limit.kind if limit.kind != Kind.CONCURRENCY else 1, limit.period)))


def window(now: datetime, period: str) -> tuple[datetime, datetime | None]:
    """Tell when the window of a calendar `period` that holds `now` began, and when it ends; (now, None) if never.

    The end is where LiteLLM's windows end: at midnight, on Monday, on the first, at the full hour.
    """
    if period == ENDLESS:
        return now, None
    count, unit = parse(period, param="budget_duration")
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match (count, unit):
        case (7, "d") | (1, "w"):
            start = midnight - timedelta(days=midnight.weekday())
        case (30, "d") | (_, "mo"):
            start = midnight.replace(day=1)
        case (_, "d" | "w"):
            start = midnight
        case (_, "h"):
            start = now.replace(minute=0, second=0, microsecond=0)
        case (_, "m"):
            start = now.replace(second=0, microsecond=0)
        case _:
            start = now.replace(microsecond=0)
    return start, window_end(now, period)
