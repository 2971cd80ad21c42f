"""Our own price entries: each still needed, each with its source."""

import tomllib
from datetime import date
from decimal import Decimal
from importlib.resources import files

import pytest
from genai_prices.data import providers

from passthrough.bedrock.endpoints import is_region
from passthrough.bedrock.library import library_price
from passthrough.bedrock.models import GEOGRAPHIES
from passthrough.bedrock.supplement import Entry, best, matches, supplement

TODAY = date(2026, 11, 21)
ENTRIES = supplement().entries
TABLES = tomllib.loads(files("passthrough.bedrock").joinpath("supplement.toml").read_text(encoding="utf-8"))


def is_profile(entry: Entry) -> bool:
    return entry.pattern.partition(".")[0] in GEOGRAPHIES


def test_a_model_that_genai_prices_knows_is_dropped_from_here() -> None:
    known = [
        entry.pattern
        for entry in ENTRIES
        if not entry.particular and library_price(entry.pattern.replace("*", ""), TODAY) is not None
    ]
    assert known == [], "genai-prices has them now: delete them from supplement.toml"


def test_a_profile_that_genai_prices_has_right_is_dropped_from_here() -> None:
    for entry in filter(is_profile, ENTRIES):
        theirs = library_price(entry.pattern, TODAY)
        assert entry.price is not None
        assert theirs is None or theirs.rates != entry.price.rates, f"delete {entry.pattern} from supplement.toml"


def test_genai_prices_still_tells_no_tiers_apart() -> None:
    aws = next(provider for provider in providers if provider.id == "aws")
    assert not [model.id for model in aws.models if model.price_variants], "read tiers from genai-prices now"


def test_every_figure_has_a_source_and_a_date() -> None:
    for group in [*TABLES["groups"], *TABLES["factors"]]:
        assert group["url"].startswith("https://")
        assert any(host in group["url"] for host in (".amazon.com/", ".amazonaws.com/", ".awsstatic.com/"))
        assert group["via"]
        assert date(2025, 1, 1) <= group["seen"] <= TODAY


def test_regions_are_regions() -> None:
    assert [region for entry in ENTRIES for region in entry.regions if not is_region(region)] == []


def test_no_two_entries_are_for_the_same() -> None:
    keys = [
        (entry.pattern, region, entry.tier, entry.latency) for entry in ENTRIES for region in entry.regions or ("",)
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a.*", "a.b.c", True),
        ("*.c", "a.b.c", True),
        ("a.[bc]", "a.b", False),
        ("a.?", "a.b", False),
        ("a.b", "a.b\n", False),
    ],
)
def test_only_the_star_is_special(pattern: str, name: str, expected: bool) -> None:  # noqa: FBT001  # a table
    assert matches(pattern, name) is expected


def test_the_most_exact_entry_counts() -> None:
    wide, narrow = Entry(pattern="a.*"), Entry(pattern="a.b*")
    exact, local = Entry(pattern="a.b"), Entry(pattern="a.b", regions=("eu-*",))
    entries = [wide, narrow, exact, local]
    assert best(entries, ["a.b"], "us-east-1", None, None) is exact
    assert best(entries, ["a.b"], "eu-west-1", None, None) is local
    assert best(entries, ["a.bc"], "eu-west-1", None, None) is narrow
    assert best(entries, ["a.c"], "eu-west-1", None, None) is wide
    assert best(entries, ["b.c"], "eu-west-1", None, None) is None


def test_figures_are_decimals_as_written() -> None:
    entry = best(ENTRIES, ["cohere.embed-v4:0"], "us-east-1", None, None)
    assert entry is not None
    assert entry.price is not None
    assert str(entry.price.rates.input) == "0.12"
    assert isinstance(entry.price.rates.input, Decimal)
