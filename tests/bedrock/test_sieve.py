import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.sieve import MAX_KEPT_BYTES, Sieve

NAMES = ["usage", "model", "", 'quo"te', "back\\slash", "text"]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(['"', "\\", '\\"', '{"usage":1}']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)


def sieved(data: bytes, cuts: list[int]) -> Sieve:
    sieve = Sieve({"usage", "model"})
    for start, end in pairwise([0, *cuts, len(data)]):
        sieve.feed(data[start:end])
    return sieve


@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6), st.integers(0, 4), st.data())
def test_the_wanted_members_are_kept_whatever_stands_around_them(
    document: dict[str, Any], indent: int, data: st.DataObject
) -> None:
    raw = json.dumps(document, ensure_ascii=data.draw(st.booleans()), indent=indent or None).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    sieve = sieved(raw, cuts)
    assert json.loads(sieve.object()) == {name: document[name] for name in ("usage", "model") if name in document}
    assert sieve.closed


@pytest.mark.parametrize(
    "data", [b"", b"  ", b"[1,2]", b'["usage", {"usage": 1}]', b'"usage"', b"12", b'{"usage":{"a":', b'}{"usage"']
)
def test_what_is_no_whole_object_gives_nothing(data: bytes) -> None:
    assert json.loads(sieved(data, []).object()) == {}


def test_only_what_came_whole_is_kept() -> None:
    sieve = sieved(b'{"model":"m","usage":{"inputTokens":12', [])
    assert sieve.object() == b'{"model":"m"}'
    assert not sieve.closed


def test_what_follows_the_object_is_not_looked_at() -> None:
    assert sieved(b'{"model":1} {"usage":2}', [5, 11]).object() == b'{"model":1}'


def test_a_member_too_large_to_keep_is_dropped_and_marked() -> None:
    sieve = sieved(b'{"model":"' + b"x" * MAX_KEPT_BYTES + b'","usage":1}', [1000, 40_000])
    assert sieve.object() == b'{"usage":1}'
    assert sieve.missed
    assert sieve.closed


@given(st.binary(max_size=200), st.data())
def test_garbage_never_raises(data: bytes, drawn: st.DataObject) -> None:
    sieved(data, sorted(drawn.draw(st.lists(st.integers(0, len(data)), max_size=4)))).object()
