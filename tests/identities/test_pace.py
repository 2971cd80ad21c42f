import math

from hypothesis import given
from hypothesis import strategies as st

from passthrough.identities import Found, Pace
from passthrough.policy.credentials import Credentials


def found(left: float, *, access_key: str = "AKIA", source: str = "assume-role") -> Found:
    return Found(Credentials(access_key, "secret", "token"), 1000.0 + left, source, None)


@given(
    left=st.floats(min_value=2.0, max_value=1e6),
    before=st.sampled_from([None, found(5.0), found(5.0, access_key="AKIAOTHER")]),
    source=st.sampled_from(["assume-role", "iam-role", "container-role"]),
)
def test_the_next_look_is_always_before_the_expiry_and_never_at_once(
    left: float, before: Found | None, source: str
) -> None:
    after = Pace().next_look(found(left, source=source), before, 1000.0) - 1000.0
    assert min(left / 2, 60.0) - 1e-6 <= after <= left - 0.8 * min(left / 2, 900.0) + 1e-6


def test_long_lived_credentials_are_looked_up_a_quarter_of_an_hour_ahead() -> None:
    assert 1000.0 + 3600 - 900 <= Pace().next_look(found(3600.0), None, 1000.0) <= 1000.0 + 3600 - 720


def test_a_source_that_has_nothing_newer_yet_is_asked_every_minute() -> None:
    assert Pace().next_look(found(850.0), found(850.0), 1000.0) == 1060.0


def test_instance_credentials_near_their_end_are_looked_up_every_minute_for_botocore_puts_their_expiry_off() -> None:
    assert Pace().next_look(found(1500.0, source="iam-role"), None, 1000.0) == 1060.0
    assert Pace().next_look(found(6 * 3600.0, source="iam-role"), None, 1000.0) > 1000.0 + 5 * 3600


def test_only_files_are_read_again_when_nothing_expires() -> None:
    assert Pace().next_look(found(math.inf, source="shared-credentials-file"), None, 1000.0) == 1060.0
    assert Pace().next_look(found(math.inf, source="env"), None, 1000.0) == math.inf


@given(failures=st.integers(min_value=1, max_value=10_000))
def test_retries_back_off_to_half_a_minute(failures: int) -> None:
    assert 0.8 <= Pace().retry(failures) <= 30.0
    assert Pace().retry(1) <= 1.0
    assert Pace().retry(failures + 6) >= 24.0
