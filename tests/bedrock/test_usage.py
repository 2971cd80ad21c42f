"""The spellings of usage, one by one; whole answers are in tests/proxy/test_meter.py."""

from typing import Any

import msgspec
import pytest

from passthrough.bedrock.usage import (
    MEMBERS,
    NOTHING,
    Usage,
    counts,
    overlay,
    policy_units,
    read_document,
    tier_of,
    with_own_model,
)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"inputTokens": 1, "outputTokens": 2}, Usage(input_tokens=1, output_tokens=2)),
        ({"inputTokenCount": 1, "outputTokenCount": 2}, Usage(input_tokens=1, output_tokens=2)),
        ({"input_tokens": 1, "output_tokens": 2}, Usage(input_tokens=1, output_tokens=2)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(input_tokens=1, output_tokens=2)),
        ({"prompt_tokens": 1, "prompt_tokens_details": None}, Usage(input_tokens=1)),
        ({"inputTokens": 6.0}, Usage(input_tokens=6)),
        (
            # the writes are the sum of the details where nothing else says so
            {"inputTokens": 1, "cacheDetails": [{"ttl": "5m", "inputTokens": 3}, {"ttl": "1h", "inputTokens": 4}]},
            Usage(input_tokens=1, cache_write_tokens=7, cache_write_1h_tokens=4),
        ),
        (
            {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}},
            Usage(input_tokens=1, cache_write_tokens=7, cache_write_1h_tokens=4),
        ),
        (
            # more cached than there was: nonsense, but never a negative count
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(input_tokens=0, cache_read_tokens=9),
        ),
        ({"inputTokens": "12", "outputTokens": True}, NOTHING),
        ({"inputTokens": -1, "outputTokens": float("nan")}, NOTHING),
        ({"inputTokens": 2**31, "outputTokens": 1e300}, NOTHING),
        ({}, NOTHING),
        (None, NOTHING),
        ([], NOTHING),
        ("12", NOTHING),
    ],
)
def test_a_usage_object_is_counted(usage: Any, expected: Usage) -> None:
    assert counts(usage) == expected


def test_what_is_known_later_replaces_and_what_is_not_stays() -> None:
    base = Usage(input_tokens=1, output_tokens=2, tier="flex")
    assert overlay(base, Usage(output_tokens=5, model="m")) == Usage(
        input_tokens=1, output_tokens=5, tier="flex", model="m"
    )
    assert overlay(base, NOTHING) is base


def test_policy_units_are_counted_flat_and_by_check() -> None:
    assert policy_units({"topicPolicyUnits": 2, "note": "x"}) == {"topicPolicyUnits": 2.0}
    assert policy_units({"contentFilter": {"textUnits": 3}, "promptAttack": {}}) == {"contentFilter": 3.0}
    assert policy_units(None) == {}


@pytest.mark.parametrize(
    ("given", "named"), [("standard", "default"), ("flex", "flex"), (3, None), ("", None), ("x" * 99, None)]
)
def test_the_tier_has_one_name(given: object, named: str | None) -> None:
    assert tier_of(given) == named


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m"}',
        b'{"message":{"model":"m"}}',
        b'{"response":{"model":"m"}}',
    ],
)
def test_a_shaped_answer_names_its_model(raw: bytes) -> None:
    document = read_document(raw)
    assert document is not None
    assert with_own_model(NOTHING, document).model == "m"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"a":\xff}', b"null"])
def test_what_is_no_object_is_no_document(raw: bytes) -> None:
    assert read_document(raw) is None


def test_every_member_that_is_read_is_one_that_the_sieve_keeps() -> None:
    assert {field.encode_name for field in msgspec.structs.fields(type(read_document(b"{}")))} == set(MEMBERS)


def test_nothing_reported_is_not_zero() -> None:
    assert not NOTHING.reported
    assert Usage(input_tokens=0).reported
    assert Usage(units={"images": 1.0}).reported
