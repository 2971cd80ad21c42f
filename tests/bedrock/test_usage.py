"""The spellings of usage, one by one; whole answers are in tests/proxy/test_meter.py."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.documents import MEMBERS, read_converse, read_document
from passthrough.bedrock.usage import (
    NOTHING,
    Usage,
    counts,
    of_document,
    overlay,
    policy_units,
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


_NAMES = (
    *("inputTokens", "outputTokens", "totalTokens", "inputTokenCount", "prompt_tokens", "input_tokens"),
    *("cacheReadInputTokens", "cacheReadInputTokenCount", "cacheWriteInputTokens", "cacheWriteInputTokenCount"),
)
_values = st.one_of(
    st.integers(0, 5), st.none(), st.booleans(), st.sampled_from([-1, 2.0, 0.5, 2**31 - 1, 2**31, 1e300, "1", [], {}])
)
_details = st.lists(st.fixed_dictionaries({"ttl": st.sampled_from(["5m", "1h"]), "inputTokens": _values}), max_size=2)
_usages = st.one_of(
    st.fixed_dictionaries(
        {"inputTokens": st.integers(0, 9), "outputTokens": st.integers(0, 9)},
        optional={**dict.fromkeys(_NAMES[2:], _values), "serverToolUsage": st.just({}), "cacheDetails": _details},
    ),
    st.dictionaries(st.sampled_from(_NAMES), _values),
    _values,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "usage": _usages,
            "serviceTier": st.sampled_from([{"type": "flex"}, "flex", None]),
            "trace": st.just({"promptRouter": {"invokedModelId": "anthropic.x"}}),
            "metadata": st.just({"usage": {"inputTokens": 7}}),
            "stopReason": st.text(max_size=3),
        },
    )
)
def test_the_short_way_to_read_converse_finds_what_the_long_one_does(answer: dict[str, Any]) -> None:
    raw = json.dumps(answer).encode()
    short, long = read_converse(raw), read_document(raw)
    assert short is not None
    assert long is not None
    assert of_document(short) == of_document(long)


def test_the_usual_usage_of_converse_goes_the_short_way() -> None:
    counts = {"cacheReadInputTokens": 3, "cacheReadInputTokenCount": 3, "inputTokens": 1, "outputTokens": 2}
    document = read_converse(json.dumps({"usage": {**counts, "serverToolUsage": {}, "totalTokens": 6}}).encode())
    assert document is not None
    assert not isinstance(document.usage, dict)
    assert of_document(document) == Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"usage":{"inputTokens":1,"outputTokens":2}', b"\xff", b"{" * 5000])
def test_the_short_way_reads_no_more_than_the_long_one(raw: bytes) -> None:
    assert read_converse(raw) is None
    assert read_document(raw) is None
