"""What a call cost: which model was billed, at which price, and where that figure comes from.

A price is looked for in this order: the settings; our supplement, where it knows the region, tier or latency;
genai-prices; our supplement for models that genai-prices lacks. What is in none of them is `unknown_model` and costs
null, never 0; a wrong figure is worse than none, so a tier or latency of unknown price is unknown too.

genai-prices' figures are those of us-east-1 and of the geographies that it tells apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

import msgspec

from passthrough.bedrock.library import library_price
from passthrough.bedrock.models import ModelKind, ModelRef, model_ref
from passthrough.bedrock.rates import Price, Rates, cost
from passthrough.bedrock.supplement import Entry, Factor, Supplement, best, matches, supplement
from passthrough.bedrock.usage import Usage

__all__ = ["Charge", "Price", "PriceBook", "Rates", "cost", "price_of"]

PriceStatus = Literal["priced", "unknown_model", "not_metered"]

GUARDRAIL = "guardrail"  # the supplement's name for what ApplyGuardrail charges: it runs no model
_DEFAULT_TIERS = {None, "default"}
# Capacity bought by the month: the tokens themselves cost nothing more.
# https://docs.aws.amazon.com/bedrock/latest/userguide/service-tiers-inference.html
_PREPAID_TIER = "reserved"
# Billed by the hour of what runs them, not by tokens, unless the settings say otherwise.
_BILLED_BY_TIME = frozenset(
    {
        ModelKind.PROVISIONED,
        ModelKind.CUSTOM,
        ModelKind.CUSTOM_DEPLOYMENT,
        ModelKind.IMPORTED,
        ModelKind.SAGEMAKER_ENDPOINT,
    }
)
_GOV = "us-gov"
_MAX_REMEMBERED = 4096  # tariffs found: models times regions times tiers in use are some dozens a day


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a call cost in US dollars, or why that is null; `source` says where the price comes from."""

    cost: Decimal | None
    price_status: PriceStatus
    billed_model: str | None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class _Tariff:
    """What of a charge does not depend on how much was used: the billed model, and its price where it is metered."""

    billed_model: str | None
    metered: bool
    price: Price | None


