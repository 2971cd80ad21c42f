"""Prices from PyPI `genai-prices`, provider `aws`: the data of the installed wheel, never the network.

The library tells models of one family apart by geography (`global.`, `us.` and its like) where their prices
differ. It knows, of 0.2.3, neither service tiers nor latency-optimised inference nor regions of `aws`: those are ours
to add (`passthrough.bedrock.supplement`).
"""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from passthrough.bedrock.rates import Price, Rates

# Our names of kinds of tokens → the library's.
_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
_NOON = time(12, tzinfo=UTC)  # the library's prices change at midnight UTC; no price of `aws` changes within a day


@cache
def _aws() -> Provider:
    return next(provider for provider in providers if provider.id == "aws")


@cache
def _version() -> str:
    return version("genai-prices")


def library_price(model: str, day: date) -> Price | None:
    """Return what the library says a model cost on a day; `model` with its geography, if it has one."""
    found = _aws().find_model(model)
    if found is None:
        return None
    return _as_price(found, found.get_prices(datetime.combine(day, _NOON)))


def _as_price(model: ModelInfo, prices: ModelPrice) -> Price:
    by_kind = {ours: getattr(prices, theirs, None) for ours, theirs in _FIELDS.items()}
    starts = sorted({tier.start for p in by_kind.values() if isinstance(p, TieredPrices) for tier in p.tiers})
    return Price(
        rates=_rates(by_kind, 0),
        above=tuple((start, _rates(by_kind, start + 1)) for start in starts),
        source=f"genai-prices {_version()}: {model.id}",
    )


def _rates(by_kind: dict[str, Decimal | TieredPrices | None], input_tokens: int) -> Rates:
    return Rates(**{kind: _at(price, input_tokens) for kind, price in by_kind.items()})


def _at(price: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return reached[-1] if reached else price.base


def context_window(model: str) -> int | None:
    """Return how many tokens of input a model takes at most; None where the library does not say."""
    found = _aws().find_model(model)
    return None if found is None else found.context_window
