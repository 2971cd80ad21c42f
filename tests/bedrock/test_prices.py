"""Prices against genai-prices' own arithmetic, and costs worked out by hand."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.prices import PriceBook, cost, price_of
from passthrough.bedrock.supplement import entries_of, supplement
from passthrough.bedrock.usage import Usage
from passthrough.errors import UserError

TODAY = date(2026, 11, 21)
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
AWS = next(provider for provider in providers if provider.id == "aws")
THEIR_MODELS = [model.id.removeprefix("regional.") for model in AWS.models]
BOOK = PriceBook()


def dollars(model: str, usage: Usage, region: str = "us-east-1", book: PriceBook = BOOK) -> Decimal | None:
    return book.charge(usage, model=model, region=region, day=TODAY).cost


tokens = st.integers(0, 400_000)


@given(
    st.sampled_from([model for model in THEIR_MODELS if AWS.find_model(model)]),
    tokens,
    tokens,
    tokens,
    tokens,
    st.data(),
)
def test_a_model_that_the_library_knows_costs_what_the_library_says(
    model: str, inputs: int, outputs: int, read: int, written: int, data: st.DataObject
) -> None:
    hour = data.draw(st.integers(0, written))
    found = AWS.find_model(model)
    assert found is not None
    priced = found.get_prices(datetime(2026, 11, 21, 12, tzinfo=UTC)).__dict__
    usage = Usage(
        input_tokens=inputs,
        output_tokens=outputs if priced.get("output_mtok") else None,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        source="body",
    )
    theirs = TheirUsage(
        input_tokens=inputs + read + written,
        output_tokens=usage.output_tokens or 0,
        input_audio_tokens=0,
        output_audio_tokens=0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
    )
    expected = calc_price(
        theirs, model, provider_id="aws", genai_request_timestamp=datetime(2026, 11, 21, 12, tzinfo=UTC)
    )
    price = price_of(model, "us-east-1", day=TODAY)
    if price is not None and not price.source.startswith("genai-prices"):
        return  # a geography that the library does not tell apart: the supplement's business
    assert price is not None
    assert cost(price, usage) == expected.total_price


# Worked out by hand: tokens times dollars per million.
@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        # 1,000 * 3.3 + 500 * 16.5 + 2,000 * 0.33 + (300 - 100) * 4.125 + 100 * 6.6 = 13,695 → $0.013695
        (
            f"us.{SONNET}",
            Usage(
                input_tokens=1000,
                output_tokens=500,
                cache_read_tokens=2000,
                cache_write_tokens=300,
                cache_write_1h_tokens=100,
                source="body",
            ),
            "0.013695",
        ),
        # the same through the global profile, 10 % less: 1,000 * 3 + 500 * 15 + 2,000 * 0.3 + 200 * 3.75 + 100 * 6
        (
            f"global.{SONNET}",
            Usage(
                input_tokens=1000,
                output_tokens=500,
                cache_read_tokens=2000,
                cache_write_tokens=300,
                cache_write_1h_tokens=100,
                source="body",
            ),
            "0.01245",
        ),
        # 25 * 0.5 + 7 * 1.5 = 23
        ("cohere.command-r-v1:0", Usage(input_tokens=25, output_tokens=7, source="headers"), "0.000023"),
        # 6 * 0.1
        ("cohere.embed-english-v3", Usage(input_tokens=6, source="headers"), "0.0000006"),
        # 10 * 0.8 / 2 + 20 * 3.2 / 2 = 36
        (
            "us.amazon.nova-pro-v1:0",
            Usage(input_tokens=10, output_tokens=20, tier="flex", source="body"),
            "0.000036",
        ),
        # 10 * 0.8 * 1.75 + 20 * 3.2 * 1.75 = 126
        ("amazon.nova-pro-v1:0", Usage(input_tokens=10, output_tokens=20, tier="priority", source="body"), "0.000126"),
        # 10 * 1 + 20 * 4 = 90
        (
            "us.amazon.nova-pro-v1:0",
            Usage(input_tokens=10, output_tokens=20, latency="optimized", source="body"),
            "0.00009",
        ),
        # more than 272,000 tokens of input: all of them at the dearer rate, 300,000 * 8 + 1,000 * 30
        (
            "global.openai.gpt-5.6-sol",
            Usage(input_tokens=100_000, cache_read_tokens=0, output_tokens=1000, cache_write_tokens=0, source="body"),
            "0.42",
        ),
        ("global.openai.gpt-5.6-sol", Usage(input_tokens=300_000, output_tokens=1000, source="body"), "2.43"),
        # 3 * 0.002
        ("cohere.rerank-v3-5:0", Usage(units={"searches": 3.0}, source="body"), "0.006"),
        ("stability.stable-image-ultra-v1:1", Usage(units={"images": 1.0}, source="body"), "0.14"),
        ("amazon.titan-image-generator-v2:0", Usage(units={"images_512_premium": 2.0}, source="body"), "0.02"),
        # the foundation model's ARN, and zero tokens that were reported: $0 is right here
        (
            f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}",
            Usage(input_tokens=0, output_tokens=0, source="body"),
            "0",
        ),
    ],
)
def test_a_call_costs_what_was_worked_out_by_hand(model: str, usage: Usage, expected: str) -> None:
    assert dollars(model, usage) == Decimal(expected)


def test_a_guardrail_costs_its_policy_units() -> None:
    usage = Usage(units={"topicPolicyUnits": 2.0, "contentPolicyUnits": 3.0, "wordPolicyUnits": 9.0}, source="body")
    charge = BOOK.charge(usage, model=None, region="us-east-1", day=TODAY)
    assert charge.cost == Decimal("0.00075")  # 5 * 0.00015; word filters are free
    assert charge.price_status == "priced"


def test_an_agent_costs_the_sum_of_its_models() -> None:
    haiku = Usage(input_tokens=862, output_tokens=161, model="anthropic.claude-3-haiku-20240307-v1:0", source="stream")
    nova = Usage(input_tokens=10, output_tokens=20, model="amazon.nova-lite-v1:0", source="stream")
    both = Usage(input_tokens=872, output_tokens=181, by_model=(haiku, nova), source="stream")
    charge = BOOK.charge(both, model=None, region="us-east-1", day=TODAY)
    # 862 * 0.25 + 161 * 1.25 = 416.75 and 10 * 0.06 + 20 * 0.24 = 5.4
    assert charge.cost == Decimal("0.00042215")
    assert charge.billed_model is None
    one = BOOK.charge(Usage(input_tokens=872, by_model=(haiku,), source="stream"), model=None, region="x", day=TODAY)
    assert one.billed_model == "anthropic.claude-3-haiku-20240307-v1:0"


def test_an_agent_with_one_unknown_model_has_no_cost() -> None:
    known = Usage(input_tokens=1, model="amazon.nova-lite-v1:0", source="stream")
    unknown = Usage(input_tokens=1, model="nobody.knows", source="stream")
    charge = BOOK.charge(Usage(by_model=(known, unknown), source="stream"), model=None, region="us-east-1", day=TODAY)
    assert (charge.cost, charge.price_status) == (None, "unknown_model")


SOME = Usage(input_tokens=10, output_tokens=10, source="body")
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
ROUTER = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1"
IMPORTED = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abc"


@pytest.mark.parametrize(
    ("model", "usage", "status", "billed"),
    [
        ("nobody.knows-v1:0", SOME, "unknown_model", "nobody.knows-v1:0"),
        (None, SOME, "unknown_model", None),
        (PROFILE, SOME, "unknown_model", PROFILE),
        (ROUTER, SOME, "unknown_model", ROUTER),
        (IMPORTED, SOME, "not_metered", IMPORTED),
        (SONNET, Usage(), "not_metered", SONNET),
        (f"us.{SONNET}", Usage(complete=False), "not_metered", SONNET),
        (SONNET, Usage(input_tokens=1, tier="reserved", source="body"), "not_metered", SONNET),
        (SONNET, Usage(input_tokens=1, tier="something-new", source="body"), "unknown_model", SONNET),
        (SONNET, Usage(input_tokens=1, latency="optimized", source="body"), "unknown_model", SONNET),
        (SONNET, Usage(units={"blinks": 1.0}, source="body"), "unknown_model", SONNET),
        ("cohere.embed-english-v3", Usage(output_tokens=1, source="body"), "unknown_model", "cohere.embed-english-v3"),
        # a global profile of which only the model's own price is known
        ("global.mistral.pixtral-unheard-of", SOME, "unknown_model", "mistral.pixtral-unheard-of"),
    ],
)
def test_what_cannot_be_priced_is_null_and_says_why(
    model: str | None, usage: Usage, status: str, billed: str | None
) -> None:
    charge = BOOK.charge(usage, model=model, region="us-east-1", day=TODAY)
    assert (charge.cost, charge.price_status, charge.billed_model) == (None, status, billed)


@pytest.mark.parametrize(
    ("asked", "stands_for", "answered", "billed", "expected"),
    [
        (f"us.{SONNET}", None, None, SONNET, "0.000198"),
        # what was asked for says the profile, which the answer's name may have lost
        (f"us.{SONNET}", None, SONNET, SONNET, "0.000198"),
        (PROFILE, f"global.{SONNET}", None, SONNET, "0.00018"),
        (ROUTER, None, f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET}", SONNET, "0.000198"),
        (None, None, "openai.gpt-oss-120b-1:0", "openai.gpt-oss-120b-1:0", "0.0000075"),
    ],
)
def test_the_model_that_was_billed_is_found(
    asked: str | None, stands_for: str | None, answered: str | None, billed: str, expected: str
) -> None:
    usage = Usage(input_tokens=10, output_tokens=10, model=answered, source="body")
    charge = BOOK.charge(usage, model=asked, region="us-east-1", stands_for=stands_for, day=TODAY)
    assert (charge.billed_model, charge.cost) == (billed, Decimal(expected))


def test_a_price_of_the_past_is_that_of_its_day() -> None:
    before = price_of("global.openai.gpt-5.6-sol", "us-east-1", day=date(2026, 8, 20))
    after = price_of("global.openai.gpt-5.6-sol", "us-east-1", day=date(2026, 8, 21))
    assert before is not None
    assert after is not None
    assert (before.rates.input, after.rates.input) == (Decimal(5), Decimal(4))


def test_geographies_that_the_library_does_not_know_fall_back_to_the_model() -> None:
    india = price_of(f"in.{SONNET}", "ap-south-1", day=TODAY)
    canada = price_of("ca.amazon.nova-lite-v1:0", "ca-central-1", day=TODAY)
    assert india is not None
    assert canada is not None
    assert (india.rates.input, canada.rates.input) == (Decimal("3.3"), Decimal("0.06"))


@pytest.mark.parametrize("model", [SONNET, f"us-gov.{SONNET}"])
def test_the_government_regions_cost_a_fifth_more_than_global(model: str) -> None:
    price = price_of(model, "us-gov-west-1", day=TODAY)
    assert price is not None
    rates = price.rates
    assert (rates.input, rates.output, rates.cache_read) == (Decimal("3.6"), Decimal(18), Decimal("0.36"))
    assert (rates.cache_write, rates.cache_write_1h) == (Decimal("4.5"), Decimal("7.2"))


def book(table: dict[str, object]) -> PriceBook:
    return PriceBook(entries_of(table))


def test_the_settings_come_first() -> None:
    own = book({"anthropic.claude-*": {"input": 1, "output": 2.5}, "anthropic.*": {"input": 9}})
    assert dollars(SONNET, SOME, book=own) == Decimal("0.000035")
    assert dollars(f"us.{SONNET}", SOME, book=own) == Decimal("0.000035")
    assert dollars("amazon.nova-lite-v1:0", SOME, book=own) == Decimal("0.000003")


def test_the_settings_may_be_for_a_region_a_tier_or_a_profile() -> None:
    own = book(
        {
            SONNET: [
                {"input": 1, "output": 1, "regions": ["eu-*"]},
                {"input": 2, "output": 2, "tier": "flex"},
            ],
            f"us.{SONNET}": {"input": 4, "output": 4},
        }
    )
    assert dollars(SONNET, SOME, "eu-west-1", own) == Decimal("0.00002")
    assert dollars(SONNET, SOME, "us-east-1", own) == Decimal("0.000198")
    assert dollars(SONNET, Usage(input_tokens=10, tier="flex", source="body"), "us-east-1", own) == Decimal("0.00002")
    assert dollars(f"us.{SONNET}", SOME, "us-east-1", own) == Decimal("0.00008")


def test_a_multiplier_goes_over_whatever_price_there_is() -> None:
    own = book({"*": {"multiplier": 0.9}, "nobody.knows": {"input": 10, "output": 0}})
    assert dollars(SONNET, SOME, book=own) == Decimal("0.0001782")
    assert dollars("nobody.knows", SOME, book=own) == Decimal("0.00009")
    assert dollars("nobody.else", SOME, book=own) is None


def test_the_settings_say_what_an_opaque_id_is() -> None:
    own = book(
        {
            PROFILE: {"model": f"us.{SONNET}"},
            "arn:aws:bedrock:*:imported-model/*": {"input": 1, "output": 1},
            "amazon.nova-lite-v1:0": {"metered": False},
        }
    )
    assert own.charge(SOME, model=PROFILE, region="us-east-1", day=TODAY).billed_model == SONNET
    assert dollars(PROFILE, SOME, book=own) == Decimal("0.000198")
    assert dollars(IMPORTED, SOME, book=own) == Decimal("0.00002")
    charge = own.charge(SOME, model="amazon.nova-lite-v1:0", region="us-east-1", day=TODAY)
    assert (charge.cost, charge.price_status) == (None, "not_metered")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"x": 3}, "no table"),
        ({"x": {"inputs": 3}}, "unknown name inputs"),
        ({"x": {"input": -1}}, "no price"),
        ({"x": {"input": "much"}}, "no price"),
        ({"x": {"input": True}}, "no price"),
        ({"x": {"input": float("nan")}}, "no price"),
        ({"x": {"units": 3}}, "no table"),
        ({"x": {"regions": "us-east-1"}}, "no list"),
        ({"x": {"tier": 3}}, "no text"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_its_name(table: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        entries_of(table)
    assert "x" in str(raised.value)


def test_a_float_in_the_settings_is_taken_as_written() -> None:
    (entry,) = entries_of({"x": {"input": 0.1, "cache_read": 0.0375}})
    assert entry.price is not None
    assert (entry.price.rates.input, entry.price.rates.cache_read) == (Decimal("0.1"), Decimal("0.0375"))


def test_costs_are_exact_where_floats_are_not() -> None:
    own = book({"x.y": {"input": 0.1}})
    assert dollars("x.y", Usage(input_tokens=3, source="body"), book=own) == Decimal("0.0000003")
    thousand = sum(
        (dollars("x.y", Usage(input_tokens=1, source="body"), book=own) or 0 for _ in range(1000)), Decimal(0)
    )
    assert thousand == Decimal("0.0001")


def test_every_entry_of_the_supplement_is_found_and_priced() -> None:
    for entry in supplement().entries:
        model = entry.pattern.replace("*", "")
        region = entry.regions[0].replace("*", "1") if entry.regions else "us-east-1"
        price = price_of(model, region, tier=entry.tier, latency=entry.latency, day=TODAY)
        assert price == entry.price, entry
