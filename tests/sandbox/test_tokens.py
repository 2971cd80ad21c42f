"""Counting tokens and caching prompts: figures that anybody can predict."""

import pytest

from passthrough.sandbox import tokens
from passthrough.sandbox.tokens import PromptCache, Segment, TokenUse, count, text_of


def test_four_characters_are_a_token_and_the_rest_is_one_more() -> None:
    assert [count("x" * length) for length in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_text_is_every_string_but_data_roles_types_and_formats() -> None:
    block = {
        "role": "user",
        "type": "text",
        "content": [{"text": "a"}, {"image": {"format": "png", "source": {"bytes": "AAAA"}}}, {"n": 5}],
        "more": {"deep": ["b", "c"]},
    }

    assert text_of(block) == "abc"


def test_an_empty_prompt_still_has_a_token() -> None:
    assert PromptCache().use("m", []) == TokenUse(1)


def test_a_longer_conversation_reads_what_the_shorter_one_wrote() -> None:
    cache = PromptCache()
    start = [Segment("a" * 40, "5m"), Segment("b" * 40, "1h")]

    first = cache.use("m", start)
    second = cache.use("m", [*start, Segment("c" * 40, "5m"), Segment("d" * 4)])

    assert (first.cache_write_5m, first.cache_write_1h, first.cache_read, first.input) == (10, 10, 0, 0)
    assert (second.cache_read, second.cache_write_5m, second.input, second.whole) == (20, 10, 1, 31)


def test_a_prefix_that_differs_is_written_anew() -> None:
    cache = PromptCache()
    cache.use("m", [Segment("a" * 40, "5m")])

    assert cache.use("m", [Segment("b" + "a" * 39, "5m")]).cache_write == 10


def test_the_memory_of_prompts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_PREFIXES", 2)
    cache = PromptCache()
    for text in ("a", "b", "c"):
        cache.use("m", [Segment(text * 4, "5m")])

    assert cache.use("m", [Segment("cccc", "5m")]).cache_read == 1
    assert cache.use("m", [Segment("aaaa", "5m")]).cache_read == 0
