"""Price entries that are written down rather than looked up: our supplement to genai-prices, and the settings file's.

Both are tables of the same shape, read by the same code. `supplement.toml`, beside this file, holds ours with the
source of each figure.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from passthrough.bedrock import patterns
from passthrough.bedrock.models import GEOGRAPHIES
from passthrough.bedrock.rates import Price, Rates
from passthrough.errors import UserError

matches = lru_cache(maxsize=2048)(patterns.matches)  # patterns times regions and models that are in use

_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: for what it holds, and the price.

    `pattern` names models, with `*` for anything. Empty `regions` are all; `tier` None is the default tier,
    whose price others derive from. An entry without a `price` may still multiply the price there is, name the
    foundation model that an opaque id `stands_for`, or say that it is not `metered`.
    """

    pattern: str
    regions: tuple[str, ...] = ()
    tier: str | None = None
    latency: str | None = None
    price: Price | None = None
    multiplier: Decimal | None = None
    stands_for: str | None = None
    metered: bool = True

    def applies(self, names: Iterable[str], region: str, tier: str | None, latency: str | None) -> bool:
        return (
            self.tier in {None, tier}
            and self.latency in {None, latency}
            and (not self.regions or any(matches(pattern, region) for pattern in self.regions))
            and any(matches(self.pattern, name) for name in names)
        )

    @property
    def particular(self) -> bool:
        """Whether it is for a geography, region, tier or latency, and so more exact than what genai-prices has."""
        return bool(self.regions or self.tier or self.latency) or self.pattern.partition(".")[0] in GEOGRAPHIES

    @property
    def rank(self) -> tuple[bool, bool, bool, bool, int]:
        """Order by how exactly an entry says what it is for; the highest counts."""
        return "*" not in self.pattern, bool(self.regions), bool(self.tier), bool(self.latency), len(self.pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How a tier, or a geography, changes every price that has no figure of its own."""

    factor: Decimal
    tier: str | None = None
    geography: str | None = None
    models: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Supplement:
    """What `supplement.toml` says."""

    entries: tuple[Entry, ...]
    factors: tuple[Factor, ...]


@cache
def supplement() -> Supplement:
    """Read `supplement.toml`, once a process."""
    text = files("passthrough.bedrock").joinpath("supplement.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text, parse_float=Decimal)
    entries = tuple(
        _entry(row.pop("id"), row, f"{group['url']} as of {group['seen']}, {group['via']}")
        for group in tables["groups"]
        for row in group["prices"]
    )
    factors = tuple(
        Factor(
            factor=Decimal(row["factor"]),
            tier=row.get("tier"),
            geography=row.get("geography"),
            models=tuple(row.get("models", ["*"])),
        )
        for row in tables["factors"]
    )
    return Supplement(entries, factors)


def entries_of(prices: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Read the settings file's `prices`: a table, or a list of tables, for each model pattern.

    Raises `UserError` for what a price cannot be.
    """
    entries = []
    for pattern, value in prices.items():
        for row in value if isinstance(value, list) else [value]:
            if not isinstance(row, Mapping):
                raise UserError(f'The price of "{pattern}" in the settings is no table; write input = …, output = ….')
            entries.append(_entry(pattern, row, f'settings, prices."{pattern}"'))
    return tuple(entries)


def best(
    entries: Iterable[Entry], names: Sequence[str], region: str, tier: str | None, latency: str | None
) -> Entry | None:
    """Return the most exact of the entries that apply; of two alike, the first."""
    applying = [entry for entry in entries if entry.applies(names, region, tier, latency)]
    return max(applying, key=lambda entry: entry.rank, default=None)


_KNOWN = {*_RATES, "units", "regions", "tier", "latency", "multiplier", "model", "metered"}


def _entry(pattern: str, row: Mapping[str, Any], source: str) -> Entry:
    if unknown := sorted(set(row) - _KNOWN):
        raise UserError(
            f'The price of "{pattern}" has the unknown name {unknown[0]}; known are {", ".join(sorted(_KNOWN))}.'
        )
    rates = {name: _amount(pattern, name, row[name]) for name in _RATES if name in row}
    units = row.get("units", {})
    if not isinstance(units, Mapping):
        raise UserError(f'The units of "{pattern}" in the settings are no table; write units = {{ images = … }}.')
    amounts = {name: _amount(pattern, name, value) for name, value in units.items()}
    return Entry(
        pattern=pattern,
        regions=_texts(pattern, "regions", row.get("regions", [])),
        tier=_text(pattern, "tier", row.get("tier")),
        latency=_text(pattern, "latency", row.get("latency")),
        price=Price(rates=Rates(**rates), units=amounts, source=source) if rates or amounts else None,
        multiplier=_amount(pattern, "multiplier", row["multiplier"]) if "multiplier" in row else None,
        stands_for=_text(pattern, "model", row.get("model")),
        metered=row.get("metered", True) is not False,
    )


def _amount(pattern: str, name: str, value: object) -> Decimal:
    """An amount of money, exactly as written: a float's shortest form is what stands in the file."""
    try:
        amount = Decimal(str(value)) if isinstance(value, int | float | Decimal | str) else None
    except InvalidOperation:
        amount = None
    if amount is None or isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise UserError(f'{name} of "{pattern}" is no price; write a number that is not negative.')
    return amount


def _text(pattern: str, name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UserError(f'{name} of "{pattern}" is no text; put it in quotes.')


def _texts(pattern: str, name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise UserError(f'{name} of "{pattern}" is no list of texts; write {name} = ["us-east-1"].')
