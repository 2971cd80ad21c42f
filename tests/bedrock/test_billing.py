from datetime import date
from decimal import Decimal

import pytest

from passthrough.bedrock.billing import COLUMNS, billed, compare, words
from passthrough.errors import UserError

DAY = date(2026, 3, 10)


def line(usage: str, cost: str, **more: str) -> dict[str, str]:
    return {
        "line_item_usage_start_date": "2026-03-10T14:00:00.000Z",
        "line_item_unblended_cost": cost,
        "line_item_usage_type": usage,
        "line_item_product_code": "AmazonBedrock",
        "line_item_line_item_type": "Usage",
    } | more


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Claude4.6Sonnet", "anthropic.claude-sonnet-4-6"),
        ("Claude4.6Opus", "anthropic.claude-opus-4-6-v1"),
        ("Claude3Sonnet", "anthropic.claude-3-sonnet-20240229-v1:0"),
        ("Claude3.5Sonnetv2", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("Claude Sonnet 4.5", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("NovaLite", "amazon.nova-lite-v1:0"),
        ("Nova2.0Lite", "amazon.nova-2-lite-v1:0"),
        ("Llama3-3-70B", "meta.llama3-3-70b-instruct-v1:0"),
        ("TitanEmbedV2-Text", "amazon.titan-embed-text-v2:0"),
        ("CommandR", "cohere.command-r-v1:0"),
    ],
)
def test_both_spellings_of_a_model_have_the_same_words(theirs: str, ours: str) -> None:
    assert words(theirs) == words(ours)


def test_different_models_have_different_words() -> None:
    models = ["NovaLite", "NovaPro", "Nova2.0Lite", "Claude4.6Sonnet", "Claude4.5Sonnet", "Claude4.6Opus", "Llama3-70B"]
    assert len({words(model) for model in models}) == len(models)


def test_a_bill_is_summed_by_day_and_model_over_kinds_of_tokens_and_regions() -> None:
    rows = [
        line("USE1-Claude4.6Sonnet-input-tokens", "0.0690000001"),
        line("USE1-Claude4.6Sonnet-output-tokens", "0.214"),
        line("USW2-Claude4.6Sonnet-cache-read-input-token-count-cross-region-global", "0.001"),
        line("USE1-NovaLite-input-tokens-batch", "0.5", line_item_usage_start_date="2026-03-11 00:00:00"),
    ]
    assert billed(rows, COLUMNS, source="bill.csv") == {
        (DAY, "Claude4.6Sonnet"): Decimal("0.2840000001"),
        (date(2026, 3, 11), "NovaLite"): Decimal("0.5"),
    }


def test_a_model_of_the_marketplace_is_known_by_its_product() -> None:
    product = '{"product_name": "Claude Sonnet 4.5 (Amazon Bedrock Edition)"}'
    rows = [
        line("MP:USE1_InputTokenCount-Units", "1", line_item_product_code="1a2b3c", product=product),
        line("x", "2", line_item_product_code="1a", product_product_name="Claude Sonnet 4.5 (Amazon Bedrock Edition)"),
    ]
    assert billed(rows, COLUMNS, source="bill.csv") == {(DAY, "Claude Sonnet 4.5"): Decimal(3)}


def test_other_services_and_what_is_no_usage_are_left_out() -> None:
    rows = [
        line("USE1-Requests-Tier1", "9", line_item_product_code="AmazonS3"),
        line("USE1-NovaLite-input-tokens", "-9", line_item_line_item_type="Credit"),
        line("USE1-NovaLite-input-tokens", "9", line_item_line_item_type="Tax"),
        line("x", "9", line_item_product_code="other", product="no JSON"),
    ]
    assert billed(rows, COLUMNS, source="bill.csv") == {}


def test_another_file_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^bill\.csv lacks the column line_item_line_item_type"):
        billed([], ["lineItem/UnblendedCost"], source="bill.csv")
    with pytest.raises(UserError, match=r"Row 1 of bill\.csv "):
        billed([line("USE1-NovaLite-input-tokens", "nan")], COLUMNS, source="bill.csv")
    with pytest.raises(UserError, match=r"Row 1 of bill\.csv "):
        billed([line("USE1-NovaLite-input-tokens", "much")], COLUMNS, source="bill.csv")
    with pytest.raises(UserError, match=r"Row 1 of bill\.csv "):
        billed(
            [line("USE1-NovaLite-input-tokens", "1", line_item_usage_start_date="March")], COLUMNS, source="bill.csv"
        )


def test_both_sides_are_joined_and_what_only_one_has_is_shown() -> None:
    ours = {(DAY, "amazon.nova-lite-v1:0"): Decimal("1.5"), (DAY, "only.ours"): Decimal("0.1")}
    theirs = {(DAY, "NovaLite"): Decimal("1.6"), (DAY, "Odd"): Decimal(2), (date(2026, 3, 9), "NovaLite"): Decimal(1)}
    found = compare(ours, theirs, {"Odd": "some.model"})
    assert [(each.day.day, each.model, each.ours, each.theirs, each.difference) for each in found] == [
        (9, "amazon.nova-lite-v1:0", None, Decimal(1), Decimal(1)),
        (10, "some.model", None, Decimal(2), Decimal(2)),
        (10, "amazon.nova-lite-v1:0", Decimal("1.5"), Decimal("1.6"), Decimal("0.1")),
        (10, "only.ours", Decimal("0.1"), None, Decimal("-0.1")),
    ]
