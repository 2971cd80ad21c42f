"""Keys as values: made, digested, and refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.errors import Refusal
from passthrough.policy.keys import MASTER, VirtualKey, admit_key, digest, display_name, is_digest, key_id_of, mint


def test_minted_keys_are_long_random_and_alike_only_in_their_beginning() -> None:
    keys = {mint() for _ in range(1000)}
    assert len(keys) == 1000
    assert {len(key) for key in keys} == {3 + 43}
    assert all(key.startswith("sk-") and key.isascii() and "/" not in key for key in keys)
    assert display_name("sk-abcdefgh") == "sk-...efgh"


@given(st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from("\udc80\udcff")))
def test_any_text_has_a_digest_and_no_digest_is_the_masters(text: str) -> None:
    assert is_digest(digest(text))
    assert digest(text) != MASTER.key_id


def test_a_digest_names_a_key_but_is_no_key() -> None:
    key_id = digest("sk-some-key-or-other")
    assert key_id_of("sk-some-key-or-other") == key_id_of(key_id) == key_id
    # what is presented as a credential is digested whatever it looks like
    assert digest(key_id) != key_id
    assert not is_digest(key_id.upper())
    assert not is_digest(key_id + "\n")


def refusal(key: VirtualKey, now: float) -> str:
    with pytest.raises(Refusal) as refused:
        admit_key(key, now)
    assert (refused.value.status, refused.value.code) == (401, "UnrecognizedClientException")
    return refused.value.message


def test_a_key_is_admitted_until_the_very_moment_of_its_end() -> None:
    key = VirtualKey(key_id="0" * 64, expires_at=1000.0)
    admit_key(key, 999.999)
    assert refusal(key, 1000.0) == (
        "The virtual key expired at 1970-01-01T00:16:40+00:00: ask your administrator for a new one."
    )
    admit_key(VirtualKey(key_id="0" * 64), 9e9)


def test_a_refusal_says_what_it_is_about() -> None:
    blocked = VirtualKey(key_id="0" * 64, blocked=True, blocked_by="team", expires_at=0.0)
    assert refusal(blocked, 1.0) == "The team is blocked: ask your administrator to unblock the team."
    due = VirtualKey(key_id="0" * 64, expires_at=1.0, rotation_due=True)
    assert "was due for rotation at 1970-01-01T00:00:01+00:00" in refusal(due, 2.0)


def test_a_keys_repr_shows_no_metadata() -> None:
    assert "hidden" not in repr(VirtualKey(key_id="0" * 64, metadata={"secret": "hidden"}))
