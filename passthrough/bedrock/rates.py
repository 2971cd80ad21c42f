"""What a model costs, as a value, and the arithmetic: exact decimals of US dollars, never a float."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from passthrough.bedrock.usage import Usage

_MILLION = 6  # decimal places: rates are per million tokens
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """US dollars per million tokens; None where there is no price for such tokens."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None

    def scaled(self, factor: Decimal) -> "Rates":
        def times(rate: Decimal | None) -> Decimal | None:
            return None if rate is None else rate * factor

        return Rates(
            input=times(self.input),
            output=times(self.output),
            cache_read=times(self.cache_read),
            cache_write=times(self.cache_write),
            cache_write_1h=times(self.cache_write_1h),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs in one region, tier and latency, and where the figure comes from.

    `above` are dearer rates for long contexts, ascending: a call with more input than a threshold, cached
    tokens included, pays the rates beside it for all its tokens. `units` are US dollars for one unit of what is
    not tokens.
    """

    rates: Rates = Rates()  # frozen
    above: tuple[tuple[int, Rates], ...] = ()
    units: Mapping[str, Decimal] = field(default_factory=dict)
    source: str

    def scaled(self, factor: Decimal, why: str) -> "Price":
        return replace(
            self,
            rates=self.rates.scaled(factor),
            above=tuple((start, rates.scaled(factor)) for start, rates in self.above),
            units={name: rate * factor for name, rate in self.units.items()},
            source=f"{self.source}, {why}",
        )

    def rates_at(self, input_tokens: int) -> Rates:
        """Return the rates of a call with so much input, cached or not."""
        rates = self.rates
        for start, dearer in self.above:
            if input_tokens > start:
                rates = dearer
        return rates


def cost(price: Price, usage: Usage) -> Decimal | None:
    """Return the cost in US dollars; None if something was used that has no price.

    Cached tokens of a model that has no price for them are charged as the next wider kind (writes for an hour
    as writes, reads and writes as input), as genai-prices does.
    """
    taken, read, written = usage.input_tokens or 0, usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    rates = price.rates_at(taken + read + written)
    used = [(taken, rates.input), (usage.output_tokens or 0, rates.output)]
    if read or written:  # most calls have none, and every call comes by here
        hour = min(usage.cache_write_1h_tokens or 0, written)
        write_rate = _either(rates.cache_write, rates.input)
        used.append((read, _either(rates.cache_read, rates.input)))
        used.append((written - hour, write_rate))
        used.append((hour, _either(rates.cache_write_1h, write_rate)))
    total = _NOTHING
    for tokens, rate in used:
        if tokens:
            if rate is None:
                return None
            total += tokens * rate
    total = total.scaleb(-_MILLION)
    if not usage.units:
        return total
    for name, count in usage.units.items():
        if not count:
            continue
        if name not in price.units:
            return None
        total += Decimal(str(count)) * price.units[name]
    return total


def _either(rate: Decimal | None, wider: Decimal | None) -> Decimal | None:
    return wider if rate is None else rate
