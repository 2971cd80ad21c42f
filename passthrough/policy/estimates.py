"""What a call may use at most, before it is made: the tokens and the money that are reserved for it.

An upper bound is exact in one direction: what the call then costs is never more, so a budget of which nothing is
left unreserved cannot be exceeded. Prices are the dearest that can apply: of cache writes where the request allows
them, of every tier and latency where it chooses one, of long contexts where the bound reaches them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final, NamedTuple

from passthrough.bedrock import bounds
from passthrough.bedrock.bounds import Frame
from passthrough.bedrock.operations import Body, Call
from passthrough.bedrock.prices import GUARDRAIL, Price, PriceBook, Rates
from passthrough.bedrock.requested import units_requested
from passthrough.bedrock.usage import Usage
from passthrough.policy.allowances import PICODOLLARS, picodollars_up
from passthrough.policy.ledger import Entry

_MILLION: Final = 10**6
_TIERS: Final = (None, "priority", "flex", "reserved")
_LATENCIES: Final = (None, "optimized")
_DAY_SECONDS: Final = 86400
_FIRST_DAY: Final = date(1970, 1, 1)
_KEPT: Final = 4096
_TEXT_UNIT: Final = 1000  # characters, https://aws.amazon.com/bedrock/pricing/ (Guardrails)


class Bound(NamedTuple):
    """Tokens at most, and picodollars at most; `money` is None where the price is not known."""

    tokens: int
    money: int | None


@dataclass(frozen=True, slots=True)
class _Dearest:
    """Picodollars per token, from a number of input tokens up."""

    steps: tuple[tuple[int, int, int], ...]  # more input than the first: the second each, and the third for output
    units: Mapping[str, Decimal]

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        dearest = 0
        for start, rate_in, rate_out in self.steps:
            if tokens_in > start:
                dearest = max(dearest, tokens_in * rate_in + tokens_out * rate_out)
        return dearest


_FREE: Final = Bound(0, 0)
_UNSEEN: Final = _Dearest((), {})
_ANYTHING: Final = Usage(input_tokens=1, source="body")
_NOTHING_DUE: Final = _Dearest(((-1, 0, 0),), {})  # capacity that is paid by the hour


class Estimates:
    """Bounds calls. The arguments are those of `policy.pricing.Pricing`, so that both speak of the same price.

    `assumed_output_tokens` and `bytes_per_token` loosen the bound of token rates, never of money: what to reserve
    for a call that names no maximum of output, and how many bytes of a body are one token of its input.
    """

    def __init__(
        self,
        book: PriceBook,
        multipliers: Mapping[str, Decimal],
        stands_for: Callable[[str], str | None] = lambda _: None,
        *,
        assumed_output_tokens: int | None = None,
        bytes_per_token: float = 1.0,
    ) -> None:
        self._book = book
        self._multipliers = multipliers
        self._stands_for = stands_for
        self._assumed = assumed_output_tokens
        self._bytes_per_token = bytes_per_token
        self._rates: dict[tuple[str, str, bool, bool, int], _Dearest | None] = {}

    def bound(self, call: Call, entry: Entry, body: Body | None, length: int, *, money: bool) -> Bound:
        """Bound a call; its price is worked out if `money`. The entry's tier and latency are what a header asks for."""
        model = entry.billed_model or entry.model
        frame = bounds.frame_of(call.operation, model)
        if frame.free:
            return _FREE
        veiled = body is not None and bounds.is_veiled(body)
        tokens_in = bounds.input_bound(frame, body, length, veiled=veiled)
        tokens_out = bounds.output_bound(frame, body, veiled=veiled)
        cost = self._cost(call, entry, frame, None if veiled else body, tokens_in, tokens_out) if money else None
        if self._assumed is not None:
            tokens_out = bounds.output_bound(frame, body, veiled=veiled, assumed=self._assumed)
        if self._bytes_per_token != 1.0:
            tokens_in = int(tokens_in / self._bytes_per_token)
        return Bound(tokens_in + tokens_out, cost)

    def _cost(
        self, call: Call, entry: Entry, frame: Frame, body: Body | None, tokens_in: int, tokens_out: int
    ) -> int | None:
        model = entry.billed_model or entry.model
        if frame.guards:
            cost = self._guardrail(entry, entry.request_bytes or len(body or b""))
        elif model is None:
            return None
        else:
            chooses = body is None or bool(entry.tier or entry.latency) or _chooses(body, frame)
            # of others, caching is AWS's to decide
            caches = not frame.claude or body is None or b'"cachePoint"' in body or b'"cache_control"' in body
            region = entry.region or ""
            key = (model, region, chooses, caches, int(entry.started_at) // _DAY_SECONDS)
            dearest = self._rates.get(key, _UNSEEN)
            if dearest is _UNSEEN:
                dearest = self._dearest(*key)
            if dearest is None:
                return None
            cost = self._units(call, model, body, dearest) if dearest.units else None
            if cost is None and dearest.steps and not frame.boundless:
                cost = dearest.cost(tokens_in, tokens_out)
        return cost if cost is None or not self._multipliers else self._times(cost, entry)

    def _guardrail(self, entry: Entry, length: int) -> int | None:
        price = self._book.price_of(GUARDRAIL, entry.region or "")
        if price is None:
            return None
        # every policy over all of the text, and one unit more for what each piece is rounded up
        per_unit = sum(price.units.values(), Decimal(0))
        return picodollars_up(per_unit * (2 * (length // _TEXT_UNIT) + 2))

    def _units(self, call: Call, model: str, body: Body | None, dearest: _Dearest) -> int | None:
        """Cost of what is charged by the piece: then it is known before the call."""
        if body is None:
            return None
        units = units_requested(call.operation.name, model, body)
        if not units or not units.keys() <= dearest.units.keys():
            return None
        return picodollars_up(sum((Decimal(str(n)) * dearest.units[name] for name, n in units.items()), Decimal(0)))

    def _dearest(self, model: str, region: str, chooses: bool, caches: bool, day: int) -> _Dearest | None:  # noqa: FBT001  # a key of the memory
        if len(self._rates) >= _KEPT:
            self._rates.clear()
        stands_for = self._stands_for(model)
        when = _FIRST_DAY + timedelta(days=day)
        dearest = self._look_up(stands_for or model, region, when, chooses=chooses, caches=caches)
        if dearest is not None or stands_for:  # what a profile stands for may yet be found out
            self._rates[model, region, chooses, caches, day] = dearest
        return dearest

    def _look_up(self, model: str, region: str, day: date, *, chooses: bool, caches: bool) -> _Dearest | None:
        plain = self._book.price_of(model, region, day=day)
        if plain is None:
            status = self._book.charge(_ANYTHING, model=model, region=region).price_status
            return _NOTHING_DUE if status == "not_metered" else None
        prices = [plain]
        if chooses:
            for tier in _TIERS:
                for latency in _LATENCIES:
                    price = self._book.price_of(model, region, tier=tier, latency=latency, day=day)
                    prices += [price] if price is not None else []
        steps = [step for price in prices for step in _steps(price, caches=caches)]
        return _Dearest(tuple(steps), plain.units) if steps or plain.units else None

    def _times(self, cost: int, entry: Entry) -> int:
        factor = Decimal(1)
        for subject, name in (("key", entry.key_alias), ("team", entry.team_id)):
            factor *= self._multipliers.get(f"{subject}:{name}", Decimal(1))
        return int((cost * factor).to_integral_value(ROUND_CEILING))


def _chooses(body: Body, frame: Frame) -> bool:
    """Whether the request asks for a tier or a latency, in Converse's words or in the model's own."""
    if b'"serviceTier"' in body or b'"service_tier"' in body or b'"performanceConfig"' in body:
        return True
    return not frame.converse and b'"speed"' in body


def _steps(price: Price, *, caches: bool) -> list[tuple[int, int, int]]:
    if price.rates.input is None and price.rates.output is None:
        return []
    # -1: also a call without any input has a price
    return [(start, *_pair(rates, caches=caches)) for start, rates in ((-1, price.rates), *price.above)]


def _pair(rates: Rates, *, caches: bool) -> tuple[int, int]:
    kinds = [rates.input]
    if caches:
        kinds += [rates.cache_read, rates.cache_write, rates.cache_write_1h]
    dearest = max((rate for rate in kinds if rate is not None), default=Decimal(0))
    return _per_token(dearest), _per_token(rates.output or Decimal(0))


def _per_token(rate: Decimal) -> int:
    """Turn USD per million tokens into picodollars per token."""
    return int((rate.scaleb(PICODOLLARS) / _MILLION).to_integral_value(ROUND_CEILING))
