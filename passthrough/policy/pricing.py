"""What a call costs whom: the price book's charge, times what its key or team pays of it."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from passthrough.bedrock.models import base_model
from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.usage import Usage
from passthrough.errors import UserError
from passthrough.policy.ledger import Entry

_SUBJECTS = ("key", "team")
_DAY_SECONDS = 86400


class Pricing:
    """Fills in cost, price status and billed model of an entry.

    A `billed_model` that is there already is what an alias of the key stands for.
    `multipliers` are factors by `key:ALIAS` and `team:TEAM_ID`; of two that apply both count. `stands_for` gives the
    model that an application inference profile was found to stand for.
    """

    def __init__(
        self,
        book: PriceBook,
        multipliers: Mapping[str, Decimal],
        stands_for: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._book = book
        self._multipliers = multipliers
        self._stands_for = stands_for

    def __call__(self, entry: Entry, usage: Usage) -> None:
        model = _ran(entry)
        charge = self._book.charge(
            usage,
            model=model,
            region=entry.region or "",
            stands_for=self._stands_for(model) if model else None,
            day=_day(int(entry.started_at // _DAY_SECONDS)),
        )
        entry.cost = charge.cost
        entry.price_status = charge.price_status
        entry.billed_model = charge.billed_model
        if entry.cost is not None and self._multipliers:
            for subject, name in (("key", entry.key_alias), ("team", entry.team_id)):
                entry.cost *= self._multipliers.get(f"{subject}:{name}", Decimal(1))


def _ran(entry: Entry) -> str | None:
    """Return the model that was called: an alias may look like a model itself, and is none.

    A stored `billed_model` lacks the geography of what was asked for, so where both are one model that says more.
    """
    asked, billed = entry.model, entry.billed_model
    return asked if billed is None or (asked is not None and base_model(asked) == base_model(billed)) else billed


@lru_cache(maxsize=4)  # today, yesterday for calls that began then
def _day(number: int) -> date:
    return datetime.fromtimestamp(number * _DAY_SECONDS, UTC).date()


def multipliers_of(table: Mapping[str, Any]) -> dict[str, Decimal]:
    """Read the settings file's `price_multipliers`; raises `UserError` for what a factor cannot be."""
    factors = {}
    for name, value in table.items():
        try:
            factor = Decimal(str(value))
        except InvalidOperation:
            factor = Decimal("NaN")
        if name.partition(":")[0] not in _SUBJECTS or not factor.is_finite() or factor < 0:
            raise UserError(
                f'price_multipliers."{name}" is no factor; write "key:ALIAS" or "team:ID" = a number from 0 up.'
            )
        factors[name] = factor
    return factors