class PriceBook:
    """Prices, with what the settings say (`entries_of`) before all else."""

    def __init__(self, overrides: Sequence[Entry] = ()) -> None:
        self._overrides = tuple(overrides)
        self._own_prices = tuple(entry for entry in overrides if entry.price is not None)
        self._multipliers = tuple(entry for entry in overrides if entry.multiplier is not None)
        self._meanings = tuple(entry for entry in overrides if entry.stands_for is not None)
        self._supplement: Supplement = supplement()
        self._tariffs: dict[tuple[object, ...], _Tariff] = {}

    def price_of(
        self, model: str, region: str, *, tier: str | None = None, latency: str | None = None, day: date = date.max
    ) -> Price | None:
        """Return the price of a model id, in any of its forms, on a day; by default the newest that is known."""
        return self._look_up(model_ref(model), region, tier, latency, day)

    def charge(
        self, usage: Usage, *, model: str | None, region: str, stands_for: str | None = None, day: date = date.max
    ) -> Charge:
        """Price a call.

        `model` is what the client asked for, `stands_for` what an opaque id of it was resolved to
        (GetInferenceProfile), `day` the day of the call, UTC.
        """
        if usage.by_model:
            return self._charge_parts(usage, region, day)
        key = (model, stands_for, usage.model, bool(usage.units), region, usage.tier, usage.latency, day)
        tariff = self._tariffs.get(key)
        if tariff is None:
            if len(self._tariffs) >= _MAX_REMEMBERED:
                self._tariffs.clear()
            tariff = self._tariffs[key] = self._tariff(usage, model, stands_for, region, day)
        price = tariff.price
        if not tariff.metered or not usage.reported:
            return Charge(None, "not_metered", tariff.billed_model)
        amount = cost(price, usage) if price else None
        if price is None or amount is None:
            return Charge(None, "unknown_model", tariff.billed_model)
        return Charge(amount, "priced", tariff.billed_model, price.source)

    def _tariff(self, usage: Usage, model: str | None, stands_for: str | None, region: str, day: date) -> _Tariff:
        billed = self._billed(model, stands_for, usage.model) or (GUARDRAIL if usage.units else None)
        if billed is None:
            return _Tariff(None, metered=usage.tier != _PREPAID_TIER, price=None)
        name = model_ref(billed).base
        if usage.tier == _PREPAID_TIER or not self._is_metered(billed, region):
            return _Tariff(name, metered=False, price=None)
        price = self.price_of(billed, region, tier=usage.tier, latency=usage.latency, day=day)
        return _Tariff(name, metered=True, price=price)

    def _charge_parts(self, usage: Usage, region: str, day: date) -> Charge:
        """Charge an agent's call: the sum of its models', or null when one of them is not known."""
        charges = [self.charge(part, model=part.model, region=region, day=day) for part in usage.by_model]
        billed = charges[0].billed_model if len(charges) == 1 else None
        amounts = [charge.cost for charge in charges if charge.cost is not None]
        if len(amounts) < len(charges):
            return Charge(None, "unknown_model", billed)
        sources = dict.fromkeys(charge.source for charge in charges if charge.source)
        return Charge(sum(amounts, Decimal(0)), "priced", billed, "; ".join(sources))

    def _billed(self, asked: str | None, stands_for: str | None, answered: str | None) -> str | None:
        """Return the id whose price counts: what was asked for, if that says which model it is."""
        if asked is None or model_ref(asked).resolved:
            return asked or answered
        entry = best(self._meanings, [asked], "", None, None)
        return stands_for or (entry.stands_for if entry else None) or answered or asked

    def _is_metered(self, billed: str, region: str) -> bool:
        ref = model_ref(billed)
        entry = best(self._overrides, _names(ref), region, None, None)
        if entry is not None and not entry.metered:
            return False
        return ref.kind not in _BILLED_BY_TIME or best(self._own_prices, _names(ref), region, None, None) is not None

    def _look_up(self, ref: ModelRef, region: str, tier: str | None, latency: str | None, day: date) -> Price | None:
        own = best(self._own_prices, _names(ref), region, tier, latency)
        if own is not None and own.price is not None:
            price = self._in_tier(own.price, own, tier)
        else:
            price = self._published(ref, region, tier, latency, day)
        change = best(self._multipliers, _names(ref), region, tier, latency)
        if price is not None and change is not None and change.multiplier is not None:
            price = price.scaled(change.multiplier, f"times {change.multiplier} by the settings")
        return price

    def _published(self, ref: ModelRef, region: str, tier: str | None, latency: str | None, day: date) -> Price | None:
        # The price of a profile is the same from all of its regions.
        where = region if ref.geography is None else ""
        entry = best(self._supplement.entries, _names(ref), where, tier, latency)
        if entry is not None and entry.particular:
            price = entry.price
        else:
            entry = None
            price = self._of_everywhere(ref, region, day)
        if price is None or (latency is not None and (entry is None or entry.latency != latency)):
            return None
        return self._in_tier(price, entry, tier)

    def _of_everywhere(self, ref: ModelRef, region: str, day: date) -> Price | None:
        """Return the price that is the same in all regions, of the default tier and latency."""
        gov = self._factor(geography=_GOV, model=ref.base)
        if gov and (ref.geography == _GOV or (ref.geography is None and region.startswith(_GOV))):
            price = self._plain(f"global.{ref.base}", day) or self._plain(ref.base, day)
            return price and price.scaled(gov.factor, f"times {gov.factor} in {_GOV}")
        price = self._plain(_names(ref)[0], day)
        # A global profile can be cheaper than its model: better unknown than the model's price.
        return price if price or ref.geography == "global" else self._plain(ref.base, day)

    def _plain(self, name: str, day: date) -> Price | None:
        price = library_price(name, day)
        if price is None:
            entry = best(self._supplement.entries, [name], "", None, None)
            price = entry.price if entry is not None else None
        return price

    def _in_tier(self, price: Price, entry: Entry | None, tier: str | None) -> Price | None:
        if tier in _DEFAULT_TIERS or (entry is not None and entry.tier == tier):
            return price
        change = self._factor(tier=tier)
        return price.scaled(change.factor, f"times {change.factor} in tier {tier}") if change else None

    def _factor(self, *, tier: str | None = None, geography: str | None = None, model: str = "") -> Factor | None:
        for factor in self._supplement.factors:
            alike = (factor.tier, factor.geography) == (tier, geography)
            if alike and any(matches(pattern, model) for pattern in factor.models):
                return factor
        return None


def _names(ref: ModelRef) -> list[str]:
    """How an entry may call a model: as the profile, as the model, or as it was given (an ARN)."""
    names = [f"{ref.geography}.{ref.base}"] if ref.geography else []
    return list(dict.fromkeys([*names, ref.base, ref.given]))


def price_of(
    model: str, region: str, *, tier: str | None = None, latency: str | None = None, day: date = date.max
) -> Price | None:
    """Return the published price of a model id; a `PriceBook` knows the settings' prices too."""
    return PriceBook().price_of(model, region, tier=tier, latency=latency, day=day)
