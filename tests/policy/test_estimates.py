"""The bound of a call is never below what the call then costs, whatever its body says."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.supplement import entries_of
from passthrough.bedrock.usage import Usage
from passthrough.policy.allowances import picodollars_up
from passthrough.policy.estimates import Bound, Estimates
from passthrough.policy.ledger import Entry
from passthrough.policy.pricing import Pricing
from passthrough.proxy.route import route
from tests.policy.estimating import BOOK, CLAUDE, ESTIMATES, LLAMA, NOVA, bound, calling, entry_for


def output(model: str, body: object, operation: str = "converse") -> int:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bound(model, raw, operation).tokens - len(raw) - 128


@pytest.mark.parametrize(
    ("model", "operation", "body", "tokens"),
    [
        (NOVA, "converse", {"inferenceConfig": {"maxTokens": 77}}, 77),
        (NOVA, "converse", {"messages": []}, 10_240),
        (NOVA, "converse", {"maxTokens": 77}, 10_240),  # where Converse does not look
        (NOVA, "converse", {"toolConfig": {"x": {"inferenceConfig": {"maxTokens": 1}}}}, 10_240 + 1024),
        (
            NOVA,
            "converse",
            {"inferenceConfig": {"maxTokens": 10**20}},
            1_050_000,
        ),  # AWS refuses it; no model holds more
        (NOVA, "converse", {"inferenceConfig": {"maxTokens": -5}}, 10_240),
        (NOVA, "converse", {"inferenceConfig": {"maxTokens": "77"}}, 10_240),
        (NOVA, "converse", {"inferenceConfig": None}, 10_240),
        (NOVA, "invoke", {"inferenceConfig": {"max_new_tokens": 5}}, 5),
        (CLAUDE, "invoke", {"max_tokens": 1234}, 1234),
        (CLAUDE, "invoke", {"max_tokens": 1234, "system": '"max_tokens": 9'}, 1234),
        (CLAUDE, "invoke", b'{"max_tokens": 5, "max_tokens": 900}', 900),
        (CLAUDE, "invoke", b'{"max_tokens": 900, "max_tokens": 5}', 900),
        (CLAUDE, "invoke", {"tools": [{"max_tokens": 5}]}, 65_536 + 1024),
        ("global.anthropic.claude-opus-4-1-20250805-v1:0", "converse", {}, 32_768),
        ("anthropic.claude-opus-4-20250514-v1:0", "converse", {}, 32_768),
        ("us.anthropic.claude-opus-4-6-v1", "converse", {}, 131_072),
        (CLAUDE, "invoke", b'{"max_tokens": 9e2, "max_tokens": 5}', 900),
        (CLAUDE, "invoke", b'{"max_tokens": 99999999, "max_tokens": 5}', 65_536),  # which AWS refuses
        (LLAMA, "invoke", {"prompt": "hi", "max_gen_len": 512}, 512),
        (LLAMA, "invoke", {"prompt": "hi"}, 8192),
        ("amazon.titan-text-express-v1", "invoke", {"textGenerationConfig": {"maxTokenCount": 30}}, 30),
        ("anthropic.claude-v2:1", "invoke", {"max_tokens_to_sample": 300}, 300),
        ("cohere.command-text-v14", "invoke", {"prompt": "", "max_tokens": 50, "num_generations": 4}, 200),
        ("openai.gpt-oss-20b-1:0", "invoke", {"max_completion_tokens": 40, "n": 3}, 120),
        ("openai.gpt-oss-20b-1:0", "invoke", {"max_completion_tokens": 40, "best_of": 3}, 120),
        ("openai.gpt-oss-20b-1:0", "invoke", {"max_completion_tokens": 40, "n": 3.0}, 40 * 128),
        (CLAUDE, "invoke", {"max_tokens": 9, "messages": [{"n": 3}, {"name": "n"}]}, 9),
        ("amazon.titan-embed-text-v2:0", "invoke", {"inputText": "hi"}, 0),
        ("cohere.embed-english-v3", "invoke", {"texts": ["hi"], "max_tokens": 5}, 0),
        ("nobody.new-v1:0", "converse", {"messages": []}, 131_072),
    ],
)
def test_the_maximum_of_output_is_what_the_body_names_or_else_the_models(
    model: str, operation: str, body: object, tokens: int
) -> None:
    assert output(model, body, operation) == tokens


def test_a_token_is_at_least_a_byte_and_never_more_than_fit_the_model() -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "é" * 1000}]}], "inferenceConfig": {"maxTokens": 1}}
    raw = json.dumps(body, ensure_ascii=False).encode()
    assert bound(NOVA, raw).tokens == len(raw) + 128 + 1
    huge = b'{"messages": "' + b"x" * 2_000_000 + b'", "inferenceConfig": {"maxTokens": 1}}'
    assert bound(NOVA, huge).tokens == 300_000 + 1


def test_pictures_count_by_the_piece_and_what_is_packed_by_the_whole_window() -> None:
    picture = {"image": {"format": "png", "source": {"bytes": "A" * 400_000}}}
    body = {"messages": [{"content": [picture, {"text": "what is it?"}]}], "inferenceConfig": {"maxTokens": 1}}
    size = len(json.dumps(body))
    assert bound(CLAUDE, body).tokens == size - 400_000 + 5000 + 128 + 1
    anthropic = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    raw = json.dumps({"max_tokens": 1, "messages": [{"content": [anthropic]}]}).encode()
    assert bound(CLAUDE, raw, "invoke").tokens == len(raw) - 400_000 + 5000 + 128 + 1
    for packed in (
        {"document": {"format": "pdf", "source": {"bytes": "A" * 400}}},
        {"video": {"source": {"s3Location": {"uri": "s3://b/k"}}}},
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}},
    ):
        body = {"messages": [{"content": [packed]}], "inferenceConfig": {"maxTokens": 1}}
        assert bound(NOVA, body).tokens == 300_000 + 1


def test_a_text_that_speaks_of_pictures_is_text() -> None:
    body = {"messages": [{"content": [{"text": 'say {"image": {"source": {"bytes": "A"}}}'}]}]}
    raw = json.dumps(body).encode()
    assert bound(NOVA, raw).tokens == len(raw) + 128 + 10_240


def test_dated_tools_bring_their_own_prompt() -> None:
    plain = json.dumps({"max_tokens": 1, "tools": [{"name": "x"}]}).encode()
    dated = json.dumps({"max_tokens": 1, "tools": [{"type": "computer_20250124", "name": "x"}]}).encode()
    assert bound(CLAUDE, plain, "invoke").tokens == len(plain) + 128 + 1 + 1024
    assert bound(CLAUDE, dated, "invoke").tokens == len(dated) + 128 + 1 + 4096


@pytest.mark.parametrize("path", ["/bedrock/foundation-models", "/bedrock/inference-profiles/x"])
def test_what_runs_no_model_costs_nothing(path: str) -> None:
    assert ESTIMATES.bound(route("GET", path), entry_for(None), b"", 0, money=True) == Bound(0, 0)


def test_counting_tokens_costs_nothing() -> None:
    assert ESTIMATES.bound(calling(NOVA, "count-tokens"), entry_for(NOVA), b"{}", 2, money=True) == Bound(0, 0)


def test_a_model_that_nobody_knows_has_no_price_and_one_that_is_paid_by_the_hour_costs_nothing() -> None:
    assert bound("nobody.new-v1:0", {}).money is None
    provisioned = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefghijkl"
    call = calling(provisioned.replace("/", "%2F").replace(":", "%3A"))
    assert ESTIMATES.bound(call, entry_for(provisioned), b"{}", 2, money=True).money == 0


def test_what_an_alias_or_a_profile_stands_for_has_its_price() -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    known: dict[str, str] = {}
    estimates = Estimates(BOOK, {}, known.get)
    call, body = calling(NOVA), b'{"inferenceConfig": {"maxTokens": 10}}'
    assert estimates.bound(call, entry_for(profile), body, len(body), money=True).money is None
    known[profile] = NOVA
    priced = estimates.bound(call, entry_for(profile), body, len(body), money=True)
    assert priced.money is not None
    aliased = estimates.bound(call, entry_for("my-model", billed_model=NOVA), body, len(body), money=True)
    assert aliased.money is not None
    assert aliased.money == bound(NOVA, body).money


def test_the_price_is_that_of_the_day_of_the_call() -> None:
    # genai-prices: regional.openai.gpt-5.6-sol became cheaper on 2026-08-21
    model = "us.openai.gpt-5.6-sol"
    body = b'{"inferenceConfig": {"maxTokens": 1000}}'
    before, after = (
        ESTIMATES.bound(calling(model), entry, body, len(body), money=True).money
        for entry in (Entry(call_id="", started_at=at, model=model, region="us-east-1") for at in (1.786e9, 1.788e9))
    )
    assert before is not None
    assert after is not None
    assert before > after


def test_pieces_have_their_price_and_multipliers_count() -> None:
    image = {"taskType": "TEXT_IMAGE", "imageGenerationConfig": {"numberOfImages": 3, "width": 512, "height": 512}}
    assert bound("amazon.titan-image-generator-v2:0", image, "invoke").money == 24 * 10**9
    twice = Estimates(BOOK, {"key:ci": Decimal("1.5"), "team:red": Decimal(2)})
    entry = entry_for(NOVA, key_alias="ci", team_id="red")
    body = b'{"inferenceConfig": {"maxTokens": 100}}'
    plain = ESTIMATES.bound(calling(NOVA), entry, body, len(body), money=True).money
    assert plain is not None
    assert twice.bound(calling(NOVA), entry, body, len(body), money=True).money == 3 * plain


def test_rates_can_be_bound_more_loosely_and_money_never() -> None:
    loose = Estimates(BOOK, {}, assumed_output_tokens=500, bytes_per_token=4.0)
    body = {"messages": [{"content": [{"text": "x" * 1000}]}]}
    size = len(json.dumps(body))
    assert bound(NOVA, body, estimates=loose) == Bound((size + 128) // 4 + 500, bound(NOVA, body).money)


def test_a_tier_that_is_asked_for_by_a_header_is_in_the_price() -> None:
    body = b'{"inferenceConfig": {"maxTokens": 100}}'
    plain = ESTIMATES.bound(calling(NOVA), entry_for(NOVA), body, len(body), money=True).money
    asked = ESTIMATES.bound(calling(NOVA), entry_for(NOVA, tier="priority"), body, len(body), money=True).money
    assert plain is not None
    assert asked is not None
    assert asked > plain


GUARDED = {
    "topicPolicyUnits": 2,
    "contentPolicyUnits": 2,
    "wordPolicyUnits": 2,
    "sensitiveInformationPolicyUnits": 2,
    "contextualGroundingPolicyUnits": 2,
}


def test_a_guardrail_alone_is_bound_by_its_text() -> None:
    call = route("POST", "/bedrock/guardrail/g/version/1/apply")
    body = json.dumps({"source": "INPUT", "content": [{"text": {"text": "x" * 1500}}]}).encode()
    entry = entry_for(None, request_bytes=len(body))
    tokens, money = ESTIMATES.bound(call, entry, body, len(body), money=True)
    assert tokens == 0  # else a key of a token rate could never make the call
    usage = Usage(units={name: float(count) for name, count in GUARDED.items()}, source="body")
    Pricing(BOOK, {})(entry, usage)
    assert entry.cost is not None
    assert money is not None
    assert money >= picodollars_up(entry.cost)


SETTINGS = entries_of({"special.*": {"input": 3, "output": 15, "cache_read": 9, "cache_write_1h": 12}})


@settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(
        [CLAUDE, NOVA, LLAMA, "global.openai.gpt-6-sol", "us.anthropic.claude-haiku-5-5", "special.m"]
    ),
    text=st.integers(0, 400_000),
    most=st.integers(0, 200_000),
    shares=st.tuples(*[st.integers(0, 100)] * 5),
    tier=st.sampled_from([None, "priority", "flex"]),
    caches=st.booleans(),
)
def test_no_usage_within_the_bound_costs_more_than_it(
    model: str,
    text: int,
    most: int,
    shares: tuple[int, ...],
    tier: str | None,
    caches: bool,  # noqa: FBT001  # hypothesis's arguments
) -> None:
    book = PriceBook(SETTINGS)
    estimates = Estimates(book, {"key:x": Decimal("1.1")})
    body: dict[str, Any] = {"messages": ["x" * text], "inferenceConfig": {"maxTokens": most}}
    if tier:
        body["serviceTier"] = {"type": tier}
    if caches:
        body["system"] = [{"cachePoint": {"type": "default"}}]
    raw = json.dumps(body).encode()
    entry = entry_for(model, key_alias="x")
    reserved = estimates.bound(calling(model), entry, raw, len(raw), money=True)
    assert reserved.money is not None
    tokens_in = reserved.tokens - most
    parts = [tokens_in * share // max(1, sum(shares[:3])) for share in shares[:3]]
    if not caches and "claude" in model:
        parts = [sum(parts), 0, 0]
    usage = Usage(
        input_tokens=parts[0],
        cache_read_tokens=parts[1],
        cache_write_tokens=parts[2],
        cache_write_1h_tokens=parts[2] * shares[3] // 100,
        output_tokens=most * shares[4] // 100,
        tier=tier,
        source="body",
    )
    Pricing(book, {"key:x": Decimal("1.1")})(entry, usage)
    if entry.cost is not None:
        assert picodollars_up(entry.cost) <= reserved.money
