"""What a call costs is the price of the model that ran, whatever it was called."""

from decimal import Decimal

import pytest

from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.usage import Usage
from passthrough.policy.ledger import Entry
from passthrough.policy.pricing import Pricing

PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
MILLION = Usage(input_tokens=10**6, source="body")
NANO, OPUS = "amazon.nova-micro-v1:0", "anthropic.claude-opus-4-5-20251101-v1:0"  # 0.035 and 5.5 USD per million


def cost(asked: str, billed: str | None = None, known: dict[str, str] | None = None) -> Entry:
    entry = Entry(call_id="", started_at=1.79e9, model=asked, billed_model=billed, region="us-east-1")
    Pricing(PriceBook(), {}, (known or {}).get)(entry, MILLION)
    return entry


@pytest.mark.parametrize("alias", ["fast", NANO, "us." + NANO])
def test_an_alias_costs_what_it_stands_for_also_where_it_is_the_name_of_another_model(alias: str) -> None:
    entry = cost(alias, OPUS)
    assert (entry.cost, entry.price_status, entry.billed_model) == (Decimal("5.5"), "priced", OPUS)


def test_an_alias_of_a_profile_costs_what_the_profile_stands_for() -> None:
    entry = cost("fast", PROFILE, {PROFILE: OPUS})
    assert (entry.cost, entry.billed_model) == (Decimal("5.5"), OPUS)


def test_a_call_that_is_priced_later_costs_what_it_would_have() -> None:
    for asked, known in (("us." + OPUS, {}), (OPUS, {}), (PROFILE, {PROFILE: OPUS})):
        first = cost(asked, None, known)
        assert first.cost == cost(asked, first.billed_model).cost
